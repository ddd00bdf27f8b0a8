#pragma once

#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/scheduling/latency_observer.hpp"
#include "runtime/serving/stream_table.hpp"

#include <array>
#include <cstdint>
#include <map>

namespace llumnix {

/// What engines behind HTTP take for prefills and decode steps, as far as the requests that were
/// relayed to them tell: a first token that nothing stood before is a prefill; what lies between
/// the tokens of a request is a decode step of as many requests as ran beside it. Requests of
/// other gateways are not known here, nor is what an engine had cached.
///
/// A plain value; GATEWAY keeps one. Nothing is done per token.
class relayed_latency {
public:
  /// A request goes to an engine; where it was before, it is no more.
  void placed(const stream_ref& stream, const instance_id& engine, infer_type role);
  /// It is with no engine now.
  void left(const stream_ref& stream);
  void ended(const stream_end& end);

  const latency_observer& of(infer_type role) const {
    return seen_[static_cast<std::size_t>(role)];
  }

private:
  struct open_request {
    instance_id engine;
    infer_type role = infer_type::neutral;
    std::uint32_t beside = 0; ///< requests that ran there when it came, itself included
  };
  std::uint32_t take_out(std::map<stream_ref, open_request>::iterator at);

  std::map<stream_ref, open_request> open_;
  std::map<instance_id, std::uint32_t> running_; ///< requests, none with 0
  std::array<latency_observer, 3> seen_;         ///< by infer_type
};

} // namespace llumnix
