// What a token costs in the gateway: from the batch of an engine step, through stream_table and
// HTTP session, to the exchange, which here counts bytes in place of a connection. 256 streams, one
// thread. The floor copies the same bytes in the same pieces.
#include "gateway/routes.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "runtime/serving/step_batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

namespace {

using namespace llumnix;

constexpr std::size_t streams = 256;
constexpr std::size_t tokens_per_run = 4'096; ///< of each stream
constexpr int runs = 7;                       ///< the best counts

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

struct written {
  std::uint64_t bytes = 0, pieces = 0;
};

/// A client that takes everything at once. Copies it, as a connection does into its output buffer.
class counting_exchange final : public net::exchange {
public:
  explicit counting_exchange(written& total) : total_{total} {}
  void watch(net::exchange_watcher*) override {}
  void reply(net::http_reply whole) override {
    fmt::print(stderr, "answered with {}: {}\n", whole.status, whole.body);
    std::exit(1);
  }
  void begin_stream(int, const net::header_list&) override {}
  void write(std::string_view chunk) override {
    buffer_ += chunk;
    total_.bytes += chunk.size();
    ++total_.pieces;
  }
  void flush() override { buffer_.clear(); }
  void end_stream() override {}
  void abandon() override {}
  std::size_t backlog() const override { return 0; }
  std::chrono::steady_clock::time_point stalled_since() const override { return {}; }

private:
  written& total_;
  std::string buffer_;
};

class idle_loop final : public executor {
public:
  void post(std::function<void()> work) override { posted_.push_back(std::move(work)); }
  clock::time_point now() const override { return clock::now(); } // as costly as in production

private:
  std::vector<std::function<void()>> posted_; // never run: no session ends here
};

class silent_cluster final : public stream_port {
public:
  void place(inference_request request, bool, std::vector<instance_id>) override {
    placed.push_back(request.stream.stream);
  }
  void abort(const stream_owner&, std::uint64_t, std::uint32_t) override { ++aborts; }
  void withdraw(std::uint64_t, std::uint32_t) override {}
  void grant(const stream_owner&, std::uint64_t, std::uint32_t, std::uint32_t) override {
    ++grants;
  }
  void ask_holds(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void closed(const stream_end&) override {}

  std::vector<std::uint64_t> placed;
  std::uint64_t grants = 0, aborts = 0; ///< aborted is what does not fit its stream
};

/// A gateway loop with its streams open, and what came out of it.
struct gateway {
  gateway_config config;
  byte_tokenizer words;
  idle_loop loop;
  silent_cluster cluster;
  stream_table table{config, stream_ref{"head", 1, 0, 0}, words, cluster};
  request_ids ids;
  gateway_metrics metrics{config.model, loop.now()};
  written total;
  openai_handler handler{gateway_services{
    .config = config,
    .words = words,
    .streams = table,
    .loop = loop,
    .ids = ids,
    .metrics = metrics,
    .seed = 7,
    .key = {},
    .ready = [] { return true; },
    .max_model_len = [] { return std::uint32_t{0}; },
    .metrics_text = [] { return std::string{}; },
    .unix_seconds = [] { return std::int64_t{1'700'000'000}; }}};

  gateway() {
    for (std::size_t i = 0; i < streams; ++i)
      handler.on_request(
        std::make_shared<counting_exchange>(total),
        net::http_request{
          "POST",
          "/v1/chat/completions",
          {},
          {},
          R"({"model":"modeled","stream":true,"max_tokens":1000000,"messages":[{"role":"user","content":"hi"}]})",
          "127.0.0.1:5"});
  }
};

/// Words of the modeled vocabulary and plain letters, in turns.
token_id token_of(std::size_t stream, std::size_t index) {
  auto mixed = static_cast<std::uint32_t>(stream * 31 + index) * 2'654'435'761u;
  return index % 2 == 0 ? 512 + mixed % 512 : 'a' + mixed % 26;
}

struct cost {
  double ns = 1e300, floor_ns = 1e300; ///< per token
  double bytes = 0;                    ///< per token
};

/// Steps of `depth` tokens a stream: above 1, tokens that were queued come together.
cost measure(std::uint16_t depth) {
  cost best;
  for (int run = 0; run < runs; ++run) {
    gateway x;
    std::vector<step_batch> steps(tokens_per_run / depth);
    for (std::size_t step = 0; step < steps.size(); ++step)
      for (std::size_t i = 0; i < streams; ++i) {
        token_delta delta{.stream = x.cluster.placed[i], .epoch = 0, .tokens = {}, .logprobs = {}};
        delta.start = static_cast<std::uint32_t>(step * depth);
        for (std::uint16_t t = 0; t < depth; ++t)
          delta.tokens.push_back(token_of(i, delta.start + t));
        steps[step].add(delta);
      }
    auto tokens = static_cast<double>(steps.size() * depth * streams);
    auto begin = cpu_ns();
    for (const auto& step : steps)
      x.table.on_batch({"engine-0", 1}, "engine-0", step.bytes(), x.loop.now());
    best.ns = std::min(best.ns, (cpu_ns() - begin) / tokens);
    best.bytes = static_cast<double>(x.total.bytes) / tokens;
    if (x.total.pieces != steps.size() * streams || x.cluster.grants == 0 || x.cluster.aborts > 0)
      std::exit(1); // not the work that is meant

    auto piece = x.total.bytes / x.total.pieces;
    std::vector<char> from(piece * streams, 'x'), to(piece * streams);
    begin = cpu_ns();
    for (std::size_t step = 0; step < steps.size(); ++step)
      for (std::size_t i = 0; i < streams; ++i) {
        std::memcpy(to.data() + i * piece, from.data() + i * piece, piece);
        asm volatile("" : : "r"(to.data()) : "memory");
      }
    best.floor_ns = std::min(best.floor_ns, (cpu_ns() - begin) / tokens);
  }
  return best;
}

} // namespace

int main() {
  fmt::print("{} streams of a chat; CPU per token, batch to exchange\n", streams);
  fmt::print(
    "{:>16} {:>8} {:>16} {:>14} {:>9} {:>8}\n", "tokens an event", "ns", "tokens/s/core",
    "bytes a token", "floor ns", "x floor");
  for (std::uint16_t depth : {1, 4, 16}) {
    auto x = measure(depth);
    fmt::print(
      "{:>16} {:>8.0f} {:>16.0f} {:>14.0f} {:>9.1f} {:>8.1f}\n", depth, x.ns, 1e9 / x.ns, x.bytes,
      x.floor_ns, x.ns / x.floor_ns);
  }
}
