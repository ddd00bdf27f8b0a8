#pragma once

#include "actors/admin_desk.hpp"
#include "apps/actor_slot.hpp"
#include "net/http_server.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace llumnix {

struct admin_services {
  executor& loop;
  std::shared_ptr<actor_slot<admin_desk_actor>> desk; ///< whom the listener asks
  std::string key;             ///< bearer key; empty: none
  std::string address;         ///< HOST:PORT the listener is bound to
  bool cluster_wide = false;   ///< the node has role console: the cluster's routes are served
  std::function<bool()> ready; ///< for /readyz
  std::function<std::string()> metrics_text; ///< for /metrics
};

/// The operators' HTTP surface (spec/surface.md 3):
///
///     GET  /livez  /readyz  /metrics                                             every node
///     GET  /admin/v1/cluster  /admin/v1/requests  /admin/v1/requests/{id}/why
///          /admin/v1/actors  /admin/v1/events  /admin/v1/profile[?role=ROLE]     nodes with role
///          console
///     POST /admin/v1/migrate  /admin/v1/instances/{id}/drain  .../undrain        likewise
class admin_handler final : public net::http_handler {
public:
  explicit admin_handler(admin_services services);
  ~admin_handler() override;

  void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override;
  void on_tick() override;
  net::http_reply error_reply(int status, std::string_view message) override;

private:
  class event_reader;
  void ask(std::shared_ptr<net::exchange> client, inspect_msg question, const char* unknown);
  void watch_events(std::shared_ptr<net::exchange> client);
  void ask_events();
  void share_events(const std::string& document);
  void change(std::shared_ptr<net::exchange> client, const net::http_request& request);
  void give(std::shared_ptr<net::exchange> client, admin_order order);
  void answer_from_console(std::shared_ptr<net::exchange> client, const net::http_request& request);
  bool allowed(const net::http_request& request) const;

  admin_services services_;
  std::vector<std::unique_ptr<event_reader>> readers_;
  std::string last_event_; ///< number of the last event shared; empty: none yet
  bool asking_ = false;
  std::shared_ptr<admin_handler*>
    self_; ///< what posted work checks: empty once the handler is gone
};

} // namespace llumnix
