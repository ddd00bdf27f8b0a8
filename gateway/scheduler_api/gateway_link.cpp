#include "gateway/scheduler_api/gateway_link.hpp"

#include "gateway/scheduler_api/scheduling_request.hpp"
#include "runtime/base/log.hpp"

#include <utility>

namespace llumnix::scheduler_api {

namespace {

constexpr std::size_t message_bytes_max = 4096;
constexpr std::chrono::seconds for_a_name{10};

} // namespace

gateway_link::gateway_link(scheduling_desk& desk, time_point now)
  : desk_{desk}, opened_{now}, pongs_{now} {}

gateway_link::~gateway_link() {
  end();
}

bool gateway_link::open(net::exchange& client, const net::http_request& request) {
  peer_ = request.peer;
  socket_ = net::accept_web_socket(client, request, *this, message_bytes_max);
  return socket_ != nullptr;
}

void gateway_link::tick(time_point now) {
  if (ended())
    return;
  if (gateway_.empty() && now - opened_ >= for_a_name)
    return end();
  switch (pongs_.on_tick(now)) {
    case pong_watch::action::wait: return;
    case pong_watch::action::ping: return socket_->ping();
    case pong_watch::action::close:
      log::scheduler.warn("gateway-silent", "{} at {} answers no ping any more", gateway_, peer_);
      return end();
  }
}

/// The first message says who it is; others say nothing.
void gateway_link::on_message(std::string_view message) {
  if (!gateway_.empty())
    return;
  auto id = read_gateway_id(message);
  if (!id) {
    log::scheduler.warn("gateway-unnamed", "{} does not say which gateway it is", peer_);
    return end();
  }
  gateway_ = std::move(*id);
  desk_.gateway_up(gateway_);
  socket_->send("ok");
}

void gateway_link::end() {
  socket_ = nullptr;
  if (auto gateway = std::exchange(gateway_, {}); !gateway.empty())
    desk_.gateway_down(gateway);
}

} // namespace llumnix::scheduler_api
