#include "apps/load/load_stats.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>

namespace llumnix::load {

namespace {

using json = nlohmann::ordered_json;

// A bucket is named by the place of a number's highest bit and the `fine_bits` below it.
constexpr unsigned fine_bits = 7;
constexpr std::uint64_t fine = 1U << fine_bits;
constexpr std::size_t bucket_count = (64 - fine_bits + 1) << fine_bits;

std::size_t bucket_of(std::uint64_t value) {
  if (value < fine)
    return value;
  auto shift = static_cast<unsigned>(std::bit_width(value)) - 1 - fine_bits;
  return ((shift + 1ULL) << fine_bits) + ((value >> shift) - fine);
}

std::uint64_t top_of(std::size_t bucket) {
  if (bucket < fine)
    return bucket;
  auto shift = (bucket >> fine_bits) - 1;
  return ((fine + (bucket & (fine - 1)) + 1) << shift) - 1;
}

double ms(nanoseconds duration) {
  return std::round(static_cast<double>(duration.count()) / 1e3) / 1e3;
}

json times(const histogram& of) {
  if (of.count() == 0)
    return nullptr;
  return {
    {"count", of.count()},
    {"p50", ms(of.quantile(0.5))},
    {"p90", ms(of.quantile(0.9))},
    {"p99", ms(of.quantile(0.99))},
    {"max", ms(of.max())}};
}

double per_second(std::uint64_t count, nanoseconds lasted) {
  return lasted.count() == 0
           ? 0
           : static_cast<double>(count) * 1e9 / static_cast<double>(lasted.count());
}

} // namespace

histogram::histogram() : buckets_(bucket_count) {}

void histogram::add(nanoseconds duration) {
  auto value = std::max(duration, nanoseconds{0});
  ++buckets_[bucket_of(static_cast<std::uint64_t>(value.count()))];
  ++count_;
  max_ = std::max(max_, value);
}

nanoseconds histogram::quantile(double q) const {
  auto rank = std::max<std::uint64_t>(
    1, static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_))));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= rank)
      return std::min(max_, nanoseconds{static_cast<std::int64_t>(top_of(bucket))});
  }
  return nanoseconds{0};
}

void load_stats::ended(const request_outcome& outcome) {
  prompt_tokens_ += outcome.prompt_tokens;
  output_tokens_ += outcome.output_tokens;
  checked_tokens_ += outcome.checked_tokens;
  broken_ += outcome.stream_broken ? 1 : 0;
  if (outcome.first_token.count() > 0)
    first_token_.add(outcome.first_token);
  if (outcome.has_wrong) {
    ++wrong_count_;
    if (wrong_.size() < wrong_kept)
      wrong_.push_back(outcome.wrong);
  }
  if (!outcome.failure.empty()) {
    ++failed_;
    bool known = failures_.contains(outcome.failure) || failures_.size() < reasons_max;
    ++failures_[known ? outcome.failure : "other"];
    return;
  }
  ++ok_;
  checked_requests_ += outcome.checked_tokens > 0 ? 1 : 0;
  end_to_end_.add(outcome.end_to_end);
  if (outcome.per_token.count() > 0)
    per_token_.add(outcome.per_token);
}

std::string load_stats::json(const frame& about) const {
  load::json report{
    {"url", about.url},
    {"model", about.model},
    {"seed", about.seed},
    {"interrupted", about.interrupted},
    {"duration_s", ms(about.lasted) / 1e3}};
  report["requests"] = {
    {"started", started_},
    {"ok", ok_},
    {"failed", failed_},
    {"abandoned", abandoned_},
    {"failures", load::json::object()}};
  for (const auto& [reason, count] : failures_)
    report["requests"]["failures"][reason] = count;
  report["streams_broken"] = broken_;
  report["tokens"] = {{"prompt", prompt_tokens_}, {"output", output_tokens_}};
  report["ttft_ms"] = times(first_token_);
  report["tpot_ms"] = times(per_token_);
  report["itl_ms"] = times(gaps_);
  report["e2e_ms"] = times(end_to_end_);
  report["throughput"] = {
    {"requests_per_s", per_second(ok_, about.lasted)},
    {"output_tokens_per_s", per_second(output_tokens_, about.lasted)}};
  if (about.verified) {
    auto wrong = load::json::array();
    for (const auto& answer : wrong_)
      wrong.push_back(
        {{"request", answer.request},
         {"index", answer.index},
         {"choice", answer.choice},
         {"position", answer.what.position},
         {"expected", answer.what.expected},
         {"got", answer.what.got}});
    report["verify"] = {
      {"requests", checked_requests_},
      {"tokens", checked_tokens_},
      {"wrong_requests", wrong_count_},
      {"wrong", std::move(wrong)}};
  }
  return report.dump(2, ' ', false, load::json::error_handler_t::replace) + "\n";
}

std::string load_stats::text(const frame& about) const {
  std::string out;
  auto line = std::back_inserter(out);
  fmt::format_to(
    line, "{} {} for {:.1f} s, model {}, seed {}\n", about.url,
    about.interrupted ? "driven, until interrupted," : "driven", ms(about.lasted) / 1e3,
    about.model, about.seed);
  fmt::format_to(line, "requests    {} ok, {} failed", ok_, failed_);
  if (abandoned_ > 0)
    fmt::format_to(line, ", {} abandoned", abandoned_);
  fmt::format_to(line, "; {} streams broken\n", broken_);
  for (const auto& [reason, count] : failures_)
    fmt::format_to(line, "  {:>7}   {}\n", count, reason);
  fmt::format_to(
    line, "tokens      {} in prompts, {} in answers\n", prompt_tokens_, output_tokens_);
  fmt::format_to(
    line, "throughput  {:.1f} requests/s, {:.1f} output tokens/s\n", per_second(ok_, about.lasted),
    per_second(output_tokens_, about.lasted));
  fmt::format_to(line, "{:<11} {:>10} {:>10} {:>10} {:>10}\n", "ms", "p50", "p90", "p99", "max");
  using row = std::pair<const char*, const histogram*>;
  for (auto [name, of] :
       {row{"TTFT", &first_token_}, row{"TPOT", &per_token_}, row{"ITL", &gaps_},
        row{"end to end", &end_to_end_}})
    if (of->count() > 0)
      fmt::format_to(
        line, "{:<11} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", name, ms(of->quantile(0.5)),
        ms(of->quantile(0.9)), ms(of->quantile(0.99)), ms(of->max()));
  if (!about.verified)
    return out;
  fmt::format_to(
    line, "verified    {} tokens of {} requests; {} requests answered wrongly\n", checked_tokens_,
    checked_requests_, wrong_count_);
  for (const auto& answer : wrong_)
    fmt::format_to(
      line, "  {} (number {}, choice {}): token {}: expected '{}', got '{}'\n",
      answer.request.empty() ? "without x-request-id" : answer.request, answer.index, answer.choice,
      answer.what.position, answer.what.expected, answer.what.got);
  return out;
}

} // namespace llumnix::load
