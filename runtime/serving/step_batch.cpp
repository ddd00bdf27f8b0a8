#include "runtime/serving/step_batch.hpp"

#include <bit>
#include <cstring>

namespace llumnix {

static_assert(
  std::endian::native == std::endian::little, "step_batch copies little-endian numbers");

namespace {

template <class T>
void put(std::vector<char>& out, T value) {
  auto at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

/// Reads numbers off bytes and remembers when there were too few.
class reader {
public:
  explicit reader(const std::vector<char>& bytes)
    : at_{bytes.data()}, end_{bytes.data() + bytes.size()} {}

  template <class T>
  T get() {
    T value{};
    if (static_cast<std::size_t>(end_ - at_) < sizeof value) {
      failed_ = true;
      at_ = end_;
      return value;
    }
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  bool failed() const { return failed_; }
  bool at_end() const { return at_ == end_; }

private:
  const char* at_;
  const char* end_;
  bool failed_ = false;
};

void read_logprobs(reader& in, std::size_t count, std::vector<token_logprob>& out) {
  out.resize(count);
  for (auto& one : out) {
    one.logprob = in.get<float>();
    auto alternatives = in.get<std::uint16_t>();
    one.alternatives.clear();
    for (std::uint16_t i = 0; i < alternatives && !in.failed(); ++i) {
      auto id = in.get<token_id>();
      one.alternatives.emplace_back(id, in.get<float>());
    }
    if (in.failed())
      return;
  }
}

} // namespace

void step_batch::add(const token_delta& delta) {
  auto count = std::min<std::size_t>(delta.tokens.size(), 65535);
  bool with_logprobs = !delta.logprobs.empty();
  put(bytes_, delta.stream);
  put(bytes_, delta.epoch);
  put(bytes_, delta.start);
  put(bytes_, delta.cached_tokens);
  put(bytes_, static_cast<std::uint16_t>(count));
  put(bytes_, static_cast<std::uint8_t>(delta.finish));
  put(bytes_, static_cast<std::uint8_t>(with_logprobs));
  for (std::size_t i = 0; i < count; ++i)
    put(bytes_, delta.tokens[i]);
  for (std::size_t i = 0; with_logprobs && i < count; ++i) {
    static const token_logprob missing;
    const auto& one = i < delta.logprobs.size() ? delta.logprobs[i] : missing;
    put(bytes_, one.logprob);
    put(bytes_, static_cast<std::uint16_t>(one.alternatives.size()));
    for (auto [id, logprob] : one.alternatives) {
      put(bytes_, id);
      put(bytes_, logprob);
    }
  }
  ++count_;
}

result<void> read_step_batch(
  const std::vector<char>& bytes, const std::function<void(const token_delta&)>& each) {
  reader in{bytes};
  token_delta delta;
  while (!in.at_end()) {
    delta.stream = in.get<std::uint64_t>();
    delta.epoch = in.get<std::uint32_t>();
    delta.start = in.get<std::uint32_t>();
    delta.cached_tokens = in.get<std::uint32_t>();
    auto count = in.get<std::uint16_t>();
    auto finish = in.get<std::uint8_t>();
    auto with_logprobs = in.get<std::uint8_t>();
    if (
      in.failed() || finish > static_cast<std::uint8_t>(finish_reason::abort) || with_logprobs > 1)
      return {errc::invalid_argument, "a step batch with a broken delta"};
    delta.finish = static_cast<finish_reason>(finish);
    delta.tokens.clear();
    for (std::uint16_t i = 0; i < count && !in.failed(); ++i)
      delta.tokens.push_back(in.get<token_id>());
    delta.logprobs.clear();
    if (with_logprobs)
      read_logprobs(in, delta.tokens.size(), delta.logprobs);
    if (in.failed())
      return {errc::invalid_argument, "a step batch that ends inside a delta"};
    each(delta);
  }
  return {};
}

} // namespace llumnix
