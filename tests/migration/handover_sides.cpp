#include "tests/migration/handover_model.hpp"

#include <type_traits>

/// The hand-overs of the model: the shipped machines, and what they want of the world.
namespace llumnix::model {

/// Looks that waited for more to be written, or for the end of it.
void world::answer_looks() {
  for (int at = 0; at < 2; ++at) {
    auto& here = nodes_[static_cast<std::size_t>(at)];
    for (std::size_t index = 0; index < here.sides.size(); ++index) {
      auto& one = here.sides[index];
      if (!one.look_beyond)
        continue;
      bool mine = here.engine.here && here.engine.epoch == one.source->plan().of.epoch;
      if (mine && here.engine.prefilling && here.engine.written <= *one.look_beyond)
        continue;
      one.look_beyond.reset();
      if (mine)
        hear(at, index, source_event{source_side::looked{leaving(here)}});
      else
        hear(at, index, source_event{source_side::looked{{errc::not_found, ""}}});
    }
  }
}

void world::begin(int at) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  source_settings settings;
  settings.rounds_max = 2;
  settings.step_tokens = 0;
  settings.prefill_per_second = scene_.copy_tail ? 1 : 1e9;
  source_plan plan;
  plan.of.id = {0, ++next_id_};
  plan.source = owner_of(at);
  plan.destination = owner_of(1 - at);
  plan.path = scene_.path;
  plan.geometry
    = {.model = "m", .layout = "l", .block_tokens = 1, .bytes_per_token = 1, .max_model_len = 100};
  plan.kv_address = "here";
  plan.to_decode = here.engine.prefilling;
  side fresh;
  fresh.id = plan.of.id;
  fresh.pinned = true;
  fresh.window_open = scene_.path == move_path::kv;
  fresh.source.emplace(settings, std::move(plan));
  here.sides.push_back(std::move(fresh));
  auto index = here.sides.size() - 1;
  for (auto& effect : here.sides[index].source->begin(leaving(here), time_point{}))
    carry_out(at, index, effect);
}

void world::receive_offer(int at, const handover::offer& offer, bool refused) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  if (auto* one = side_of(at, offer.of.id)) {
    if (one->destination)
      hear(
        at, static_cast<std::size_t>(one - here.sides.data()), destination_event{offer}, refused);
    return;
  }
  if (here.ended.find(offer.of.id, time_point{}) != nullptr)
    return send(offer.source, handover::reject{offer.of, {errc::stale, {}}});
  side fresh;
  fresh.id = offer.of.id;
  fresh.destination.emplace(destination_settings{}, owner_of(at));
  result<arriving_room> room{errc::queue_full, ""};
  if (!refused && !(here.engine.here && here.engine.epoch >= offer.of.epoch)) {
    room = arriving_room{.blocks = {}, .present_tokens = 0, .reserved_tokens = 20};
    fresh.room = true;
  }
  here.sides.push_back(std::move(fresh));
  hear(
    at, here.sides.size() - 1,
    destination_event{destination_side::offered{offer, std::move(room)}});
}

void world::hear(int at, std::size_t index, const source_event& event) {
  auto& one = nodes_[static_cast<std::size_t>(at)].sides[index];
  auto before = one.source->at();
  auto effects = one.source->on(event, one.clock);
  if (
    std::holds_alternative<source_side::tick>(event) && before == source_machine::state::deciding
    && one.source->at() == source_machine::state::cancelling)
    excuses_.gave_up_deciding = true;
  for (auto& effect : effects)
    carry_out(at, index, effect);
}

void world::carry_out(int at, std::size_t index, const source_effect& effect) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto& one = here.sides[index];
  auto of = one.source->plan().of;
  bool mine = here.engine.here && here.engine.epoch == of.epoch;
  std::visit(
    [&](const auto& what) {
      using type = std::decay_t<decltype(what)>;
      if constexpr (std::is_same_v<type, source_side::look>) {
        if (mine && here.engine.prefilling && here.engine.written <= what.beyond)
          one.look_beyond = what.beyond;
        else if (mine)
          hear(at, index, source_event{source_side::looked{leaving(here)}});
        else
          hear(at, index, source_event{source_side::looked{{errc::not_found, ""}}});
      } else if constexpr (std::is_same_v<type, source_side::freeze>) {
        one.freeze_wanted = true;
      } else if constexpr (std::is_same_v<type, source_side::thaw>) {
        one.freeze_wanted = one.freeze_wanted && !one.source->plan().to_decode;
        if (!mine || !here.engine.frozen || scene_.broken == broken_rule::source_never_thaws)
          return;
        here.engine.frozen = false;
        here.engine.epoch = what.epoch;
      } else if constexpr (std::is_same_v<type, source_side::drop>) {
        one.freeze_wanted = one.freeze_wanted && !one.source->plan().to_decode;
        if (mine && here.engine.frozen)
          here.engine.here = false;
      } else if constexpr (std::is_same_v<type, source_side::close_window>) {
        one.window_closing = true;
        if (scene_.broken == broken_rule::source_unpins_with_open_window)
          hear(at, index, source_event{source_side::window_closed{}});
      } else if constexpr (std::is_same_v<type, source_side::unpin>) {
        auto* reader = side_of(1 - at, one.id);
        if (reader != nullptr && reader->pulling && !reader->pull_cut)
          fail("blocks are unpinned while they are read");
        if (!one.pinned)
          fail("unpinned twice");
        one.pinned = false;
      } else if constexpr (std::is_same_v<type, source_side::ended>) {
        ++one.ends;
        here.ended.remember({of, false}, time_point{});
        here.engine.stands = false; // it decodes here, or is gone
        moved_ = moved_ || what.outcome == source_outcome::moved;
        auto winner = owner_.speakers.find(of.epoch + 1);
        if (
          what.outcome == source_outcome::moved
          && (winner == owner_.speakers.end() || winner->second != one.source->plan().destination))
          fail("moved, but its destination never owned the stream");
        if (what.outcome == source_outcome::kept && mine && here.engine.frozen)
          fail("kept, but frozen for ever");
      } else if constexpr (std::is_same_v<type, handover::reclaim>) {
        if (scene_.broken == broken_rule::source_resumes_by_itself)
          hear(
            at, index,
            source_event{handover::claim_answer{
              of, true, handover::claim_verdict::granted, inference_request::no_limit}});
        else
          send(owner_node, 0, what);
      } else {
        send(one.source->plan().destination, what);
      }
    },
    effect);
}

void world::hear(int at, std::size_t index, const destination_event& event, bool refused) {
  auto& one = nodes_[static_cast<std::size_t>(at)].sides[index];
  auto effects = one.destination->on(event, one.clock);
  if (one.destination->at() == destination_machine::state::abandoning)
    excuses_.gave_up_claiming = true;
  for (auto& effect : effects)
    carry_out(at, index, effect, refused);
}

void world::carry_out(int at, std::size_t index, const destination_effect& effect, bool refused) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto& one = here.sides[index];
  auto of = one.destination->of();
  std::visit(
    [&](const auto& what) {
      using type = std::decay_t<decltype(what)>;
      if constexpr (std::is_same_v<type, destination_side::pull>) {
        if (one.pulling)
          fail("two pulls at a time");
        auto* from = side_of(1 - at, one.id);
        one.pulling = true;
        one.pull_cancelled = false;
        one.pull_cut = from == nullptr || !from->window_open;
        one.pull_to = what.to;
      } else if constexpr (std::is_same_v<type, destination_side::cancel_pull>) {
        one.pull_cancelled = true;
        if (scene_.broken == broken_rule::destination_frees_before_quiesce)
          hear(at, index, destination_event{destination_side::pulled{{errc::cancelled, ""}, 0}});
      } else if constexpr (std::is_same_v<type, destination_side::verify>) {
        hear(at, index, destination_event{destination_side::verified{{errc::ok, ""}}});
      } else if constexpr (std::is_same_v<type, destination_side::compute_ahead>) {
        one.computing_to = static_cast<std::uint32_t>(what.ids.size()) - 1;
      } else if constexpr (std::is_same_v<type, destination_side::adopt>) {
        if (one.pulling)
          fail("a room is adopted while a pull into it is under way");
        auto& engine = here.engine;
        error why{errc::ok, ""};
        if (refused || (engine.here && engine.epoch >= what.request.epoch)) {
          why = {errc::stale, ""};
        } else {
          if (
            what.request.output
            != output_ids(static_cast<std::uint32_t>(what.request.output.size())))
            fail("other tokens than the source made");
          one.room = false;
          auto made = static_cast<std::uint32_t>(what.request.output.size());
          engine = {
            .here = true,
            .frozen = false,
            .epoch = what.request.epoch,
            .made = made,
            .told = what.sent,
            .written = prompt_tokens + made - 1,
            .preemptions = engine.preemptions};
        }
        hear(at, index, destination_event{destination_side::adopted{std::move(why)}});
      } else if constexpr (std::is_same_v<type, destination_side::end_request>) {
        abort(at, what.epoch);
      } else if constexpr (std::is_same_v<type, destination_side::give_up>) {
        if (one.pulling)
          fail("a room is given up while a pull into it is under way");
        if (scene_.broken != broken_rule::destination_keeps_room)
          one.room = false;
      } else if constexpr (std::is_same_v<type, destination_side::ended>) {
        ++one.ends;
        here.ended.remember({of, what.outcome == destination_outcome::moved}, time_point{});
      } else if constexpr (std::is_same_v<type, handover::claim>) {
        if (scene_.broken == broken_rule::destination_emits_unclaimed)
          hear(
            at, index,
            destination_event{handover::claim_answer{
              of, false, handover::claim_verdict::granted, inference_request::no_limit}});
        else
          send(owner_node, 0, what);
      } else if constexpr (std::is_same_v<type, handover::abandon>) {
        send(owner_node, 0, what);
      } else {
        send(one.destination->source(), what);
      }
    },
    effect);
}

/// Machines that are done are forgotten, as their actors do; what they should have let go is let
/// go.
void world::forget_done(int at) {
  std::erase_if(nodes_[static_cast<std::size_t>(at)].sides, [&](const side& one) {
    bool done = one.source ? one.source->at() == source_machine::state::done
                           : one.destination->at() == destination_machine::state::done;
    if (!done)
      return false;
    if (one.pinned || one.room || one.pulling || one.freeze_wanted)
      fail("a machine is done and has left something behind");
    if (one.ends != 1)
      fail("a slot was returned " + std::to_string(one.ends) + " times");
    return true;
  });
}

} // namespace llumnix::model
