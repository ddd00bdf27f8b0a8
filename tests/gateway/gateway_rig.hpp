#pragma once

#include "gateway/routes.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "runtime/serving/step_batch.hpp"

#include <nlohmann/json.hpp>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::testing {

/// An exchange whose kernel the test plays: it accepts everything at once, or nothing until told.
class fake_exchange final : public net::exchange {
public:
  explicit fake_exchange(executor& loop) : loop_{loop} {}
  void watch(net::exchange_watcher* watcher) override { watcher_ = watcher; }
  void reply(net::http_reply whole) override;
  void begin_stream(int status, const net::header_list& headers) override;
  void write(std::string_view chunk) override;
  void flush() override;
  void end_stream() override;
  void abandon() override { abandoned = true; }
  std::size_t backlog() const override { return backlog_; }
  std::chrono::steady_clock::time_point stalled_since() const override { return stalled_since_; }

  /// The kernel takes nothing from now on.
  void stall() { stalled_ = true; }
  /// The kernel takes what waited, and everything after it.
  void drain();
  /// The client closes its connection.
  void leave();
  bool watched() const { return watcher_ != nullptr; }

  std::string header(std::string_view name) const;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
  /// The JSON of each event before [DONE].
  std::vector<nlohmann::json> events() const;

  int status = 0; ///< 0: not answered yet
  net::header_list headers;
  std::string body;
  bool streaming = false, ended = false, abandoned = false;
  int flushes = 0, writes = 0;
  bool leave_at_flush = false;       ///< the client turns out to be gone when the next flush writes
  std::function<void()> after_reply; ///< what the client does once it has a whole reply

private:
  executor& loop_;
  net::exchange_watcher* watcher_ = nullptr;
  bool stalled_ = false;
  std::size_t backlog_ = 0;
  std::chrono::steady_clock::time_point stalled_since_;
};

/// Runs what was posted, from any thread, when told; its clock stands unless moved.
class fake_loop final : public executor {
public:
  void post(std::function<void()> work) override;
  clock::time_point now() const override { return time; }
  void run();
  /// Runs what is posted until `holds`. False if that takes longer than anything that works.
  bool run_until(const std::function<bool()>& holds);

  clock::time_point time{std::chrono::hours{1}};

private:
  std::mutex mutex_; ///< guards the next
  std::deque<std::function<void()>> posted_;
  std::condition_variable came_;
};

/// Remembers what the streams asked of the cluster.
class fake_cluster final : public stream_port {
public:
  void place(inference_request request, bool, std::vector<instance_id>) override {
    placed.push_back(std::move(request));
  }
  void abort(const stream_owner&, std::uint64_t stream, std::uint32_t) override {
    aborted.push_back(stream);
  }
  void withdraw(std::uint64_t stream, std::uint32_t) override { withdrawn.push_back(stream); }
  void
  grant(const stream_owner&, std::uint64_t stream, std::uint32_t, std::uint32_t credit) override {
    grants.emplace_back(stream, credit);
  }
  void ask_holds(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void closed(const stream_end& end) override {
    outcomes.push_back(end.outcome);
    failures.push_back(end.failure);
  }

  std::vector<inference_request> placed;
  std::vector<std::uint64_t> aborted, withdrawn;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> grants;
  std::vector<std::string> outcomes;
  std::vector<error> failures;
};

/// A handler of one loop over a real stream table, with a cluster the test plays.
struct gateway_rig {
  /// With a `pool_of` so many large bodies may wait for one thread; else the loop reads them.
  explicit gateway_rig(gateway_config with = {}, std::string key = {}, std::size_t pool_of = 0);

  /// Sends a request and returns its exchange.
  std::shared_ptr<fake_exchange>
  send(std::string method, std::string path, std::string body = {}, net::header_list headers = {});
  std::shared_ptr<fake_exchange> chat(std::string fields, net::header_list headers = {});
  std::shared_ptr<fake_exchange> complete(std::string fields, net::header_list headers = {});

  /// Tokens of a placed request, by its place in `cluster.placed`; several deltas may share one
  /// batch.
  void add(
    std::size_t request, std::vector<token_id> tokens, finish_reason finish = finish_reason::none,
    std::vector<token_logprob> logprobs = {}, std::uint32_t cached = 0);
  /// Delivers what was added as one batch, then runs what was posted.
  void deliver();
  void give(
    std::size_t request, std::vector<token_id> tokens, finish_reason finish = finish_reason::none) {
    add(request, std::move(tokens), finish);
    deliver();
  }
  void refuse(std::size_t request, error why);

  gateway_config config;
  byte_tokenizer words;
  fake_loop loop;
  fake_cluster cluster;
  stream_table streams;
  request_ids ids;
  gateway_metrics metrics;
  bool ready = true;
  std::uint32_t max_model_len = 1000;
  std::unique_ptr<parse_pool> pool;
  std::unique_ptr<openai_handler> handler;

private:
  step_batch batch_;
  std::vector<std::uint32_t> sent_; ///< tokens, by placed request
};

/// Ids of ASCII text: the bytes themselves.
std::vector<token_id> ids_of(std::string_view text);

} // namespace llumnix::testing
