#pragma once

#include "gateway/scheduler_api/gateway_link.hpp"
#include "gateway/scheduler_api/scheduler_metrics.hpp"
#include "gateway/scheduler_api/scheduling_reply.hpp"
#include "net/http_server.hpp"
#include "runtime/cluster/discovery.hpp"
#include "runtime/scheduling/prefix_probes.hpp"
#include "runtime/scheduling/scheduling_desk.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::scheduler_api {

/// What the scheduler's HTTP API works with. References outlive the handler.
struct api_services {
  executor& loop;
  scheduling_desk& desk;
  scheduler_metrics& metrics;
  prefix_probes& prefixes; ///< its `query_ms` alone
  std::string key; ///< gateways must send it as `authorization`, behind "Bearer " or alone; empty:
                   ///< none
  /// The record of an engine in lite mode, or null. Called on the loop.
  std::function<const discovered_engine*(const instance_id&)> find_engine;
  std::function<std::string()> metrics_text; ///< appended to /metrics
  std::function<void()> on_tick;
  /// Who knows of prefixes; null: nobody is asked. It ends before the loop does.
  kv_index* index = nullptr;
  std::uint32_t index_min_tokens = 0; ///< shorter prompts are not looked up
};

/// The scheduler's HTTP API for gateways of other makes (spec/scheduling.md 2), on a port of its
/// own:
///
///     /schedule /release /report     any method
///     /keepalive                     a WebSocket (spec/cms.md 9)
///     /healthz /metrics
class api_handler final : public net::http_handler {
public:
  explicit api_handler(api_services services);
  ~api_handler() override;

  void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override;
  void on_tick() override;
  void on_loop_end() override { links_.clear(); }
  net::http_reply error_reply(int status, std::string_view message) override;

private:
  class question;

  void schedule(std::shared_ptr<net::exchange> client, net::http_request&& request);
  void release(net::exchange& client, const net::http_request& request);
  void metrics(net::exchange& client, const net::http_request& request);
  void report(net::exchange& client, const net::http_request& request);
  void keep_alive(net::exchange& client, const net::http_request& request);
  void look_up(std::shared_ptr<question> asked);
  void decide(std::shared_ptr<question> asked, std::optional<prefix_holders> holders);
  void on_choice(question& asked, const result<std::vector<chosen_instance>>& chosen);
  bool allowed(const net::http_request& request) const;

  api_services services_;
  std::vector<std::unique_ptr<gateway_link>> links_;
};

} // namespace llumnix::scheduler_api
