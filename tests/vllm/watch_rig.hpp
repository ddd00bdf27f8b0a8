#pragma once

#include "integrations/vllm/engine_watch.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix::testing {

using namespace std::chrono_literals;

/// A loop whose clock the test moves.
struct manual_loop final : executor {
  time_point time{1h};
  std::deque<std::function<void()>> posted;

  void post(std::function<void()> work) override { posted.push_back(std::move(work)); }
  clock::time_point now() const override { return time; }
  void run_posted();
};

/// How an engine answers one path.
struct scripted_answer {
  int status = 200;
  std::string body;
  errc end = errc::ok;                ///< `unreachable` and `timeout` come without a head
  std::chrono::milliseconds after{0}; ///< nothing comes before
};

/// An engine as the pool finds it.
struct scripted_engine {
  enum class mood { absent, silent, up } now = mood::up;
  std::map<std::string, scripted_answer> answers; ///< by path; 404 for others
};

/// The scripted engine of tests/support, in its words.
scripted_engine make_vllm(const std::string& version = "0.32.0", const std::string& model = "tiny");

struct asked {
  std::string method, target, address, body;
  net::header_list headers;
  time_point at;
};

/// A pool whose engines are scripts. Nothing is answered from within `send`.
class scripted_pool final : public net::upstream_pool {
public:
  explicit scripted_pool(manual_loop& loop) : loop_{loop} {}
  std::unique_ptr<net::upstream_call>
  send(net::upstream_request request, net::upstream_watcher& watcher) override;
  std::size_t connections() const override { return open_.size(); }

  /// Hands over what is due.
  void deliver();

  std::map<std::string, scripted_engine> engines; ///< by address
  std::vector<asked> questions;                   ///< so far
  std::size_t most_open = 0;                      ///< of one address

private:
  struct call;
  manual_loop& loop_;
  std::vector<call*> open_;
};

/// A watch over engines "a" and, if wanted, more, each at an address of its own name.
struct watch_rig {
  explicit watch_rig(engine_watch_options options = {}, std::vector<std::string> ids = {"a"});

  /// Moves the clock, ticking ten times a second.
  void pass(std::chrono::milliseconds time);
  /// Until `done`, at most `limit`; whether it came.
  bool pass_until(const std::function<bool()>& done, std::chrono::milliseconds limit);

  scripted_engine& engine(const std::string& id = "a") { return pool.engines[id]; }
  const engine_report& last(const std::string& id = "a") const;
  bool ready() const { return !reports.empty() && last().ready; }
  /// The paths asked since the last call, joined by blanks.
  std::string paths();
  std::size_t count(const std::string& target) const;

  manual_loop loop;
  scripted_pool pool{loop};
  std::vector<engine_report> reports;
  std::vector<time_point> told_at;
  std::size_t seen = 0;
  std::unique_ptr<engine_watch> watch;
};

} // namespace llumnix::testing
