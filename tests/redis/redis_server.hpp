#pragma once

#include "config/cluster_config.hpp"
#include "integrations/redis/redis_cms_store.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <thread>
#include <vector>

struct redisContext;

namespace llumnix::testing {

/// A redis-server of the test's own, on loopback, without persistence; killed at the end.
class redis_server {
public:
  /// Starts one on a free port and waits until it answers; `password` as `--requirepass`.
  explicit redis_server(std::string password = {});
  ~redis_server();
  redis_server(const redis_server&) = delete;
  redis_server& operator=(const redis_server&) = delete;

  /// Whether this machine has a redis-server; says on stdout that the test skips when not.
  static bool available();

  void kill();
  /// Starts it again, empty, on the same port.
  void start();
  void signal(int number) const;
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  /// One command over a connection of the test's own, independent of the code under test. Text and
  /// integers come as text, arrays joined by spaces, nothing for nil.
  std::optional<std::string> ask(const std::vector<std::string>& words) const;
  /// How often the server was sent this command ("set").
  std::uint64_t calls(const std::string& command) const;

private:
  struct closer {
    void operator()(redisContext* context) const;
  };
  std::string password_;
  std::uint16_t port_ = 0;
  pid_t process_ = -1;
  mutable std::unique_ptr<redisContext, closer> connection_;
};

/// Waits until `condition` holds, at most `limit`; whether it did.
template <class Condition>
bool eventually(Condition condition, std::chrono::milliseconds limit = std::chrono::seconds{10}) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
  }
  return true;
}

/// A store that talks to `server`, with short intervals.
std::unique_ptr<redis_cms_store>
make_store(const redis_server& server, cms_config cms = {}, redis_config redis = {});

/// An instance as a store holds it.
struct stored_instance {
  instance_metadata metadata;
  instance_status status;
  bool has_status = false;
};

/// Both readings, waited for.
result<std::vector<stored_instance>> read(redis_cms_store& store);

instance_metadata metadata_of(const instance_id& id);
instance_status status_of(const instance_id& id, std::int32_t update);

/// The update id of the status the server holds; -1 without one.
std::int32_t stored_update(const redis_server& server, const instance_id& id);
bool holds_metadata(const redis_server& server, const instance_id& id);

/// Catches what is logged while it lives.
class captured_log {
public:
  captured_log();
  ~captured_log();
  /// Everything so far.
  std::string text() const;
  std::size_t count(const std::string& words) const;

private:
  int file_;
  int stderr_before_;
};

} // namespace llumnix::testing
