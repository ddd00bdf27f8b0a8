#pragma once

#include "net/upstream_pool.hpp"
#include "runtime/base/time.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The longest answer, or line of a watch, that is taken.
inline constexpr std::size_t etcd_bytes_max = 4 * 1024 * 1024;

/// One question to a member of an etcd. Given up when destroyed, which must not happen from within
/// `lines` or `ended`.
class etcd_call final : public net::upstream_watcher {
public:
  struct handlers {
    /// Whole lines of the answer, where they are wanted as they come.
    std::function<void(std::vector<std::string>)> lines{};
    /// There is no more: `outcome`, `status` and `body` say what came of it.
    std::function<void()> ended{};
  };
  /// Asks at once. `silence`: the longest pause; 0: any.
  etcd_call(
    net::upstream_pool& pool, std::string address, std::string_view path, std::string body,
    const std::string& token, std::chrono::milliseconds silence, handlers tell);

  const error& outcome() const { return outcome_; }
  int status() const { return status_; }
  /// Empty where lines were handed over.
  const std::string& body() const { return body_; }
  /// Why there is no answer to work with.
  error failure() const;
  bool good() const { return outcome_.code == errc::ok && status_ == 200; }

  void on_head(const net::http_reply& head) override { status_ = head.status; }
  void on_body(std::string_view piece) override;
  void on_pause() override;
  void on_end(const error& failure) override;

private:
  void end(error outcome);

  handlers tell_;
  error outcome_{errc::ok, {}};
  int status_ = 0;
  std::string body_;         // not yet handed over
  std::size_t searched_ = 0; // of it, for ends of lines
  bool too_long_ = false;
  bool ended_ = false;
  std::unique_ptr<net::upstream_call> call_; // last: given up before the rest goes
};

} // namespace llumnix
