#include "sim/message_faults.hpp"

#include "actors/protocol/migration_messages.hpp"

#include <caf/all.hpp>

namespace llumnix {

namespace {

template <class... Words>
std::string_view name_among(
  const caf::type_erased_tuple& content, const std::pair<std::string_view, Words*>&... words) {
  std::string_view found;
  ((content.match_element<Words>(0) ? void(found = words.first) : void()), ...);
  return found;
}

template <class Word>
std::pair<std::string_view, Word*> word(std::string_view name) {
  return {name, nullptr};
}

/// Empty for what is no word of a hand-over.
std::string_view name_of(const caf::type_erased_tuple& content) {
  if (content.size() != 1)
    return {};
  return name_among(
    content, word<handover::offer>("offer"), word<handover::accept>("accept"),
    word<handover::reject>("reject"), word<handover::copy_progress>("copy_progress"),
    word<handover::prepared>("prepared"), word<handover::freeze_commit>("freeze_commit"),
    word<handover::committed>("committed"), word<handover::commit_failed>("commit_failed"),
    word<handover::claim>("claim"), word<handover::reclaim>("reclaim"),
    word<handover::claim_answer>("claim_answer"), word<handover::cancel>("cancel"),
    word<handover::cancelled>("cancelled"), word<handover::release>("release"),
    word<handover::abandon>("abandon"), word<handover::abandoned>("abandoned"));
}

/// Passes everything on to another actor, or does not.
class gate final : public caf::monitorable_actor {
public:
  gate(
    caf::actor_config& config, std::shared_ptr<message_faults> faults, caf::strong_actor_ptr real)
    : caf::monitorable_actor{config}, faults_{std::move(faults)}, real_{std::move(real)} {}

  void enqueue(caf::mailbox_element_ptr what, caf::execution_unit* unit) override {
    auto name = name_of(what->content());
    if (name.empty())
      return real_->enqueue(std::move(what), unit);
    auto fate = faults_->fate_of(name);
    if (fate.copies == 0)
      return;
    // What is said back to the sender passes here, too.
    auto sender = what->sender ? faults_->stand_in(home_system(), what->sender) : nullptr;
    auto content = what->copy_content_to_message();
    for (std::uint32_t copy = 1; copy < fate.copies; ++copy)
      real_->enqueue(sender, caf::make_message_id(), content, unit);
    if (fate.later.count() == 0)
      return real_->enqueue(sender, caf::make_message_id(), content, unit);
    auto& clock = home_system().clock();
    clock.schedule_message(
      clock.now() + fate.later, real_,
      caf::make_mailbox_element(sender, caf::make_message_id(), {}, content));
  }

private:
  std::shared_ptr<message_faults> faults_;
  caf::strong_actor_ptr real_;
};

} // namespace

void message_faults::judge(message_judge judge) {
  judge_ = std::move(judge);
  seen_.clear();
}

std::uint64_t message_faults::seen(const std::string& name) const {
  auto found = seen_.find(name);
  return found == seen_.end() ? 0 : found->second;
}

message_fate message_faults::fate_of(std::string_view name) {
  auto number = ++seen_.try_emplace(std::string{name}).first->second;
  return judge_ ? judge_(name, number) : message_fate{};
}

caf::strong_actor_ptr
message_faults::stand_in(caf::actor_system& system, const caf::strong_actor_ptr& real) {
  caf::actor_config config;
  return caf::make_actor<gate, caf::strong_actor_ptr>(
    system.next_actor_id(), system.node(), &system, config, shared_from_this(), real);
}

} // namespace llumnix
