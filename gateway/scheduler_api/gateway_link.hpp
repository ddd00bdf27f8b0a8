#pragma once

#include "gateway/scheduler_api/pong_watch.hpp"
#include "net/web_socket.hpp"
#include "runtime/scheduling/scheduling_desk.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace llumnix::scheduler_api {

/// One gateway's keepalive connection (spec/cms.md 9). It says who it is, is answered "ok", and
/// counts as connected as long as it answers pings.
class gateway_link final : public net::web_socket_watcher {
public:
  gateway_link(scheduling_desk& desk, time_point now);
  ~gateway_link() override;

  /// False if the request is none for a WebSocket; it has no answer yet then.
  bool open(net::exchange& client, const net::http_request& request);
  /// A few times a second.
  void tick(time_point now);
  bool ended() const { return !socket_; }

  void on_message(std::string_view message) override;
  void on_pong() override { pongs_.on_pong(); }
  void on_closed() override { end(); }

private:
  void end();

  scheduling_desk& desk_;
  time_point opened_;
  pong_watch pongs_;
  std::string peer_;
  std::string gateway_; ///< its id; empty until it has told it
  std::unique_ptr<net::web_socket> socket_;
};

} // namespace llumnix::scheduler_api
