#include "apps/load/patterns.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <limits>
#include <random>

namespace llumnix::load {

namespace {

/// A small seeded generator; its state is one number, so each request can have one of its own.
class draw {
public:
  using result_type = std::uint64_t;
  explicit draw(std::uint64_t& state) : state_{state} {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()() {
    state_ += 0x9E3779B97F4A7C15U;
    auto z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }
  std::uint32_t from(token_range range) {
    return range.least + static_cast<std::uint32_t>((*this)() % (range.most - range.least + 1ULL));
  }

private:
  std::uint64_t& state_;
};

std::uint64_t state_for(std::uint64_t seed, std::uint64_t purpose) {
  std::uint64_t state = seed;
  auto first = draw{state}();
  state = first ^ purpose;
  return draw{state}();
}

/// Appends `count` characters of words that nobody needs to understand.
void append_filler(std::string& text, std::size_t count, std::uint64_t state) {
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz      ";
  draw next{state};
  for (std::size_t made = 0; made < count;) {
    auto bits = next();
    for (int i = 0; i < 12 && made < count; ++i, ++made, bits >>= 5U)
      text.push_back(letters[bits & 31U]);
  }
}

/// Generators of prompts, seeds, trace blocks and pauses must not run in step.
enum purpose : std::uint64_t { pauses = 0x70617573, prompts = 0x70726f6d, blocks = 0x626c6f63 };

} // namespace

result<token_range> parse_token_range(std::string_view text) {
  auto number = [](std::string_view part, std::uint32_t& value) {
    auto [end, failed] = std::from_chars(part.data(), part.data() + part.size(), value);
    return failed == std::errc{} && end == part.data() + part.size() && value > 0;
  };
  token_range range;
  auto dash = text.find('-');
  bool good = number(text.substr(0, dash), range.least);
  range.most = range.least;
  if (good && dash != std::string_view::npos)
    good = number(text.substr(dash + 1), range.most);
  if (!good || range.most < range.least || range.most > 10'000'000)
    return error{
      errc::invalid_argument,
      "'" + std::string{text} + "' is neither a number of tokens nor MIN-MAX"};
  return range;
}

request_source::request_source(pattern_options options, std::vector<trace_row> trace)
  : options_{std::move(options)},
    trace_{std::move(trace)},
    arrivals_{state_for(options_.seed, pauses)} {
  if (!trace_.empty())
    options_.requests = options_.requests == 0
                          ? trace_.size()
                          : std::min<std::uint64_t>(options_.requests, trace_.size());
}

std::optional<planned_request> request_source::next() {
  if (options_.requests != 0 && made_ == options_.requests)
    return std::nullopt;
  planned_request request;
  request.index = made_++;
  auto state = state_for(options_.seed, prompts) + request.index * 0xD1342543DE82EF95U;
  draw random{state};
  if (options_.temperature > 0)
    request.seed = random() >> 11U; // 53 bits: a number that every JSON reader keeps
  std::uint32_t tokens = random.from(options_.prompt_tokens);
  request.max_tokens = random.from(options_.max_tokens);
  request.due = next_due();
  std::size_t size = 0;
  if (!trace_.empty()) {
    const auto& row = trace_[request.index];
    tokens = row.prompt_tokens;
    request.max_tokens = row.output_tokens;
    size = tokens;
    for (auto id : row.blocks)
      if (request.prompt.size() < size)
        append_filler(
          request.prompt, std::min(trace_block_tokens, size - request.prompt.size()),
          state_for(options_.seed, blocks) ^ id * 0xD1342543DE82EF95U);
  }
  auto frame = options_.chat ? chat_frame_tokens : 0;
  size = std::max(tokens, frame + 1) - frame;
  request.prompt.resize(std::min(request.prompt.size(), size));
  append_filler(request.prompt, size - request.prompt.size(), random());
  return request;
}

nanoseconds request_source::next_due() {
  if (!trace_.empty())
    return trace_[made_ - 1].at;
  if (options_.rate <= 0)
    return nanoseconds{0};
  auto due = clock_;
  draw random{arrivals_};
  double pause = 1 / options_.rate;
  if (options_.arrival == arrival_process::poisson)
    pause = std::exponential_distribution<double>{options_.rate}(random);
  else if (options_.arrival == arrival_process::gamma) {
    auto square = options_.cv * options_.cv;
    pause = std::gamma_distribution<double>{1 / square, square / options_.rate}(random);
  }
  constexpr double longest_pause_s = 1e6; // keeps a sum of pauses far from overflow
  clock_ += nanoseconds{static_cast<std::int64_t>(std::min(pause, longest_pause_s) * 1e9)};
  return due;
}

std::string request_body(const planned_request& request, const pattern_options& options) {
  nlohmann::json body{
    {"model", options.model},
    {"max_tokens", request.max_tokens},
    {"temperature", options.temperature},
    {"stream", options.stream}};
  if (options.chat)
    body["messages"] = nlohmann::json::array({{{"role", "user"}, {"content", request.prompt}}});
  else
    body["prompt"] = request.prompt;
  if (options.stream)
    body["stream_options"] = {{"include_usage", true}};
  if (options.choices != 1)
    body["n"] = options.choices;
  if (options.ignore_eos)
    body["ignore_eos"] = true;
  if (request.seed)
    body["seed"] = *request.seed;
  return body.dump();
}

} // namespace llumnix::load
