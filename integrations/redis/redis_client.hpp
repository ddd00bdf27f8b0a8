#pragma once

#include "config/cluster_config.hpp"
#include "integrations/redis/redis_metrics.hpp"
#include "integrations/redis/resp_codec.hpp"
#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace llumnix {

/// A connection to one Redis server that is kept up for ever, with a thread of its own. Commands
/// are pipelined. The link counts as up once the server has answered AUTH and PING; it is given up
/// when a reply takes longer than the timeout, and dialled again after pauses of 50 ms up to 2 s.
class redis_client {
public:
  /// The reply (which may be a `failure`), or `timeout`, `unreachable` or `cancelled` where none
  /// came: the command may or may not have been carried out.
  using reply_handler = std::function<void(result<redis_reply>)>;
  using task = std::function<void()>;

  /// `on_link` hears on the client's thread of each change, after the handlers of commands lost
  /// with the link have run. `metrics` outlives the client. `invalid_argument` for an address that
  /// is no HOST:PORT.
  static result<std::unique_ptr<redis_client>>
  make(const redis_config& config, redis_metrics& metrics, std::function<void(bool up)> on_link);
  /// Closes the link (commands without a reply hear `cancelled`), drops tasks that did not run,
  /// joins the thread. Not to be called on that thread.
  ~redis_client();
  redis_client(const redis_client&) = delete;
  redis_client& operator=(const redis_client&) = delete;

  /// Begins to dial. Called once.
  void start();

  /// Runs a task on the client's thread; callable from any.
  void post(task what);
  /// Runs a task on the client's thread when it is time; callable from any.
  void run_at(time_point when, task what);

  // From here on: only on the client's thread, that is in tasks and handlers.

  bool up() const;
  /// Whether `send` would take a command: the link is up and its queue has room.
  bool has_room() const;
  /// Sends a command, in order. Its handler runs exactly once, also when this returns with the link
  /// down
  /// (`unreachable`) or the queue full (`queue_full`).
  void send(const std::vector<std::string>& words, reply_handler done);

private:
  struct link;
  explicit redis_client(std::unique_ptr<link> made);
  std::unique_ptr<link> link_;
  std::thread thread_;
};

} // namespace llumnix
