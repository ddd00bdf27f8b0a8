#pragma once

#include "gateway/scheduler_api/client_messages.hpp"
#include "net/upstream_pool.hpp"
#include "net/web_socket.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/time.hpp"
#include "runtime/scheduling/remote_scheduler.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llumnix::scheduler_api {

/// How a scheduler is asked. Times end with the tick that follows them.
struct client_options {
  std::string address;                          ///< HOST:PORT
  std::string token;                            ///< sent as `authorization`; empty: nothing
  bool tell_tokens = true;                      ///< tell it prompts that are known as token ids
  std::chrono::milliseconds call_timeout{2000}; ///< of `/schedule` and `/release`
  std::chrono::milliseconds report_timeout{3000};
  std::chrono::milliseconds dial_pause{1000};   ///< between two tries to keep a connection
  std::chrono::milliseconds release_pause{500}; ///< between two tries of a release
  std::uint32_t release_tries = 3;
  std::chrono::milliseconds rest{1000}; ///< one that did not answer is not asked for this long
  std::size_t calls_max = 4096;         ///< under way, of each kind; more are not made
  std::size_t answer_bytes_max = 64 * 1024 * 1024; ///< it says the whole prompt again
};

/// How a request came along.
struct remote_progress {
  std::string request;      ///< text id
  std::uint64_t tokens = 0; ///< prompt and output
  bool began = false;       ///< there is output
};

/// What a client came to since it was made.
struct client_counters {
  std::uint64_t placed = 0;
  std::uint64_t busy = 0;            ///< nobody could take it then
  std::uint64_t failed = 0;          ///< no answer, or none that helps
  std::uint64_t releases_failed = 0; ///< it may count requests that are over
  bool ready = false;
};

/// A scheduler that speaks the reference's HTTP API (spec/gateway.md 10), as a gateway uses it.
///
/// It is ready while its keepalive connection stands: from its first "ok" on, and not any more
/// after three tries in a row that failed; nor for a moment after it left a question without an
/// answer. What it placed is remembered until it is released, for that wants the instance's own
/// words.
///
/// Lives on `loop`, where it is made, ticked and destroyed.
class scheduler_client final : public remote_scheduler, private net::web_socket_watcher {
public:
  /// `pool` is one of that loop; both outlive it. `loop` is one of an `http_server`.
  scheduler_client(client_options options, net::upstream_pool& pool, executor& loop);
  ~scheduler_client() override;

  bool ready() const override { return ready_; }
  void place(remote_question question, answer told) override;
  void release(std::string request) override;
  /// How requests came along. One message at a time: of what comes while one is under way the
  /// newest about each request is told next. Of those that it did not place nothing is told.
  /// From any thread.
  void report(std::vector<remote_progress> news);
  /// About ten times a second, on the loop.
  void tick();
  /// From any thread.
  client_counters counters() const;

private:
  class call;
  class promise;
  /// A request that was placed.
  struct ticket {
    asked_request request;
    told_choice choice;
    bool began = false; ///< its first token has been told of
  };

  void on_message(std::string_view message) override;
  void on_pong() override {}
  void on_ping() override { heard_ = loop_.now(); }
  void on_open(const std::string& host, std::uint16_t port) override;
  void on_closed() override;

  void post(std::function<void()> work);
  void begin(remote_question question, promise told);
  void settle(call& which, const error& failure);
  void on_answer(call& which, const error& failure);
  void end_release(call& which, const error& failure);
  void send_release(const asked_request& request, const told_choice& choice, bool began);
  void take_news(std::vector<remote_progress> news);
  void send_report();
  void send(call& which);
  void give_up_link(const char* why);
  void look_ready();

  client_options options_;
  net::upstream_pool& pool_;
  executor& loop_;
  std::shared_ptr<char> alive_ = std::make_shared<char>(); // what is posted asks for it

  // The connection that is kept.
  std::unique_ptr<net::web_socket> socket_;
  time_point dial_at_{};
  time_point heard_{};
  std::string own_address_;    ///< as it was told
  std::string gateway_id_;     ///< empty until that was answered
  std::uint32_t failures_ = 0; ///< in a row
  bool known_ = false;         ///< it has said "ok" once
  bool told_gone_ = false;     ///< the log says that it is not there

  time_point rests_until_{};
  std::vector<std::unique_ptr<call>> calls_;
  std::size_t placing_ = 0, releasing_ = 0;
  bool reporting_ = false;
  std::map<std::string, remote_progress> untold_; ///< of requests with a ticket, for `/report`
  std::unordered_map<std::string, std::vector<ticket>> tickets_; ///< by text id

  std::atomic<bool> ready_{false};
  std::atomic<std::uint64_t> placed_{0}, busy_{0}, failed_{0}, releases_failed_{0};
};

} // namespace llumnix::scheduler_api
