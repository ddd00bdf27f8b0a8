#include "actors/protocol/type_ids.hpp"

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "actors/protocol/serving_messages.hpp"

namespace llumnix {

void register_types(caf::actor_system_config& config) {
  // Names travel as text with every message: short ones for what travels often.
  config.add_message_type<tokens_msg>("tok")
    .add_message_type<submit_msg>("sub")
    .add_message_type<status_msg>("sta")
    .add_message_type<abort_msg>("abt")
    .add_message_type<grant_msg>("grt")
    .add_message_type<placed_msg>("placed")
    .add_message_type<place_msg>("place")
    .add_message_type<placements_msg>("placements")
    .add_message_type<release_msg>("release")
    .add_message_type<refused_msg>("refused")
    .add_message_type<holds_msg>("holds")
    .add_message_type<holds_answer_msg>("holds_ans")
    .add_message_type<unplaceable_msg>("unplace")
    .add_message_type<hello_msg>("hello")
    .add_message_type<goodbye_msg>("goodbye")
    .add_message_type<name_taken_msg>("name_taken")
    .add_message_type<peer_up_msg>("peer_up")
    .add_message_type<peer_down_msg>("peer_down")
    .add_message_type<dial_msg>("dial")
    .add_message_type<dialled_msg>("dialled")
    .add_message_type<engine_news_msg>("news")
    .add_message_type<view_change_msg>("view")
    .add_message_type<subscribe_view_msg>("sub_view")
    .add_message_type<kv_changes_msg>("kv")
    .add_message_type<watch_kv_msg>("watch_kv")
    .add_message_type<handover::offer>("offer")
    .add_message_type<handover::accept>("accept")
    .add_message_type<handover::reject>("reject")
    .add_message_type<handover::copy_progress>("progress")
    .add_message_type<handover::prepared>("prepared")
    .add_message_type<handover::freeze_commit>("commit")
    .add_message_type<handover::committed>("committed")
    .add_message_type<handover::commit_failed>("com_failed")
    .add_message_type<handover::claim>("claim")
    .add_message_type<handover::reclaim>("reclaim")
    .add_message_type<handover::claim_answer>("claim_ans")
    .add_message_type<handover::cancel>("cancel")
    .add_message_type<handover::cancelled>("cancelled")
    .add_message_type<handover::release>("rel")
    .add_message_type<handover::abandon>("abandon")
    .add_message_type<handover::abandoned>("abandoned")
    .add_message_type<migrate_msg>("migrate")
    .add_message_type<moves_msg>("moves")
    .add_message_type<claim_lease_msg>("clm_lease")
    .add_message_type<lease_msg>("lease")
    .add_message_type<release_lease_msg>("rel_lease")
    .add_message_type<leader_msg>("leader")
    .add_message_type<moved_msg>("moved")
    .add_message_type<drain_msg>("drain")
    .add_message_type<draining_msg>("draining")
    .add_message_type<kv_heard_msg>("kv_heard")
    .add_message_type<watch_msg>("watch")
    .add_message_type<listening_msg>("listening")
    .add_message_type<stop_node_msg>("stop_node")
    .add_message_type<inspect_msg>("inspect")
    .add_message_type<inspected_msg>("inspected")
    .add_message_type<event_msg>("event")
    .add_message_type<streams_msg>("streams")
    .add_message_type<stat_msg>("stat")
    .add_message_type<actor_stats_msg>("stats")
    .add_message_type<node_actor>("node_actor")
    .add_message_type<llumlet_actor>("llumlet")
    .add_message_type<stream_hub_actor>("hub")
    .add_message_type<gateway_actor>("gateway")
    .add_message_type<scheduler_actor>("scheduler")
    .add_message_type<cms_actor>("cms")
    .add_message_type<console_actor>("console")
    .add_message_type<view_listener>("view_lsn")
    .add_message_type<kv_listener>("kv_lsn");
}

} // namespace llumnix
