#pragma once

#include "runtime/base/time.hpp"

#include <caf/actor_control_block.hpp>
#include <caf/fwd.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix {

/// What becomes of one message.
struct message_fate {
  std::uint32_t copies = 1; ///< that arrive; 0: it is lost
  nanoseconds later{0};     ///< the last copy: what was sent after it may well come before it
};

/// Decides by a message's name ("offer", "claim_answer", ...) and which of that name it is, from 1.
using message_judge = std::function<message_fate(std::string_view name, std::uint64_t number)>;

/// The words of hand-overs (runtime/migration/handover.hpp), on their way to LLUMLETs, STREAM HUBs
/// and back to who asked there, lose their way here if somebody wishes so. All other messages pass.
/// One for a whole virtual cluster; of one thread.
class message_faults : public std::enable_shared_from_this<message_faults> {
public:
  /// From now on; empty: all pass. Counts begin anew.
  void judge(message_judge judge);
  /// How many of that name came by since, the lost ones too.
  std::uint64_t seen(const std::string& name) const;

  /// Whom others are to know in place of the actor: what they send passes here first.
  caf::strong_actor_ptr stand_in(caf::actor_system& system, const caf::strong_actor_ptr& real);

  message_fate fate_of(std::string_view name);

private:
  message_judge judge_;
  std::map<std::string, std::uint64_t, std::less<>> seen_;
};

} // namespace llumnix
