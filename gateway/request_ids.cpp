#include "gateway/request_ids.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

constexpr std::size_t max_id_size = 128;

bool allowed(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'
         || c == '.' || c == ':' || c == '-';
}

} // namespace

bool valid_request_id(std::string_view id) {
  return !id.empty() && id.size() <= max_id_size && std::all_of(id.begin(), id.end(), allowed);
}

std::string make_uuid(std::mt19937_64& random) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::uint64_t halves[2] = {random(), random()};
  halves[0] = (halves[0] & ~0xF000ull) | 0x4000ull;       // version 4
  halves[1] = (halves[1] & ~(3ull << 62)) | (2ull << 62); // variant 1
  std::string text;
  text.reserve(36);
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20)
      text += '-';
    text += hex[(halves[digit / 16] >> (60 - 4 * (digit % 16))) & 15];
  }
  return text;
}

request_ids::claim::~claim() {
  if (owner_)
    owner_->give_back(*this);
}

void request_ids::claim::swap(claim& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(text_, other.text_);
  std::swap(name_size_, other.name_size_);
}

request_ids::claim request_ids::take(std::string_view supplied, std::mt19937_64& random) {
  claim id;
  if (!valid_request_id(supplied)) {
    id.text_ = make_uuid(random);
    return id;
  }
  id.owner_ = this;
  id.text_ = supplied;
  id.name_size_ = supplied.size();
  std::lock_guard lock{mutex_};
  auto& name = names_[id.text_];
  ++name.running;
  while (!running_.insert(id.text_).second) {
    id.text_.resize(id.name_size_);
    id.text_ += '-';
    id.text_ += std::to_string(++name.last_suffix);
  }
  return id;
}

void request_ids::give_back(const claim& id) {
  std::lock_guard lock{mutex_};
  running_.erase(id.text_);
  auto name = names_.find(std::string_view{id.text_}.substr(0, id.name_size_));
  if (--name->second.running == 0)
    names_.erase(name);
}

} // namespace llumnix
