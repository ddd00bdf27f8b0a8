#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace llumnix {

/// A request at an instance, as a gateway says it.
struct request_place {
  std::string store; ///< infer type of the instance
  instance_id instance;
};

/// How a request came along, as a gateway reports it (spec/cms.md 7.3).
struct request_progress {
  bool prefill_done = false; ///< otherwise: its tokens have become so many
  std::string request;
  std::string gateway;
  request_place at;
  std::uint64_t tokens = 0; ///< prompt and output
};

/// What gateways of other makes have placed and not released in lite mode, as they report it: the
/// reference's "local realtime state" (spec/cms.md 7). Says what reports are good for; loads are
/// counted by the `dispatch_ledger`, which is told what came of them.
///
/// There are three stores, one for each infer type, and a request has at most one instance in each.
class reported_requests {
public:
  /// What an instance has in its store (spec/cms.md 7.5).
  struct load {
    std::uint64_t tokens = 0, waiting_tokens = 0;
    std::uint64_t requests = 0, waiting_requests = 0;
    bool operator==(const load&) const = default;
  };

  /// `requests_max`: kept at a time; further ones are not counted.
  explicit reported_requests(std::size_t requests_max = 1'000'000) : requests_max_{requests_max} {}

  void add_gateway(const std::string& gateway) { gateways_.try_emplace(gateway); }
  /// Forgets the gateway and ends its requests, whose ids are returned.
  std::vector<std::string> remove_gateway(const std::string& gateway);
  /// The instances are gone, and their requests with them.
  void remove_instances(const std::set<instance_id>& gone);

  /// Counts a request that was placed. The error says in the reference's words why it is not
  /// counted.
  result<void> allocate(
    infer_type store, const std::string& request, const std::string& gateway,
    const instance_id& instance, std::uint64_t tokens);
  /// What a gateway reports: `update`, or `prefill_done`. True if loads change.
  result<bool> hear(const request_progress& news);
  /// True if the request has more tokens now than before; fewer are passed over.
  result<bool> update(const request_progress& news);
  /// The request waits for its first token no more.
  result<void> prefill_done(const request_progress& news);
  /// False if there is no such request of this gateway at this instance.
  bool release(const std::string& request, const std::string& gateway, const request_place& at);

  /// Where the request is counted, and as what.
  std::vector<std::pair<instance_id, dispatched_request>> places(const std::string& request) const;
  std::size_t size() const;
  /// Of instances that have any, or had; of one request 2^40 tokens at most count.
  const std::unordered_map<instance_id, load>& loads() const { return loads_; }

private:
  struct entry {
    instance_id instance;
    std::string gateway;
    std::uint64_t tokens = 0;
    bool prefill_done = false;
  };
  using store = std::unordered_map<std::string, entry>; ///< by request
  using request_ids = std::unordered_set<std::string>;

  store& of(infer_type type) { return stores_[static_cast<std::size_t>(type)]; }
  const store& of(infer_type type) const { return stores_[static_cast<std::size_t>(type)]; }
  result<entry*> find(const request_progress& news);
  store::iterator erase(std::size_t type, store::iterator at);
  void forget(const entry& ended);

  std::size_t requests_max_;
  std::array<store, 3> stores_;
  std::unordered_map<instance_id, load> loads_;
  std::unordered_map<std::string, std::array<request_ids, 3>> gateways_;
};

} // namespace llumnix
