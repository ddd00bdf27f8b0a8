#pragma once

#include "runtime/base/result.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/cluster/reported_requests.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/kv_index.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// An instance that a gateway is told to send its request to.
struct chosen_instance {
  instance_id instance;                  ///< as the view knows it
  std::string id;                        ///< as gateways know it
  infer_type role = infer_type::neutral; ///< for this request
  std::string host;                      ///< of its HTTP server
  std::int32_t port = 0;                 ///< of its HTTP server
  std::string auxiliary_host;            ///< of its KV transfer
  std::int32_t auxiliary_port = 0;       ///< of its KV transfer
  std::int32_t dp_rank = 0;
  std::int32_t dp_size = 0;
  bool operator==(const chosen_instance&) const = default;
};

/// What gateways are told of an instance (spec/cms.md 2.3). In full mode it is called
/// `<ip>_instance<dp_rank>_<dp_size>`, in lite mode as discovery calls it.
chosen_instance describe_choice(const instance_metadata& instance, infer_type role, bool full_mode);

/// The instances for a request, prefill before decode; or why there are none, in the reference's
/// words: `no_instance`, `unreachable` while loads are not known (the store cannot be read), or
/// `draining` where nobody decides.
using schedule_answer = std::function<void(result<std::vector<chosen_instance>>)>;

/// What gateways of other makes ask of a scheduler (spec/scheduling.md 2, spec/cms.md 9), as those
/// see it who speak HTTP with them. A port: SCHEDULER in production, a script in tests. From any
/// thread; what one thread tells is heard in its order.
class scheduling_desk {
public:
  virtual ~scheduling_desk() = default;
  /// Chooses instances and books the request there. `holders`: who holds the beginning of its
  /// prompt; nothing where nobody was asked. `answer` is called once, on any thread.
  virtual void schedule(
    placement_query query, std::optional<prefix_holders> holders, std::string gateway,
    schedule_answer answer)
    = 0;
  /// The request has ended: everywhere in full mode, where `at` says so in lite mode. False if it
  /// was not taken, for too much waits to be heard.
  virtual bool release(std::string request, std::string gateway, std::vector<request_place> at) = 0;
  /// How requests came along. Heard in lite mode only. False as above.
  virtual bool report(std::vector<request_progress> news) = 0;
  /// A gateway keeps a connection, or has lost one. One may have several for a moment.
  virtual void gateway_up(const std::string& gateway) = 0;
  virtual void gateway_down(const std::string& gateway) = 0;
};

} // namespace llumnix
