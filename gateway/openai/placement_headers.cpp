#include "gateway/openai/placement_headers.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace llumnix::openai {
namespace {

constexpr float slo_ms_max = 1e9f;
constexpr std::size_t session_bytes_max = 128;

/// The number, if it is one to wait for.
std::optional<float> read_milliseconds(std::string_view text) {
  float value = 0;
  auto* end = text.data() + text.size();
  auto [stopped, failure] = std::from_chars(text.data(), end, value);
  bool good = failure == std::errc{} && stopped == end && std::isfinite(value) && value > 0
              && value <= slo_ms_max;
  return good ? std::optional{value} : std::nullopt;
}

bool is_session(std::string_view text) {
  auto visible = [](char c) { return c > ' ' && c < '\x7f'; };
  return !text.empty() && text.size() <= session_bytes_max && std::ranges::all_of(text, visible);
}

/// The first thing wrong with the headers, found while they are read.
class header_reader {
public:
  explicit header_reader(const net::http_request& request) : request_{request} {}

  void read(std::string_view name, std::optional<float>& into) {
    auto* text = find(name);
    if (text && !(into = read_milliseconds(*text)))
      fail(name, "must be a number of milliseconds above 0 and up to 1e9.");
  }
  void read(std::string_view name, std::int32_t& into) {
    auto* text = find(name);
    if (!text)
      return;
    auto* end = text->data() + text->size();
    auto [stopped, failure] = std::from_chars(text->data(), end, into);
    if (failure != std::errc{} || stopped != end)
      fail(name, "must be a whole number of 32 bits; lower goes first.");
  }
  void read(std::string_view name, std::string& into) {
    auto* text = find(name);
    if (text && !is_session(*text))
      fail(name, "must be 1 to 128 visible ASCII characters.");
    else if (text)
      into = *text;
  }
  const std::optional<api_error>& failure() const { return failure_; }

private:
  const std::string* find(std::string_view name) {
    const std::string* found = nullptr;
    for (const auto& [key, value] : request_.headers)
      if (key == name) {
        if (found)
          fail(name, "must be there once.");
        found = &value;
      }
    return found;
  }
  void fail(std::string_view name, std::string_view what) {
    std::string header{name};
    if (!failure_)
      failure_ = api_error{
        400, "invalid_value", "The header '" + header + "' " + std::string{what}, header};
  }

  const net::http_request& request_;
  std::optional<api_error> failure_;
};

} // namespace

std::variant<placement_wishes, api_error> read_placement_headers(const net::http_request& request) {
  placement_wishes wishes;
  header_reader from{request};
  from.read("x-slo-ttft-ms", wishes.ttft_slo_ms);
  from.read("x-slo-tpot-ms", wishes.tpot_slo_ms);
  from.read("x-session-id", wishes.session);
  from.read("x-priority", wishes.priority);
  if (from.failure())
    return *from.failure();
  return wishes;
}

} // namespace llumnix::openai
