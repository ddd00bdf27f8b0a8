#include "gateway/relay/retry_after.hpp"

#include "net/http_date.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>

namespace llumnix::relay {

namespace {

constexpr std::chrono::milliseconds longest_rest{60'000};

} // namespace

std::chrono::milliseconds
asked_rest(std::string_view retry_after, std::string_view date, unix_ms now) {
  std::uint32_t seconds = 0;
  const auto* behind = retry_after.data() + retry_after.size();
  auto [end, failure] = std::from_chars(retry_after.data(), behind, seconds);
  if (failure == std::errc::result_out_of_range)
    return longest_rest;
  if (failure == std::errc{} && (end == behind || *end == '.')) // some tell fractions
    return std::min<std::chrono::milliseconds>(std::chrono::seconds{seconds}, longest_rest);
  auto until = net::parse_http_date(retry_after);
  if (!until)
    return {};
  auto told = net::parse_http_date(date);
  auto from = told ? std::chrono::milliseconds{std::chrono::seconds{*told}}
                   : std::chrono::milliseconds{now};
  auto rest = std::chrono::milliseconds{std::chrono::seconds{*until}} - from;
  return std::clamp(rest, std::chrono::milliseconds{0}, longest_rest);
}

} // namespace llumnix::relay
