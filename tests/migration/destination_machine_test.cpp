#include "runtime/migration/destination_machine.hpp"
#include "tests/migration/effect_text.hpp"

#include <doctest/doctest.h>

#include <functional>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
using state = destination_machine::state;
using testing::joined;
using testing::listed;

constexpr handover_id this_one{1, 2};

std::string name_of(const destination_effect& effect) {
  static const char* const names[]
    = {"accept",    "reject",  "prepared", "committed",   "failed",  "cancel",
       "cancelled", "release", "claim",    "abandon",     "pull",    "cancel_pull",
       "verify",    "compute", "adopt",    "end_request", "give_up", "ended"};
  std::string text = names[effect.index()];
  if (const auto* prepared = std::get_if<handover::prepared>(&effect))
    text += "@" + std::to_string(prepared->watermark);
  if (const auto* failed = std::get_if<handover::commit_failed>(&effect))
    text += " " + std::string{to_string(failed->why)};
  if (const auto* claim = std::get_if<handover::claim>(&effect))
    text += "@" + std::to_string(claim->start);
  if (const auto* pull = std::get_if<destination_side::pull>(&effect))
    text += " " + std::to_string(pull->from) + "-" + std::to_string(pull->to);
  if (const auto* verify = std::get_if<destination_side::verify>(&effect))
    text += " " + std::to_string(verify->from) + "-" + std::to_string(verify->to);
  if (const auto* compute = std::get_if<destination_side::compute_ahead>(&effect))
    text += " " + std::to_string(compute->ids.size());
  if (const auto* adopt = std::get_if<destination_side::adopt>(&effect))
    text += " e" + std::to_string(adopt->request.epoch) + "@" + std::to_string(adopt->sent);
  if (const auto* end = std::get_if<destination_side::ended>(&effect))
    text += " " + std::string{to_string(end->outcome)};
  return text;
}

std::string names_of(const std::vector<destination_effect>& effects) {
  return listed(effects, [](const destination_effect& each) { return name_of(each); });
}

std::vector<token_id> ids(token_id from, token_id to) {
  std::vector<token_id> all;
  for (; from < to; ++from)
    all.push_back(from);
  return all;
}

/// A prompt of 100 tokens and 20 of output under epoch 3; the room takes 200, 16 positions of which
/// it holds already.
struct destination_rig {
  destination_settings settings;
  stream_owner self{{"d", 1}, "engine-d"};
  time_point now{};
  move_path path = move_path::kv;
  std::optional<destination_machine> machine;

  handover::head head() const { return {this_one, {"head", 1, 0, 7}, 3}; }
  handover::offer offer() const {
    handover::offer offer;
    offer.of = head();
    offer.source = {{"s", 1}, "engine-s"};
    offer.destination = self;
    offer.request.stream = head().stream;
    offer.request.epoch = 3;
    offer.request.prompt.assign(100, 5);
    offer.request.output = ids(0, 20);
    offer.path = path;
    offer.geometry = {
      .model = "m", .layout = "l", .block_tokens = 16, .bytes_per_token = 8, .max_model_len = 500};
    offer.kv_address = "there";
    offer.lease = 5s;
    return offer;
  }
  std::string on(const destination_event& event, nanoseconds after = 0ms) {
    now += after;
    return names_of(machine->on(event, now));
  }
  std::string offered(result<arriving_room> room = arriving_room{{}, 16, 200}) {
    machine.emplace(settings, self);
    return on(destination_side::offered{offer(), std::move(room)});
  }
  /// Round `round` up to `watermark`, with all output ids but the last.
  handover::copy_progress progress(std::uint32_t round, std::uint32_t watermark) const {
    return {
      head(),
      round,
      watermark,
      path == move_path::kv ? std::vector<block_index>((watermark + 15) / 16)
                            : std::vector<block_index>{},
      ids(20, watermark - 99),
      20};
  }
  handover::freeze_commit commit(std::uint32_t made = 22, std::uint32_t watermark = 119) const {
    auto output = ids(0, made);
    return {head(), watermark, 21, output, digest_of(offer().request.prompt, output), 50};
  }
  handover::claim_answer answer(handover::claim_verdict verdict) const {
    return {head(), false, verdict, 90};
  }
  handover::cancel cancel() const { return {head(), {errc::timeout, ""}}; }
  destination_side::pulled pulled(errc code = errc::ok) const { return {{code, ""}, 1000}; }
  destination_side::verified verified(errc code = errc::ok) const { return {{code, ""}}; }

  void reach(state wanted) {
    offered();
    if (wanted == state::reserved)
      return;
    on(progress(1, 119));
    if (wanted == state::freeing) {
      on(cancel());
      return;
    }
    on(pulled());
    on(verified());
    on(commit());
    if (wanted == state::claiming)
      return;
    if (wanted == state::abandoning) {
      on(destination_side::tick{}, 2s);
      return;
    }
    if (wanted == state::done) {
      on(answer(handover::claim_verdict::aborted));
      return;
    }
    on(answer(handover::claim_verdict::granted));
    if (wanted == state::adopting)
      return;
    on(destination_side::adopted{{errc::ok, ""}});
  }
};

struct destination_row {
  const char* line; ///< of spec/migration.md 12.4
  state from;
  std::function<std::string(destination_rig&)> event;
  const char* effects;
  state to;
};

using rig = destination_rig;

} // namespace

TEST_CASE_FIXTURE(destination_rig, "a request is taken in") {
  CHECK(offered() == "accept");
  CHECK(on(progress(1, 119)) == "pull 16-119");
  CHECK(on(pulled()) == "verify 16-119");
  CHECK(on(verified()) == "prepared@119");
  auto claimed = machine->on(commit(22), now);
  REQUIRE(names_of(claimed) == "claim@21");
  CHECK(std::get<handover::claim>(claimed[0]).claimant == self);
  auto granted = machine->on(answer(handover::claim_verdict::granted), now);
  REQUIRE(names_of(granted) == "adopt e4@21");
  const auto& adopt = std::get<destination_side::adopt>(granted[0]);
  CHECK(adopt.request.output == ids(0, 22));
  CHECK(adopt.request.credit == 90);
  auto last = machine->on(destination_side::adopted{{errc::ok, ""}}, now);
  REQUIRE(names_of(last) == "committed, release, ended moved");
  const auto& end = std::get<destination_side::ended>(last[2]);
  CHECK(end.epoch == 4);
  CHECK(end.bytes == 1000);
  CHECK(end.ready_tokens == 119);
  CHECK(machine->at() == state::running);
}

TEST_CASE("every line of the destination's state machine") {
  using verdict = handover::claim_verdict;
  const destination_row rows[] = {
    {"RESERVED, data landing", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119), 4s);
       x.on(x.pulled(), 4s);
       return x.on(destination_side::tick{}, 4s); // within 5 s of the landing
     },
     "", state::reserved},
    {"RESERVED, PROGRESS", state::reserved,
     [](rig& x) {
       auto told = x.on(handover::copy_progress{x.head(), 0, 0, {}, {}, 0}, 4s);
       return told + x.on(destination_side::tick{}, 4s);
     },
     "prepared@16", state::reserved},
    {"RESERVED, all landed", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       x.on(x.pulled());
       return x.on(x.verified());
     },
     "prepared@119", state::reserved},
    {"RESERVED, a further round while one lands", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       auto told = x.on(x.progress(2, 125));
       x.on(x.pulled());
       return told + x.on(x.verified());
     },
     "pull 119-125", state::reserved},
    {"RESERVED, a round again", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       x.on(x.pulled());
       x.on(x.verified());
       return x.on(x.progress(1, 119));
     },
     "prepared@119", state::reserved},
    {"RESERVED, OFFER again", state::reserved, [](rig& x) { return x.on(x.offer()); }, "accept",
     state::reserved},
    {"RESERVED, CANCEL", state::reserved, [](rig& x) { return x.on(x.cancel()); },
     "give_up, cancelled, ended cancelled", state::done},
    {"RESERVED, CANCEL while a pull is under way", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       return x.on(x.cancel());
     },
     "cancel_pull", state::freeing},
    {"RESERVED, no word after the offer", state::reserved,
     [](rig& x) {
       return joined({x.on(destination_side::tick{}, 2499ms), x.on(destination_side::tick{}, 1ms)});
     },
     " | give_up, cancel, ended cancelled", state::done},
    {"RESERVED, lease expiry", state::reserved,
     [](rig& x) {
       x.on(x.progress(0, 0));
       return joined({x.on(destination_side::tick{}, 4999ms), x.on(destination_side::tick{}, 1ms)});
     },
     " | give_up, cancel, ended cancelled", state::done},
    {"RESERVED, S unreachable", state::reserved,
     [](rig& x) { return x.on(destination_side::source_lost{}); },
     "give_up, cancel, ended cancelled", state::done},
    {"RESERVED, A gone", state::reserved,
     [](rig& x) { return x.on(destination_side::owner_lost{}); },
     "give_up, cancel, ended cancelled", state::done},
    {"RESERVED, a pull fails", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       return x.on(x.pulled(errc::unreachable));
     },
     "give_up, cancel, ended cancelled", state::done},
    {"RESERVED, bad KV", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       x.on(x.pulled());
       return x.on(x.verified(errc::bad_message));
     },
     "give_up, cancel, ended cancelled", state::done},
    {"RESERVED, abort", state::reserved, [](rig& x) { return x.on(destination_side::aborted{3}); },
     "", state::reserved},
    {"freeing, late bytes have landed", state::freeing, [](rig& x) { return x.on(x.pulled()); },
     "give_up, cancelled, ended cancelled", state::done},
    {"freeing, however long it takes", state::freeing,
     [](rig& x) { return x.on(destination_side::tick{}, 1h); }, "", state::freeing},
    {"freeing, OFFER again", state::freeing, [](rig& x) { return x.on(x.offer()); }, "reject",
     state::freeing},
    {"freeing, CANCEL again", state::freeing,
     [](rig& x) {
       return joined({x.on(x.cancel()), x.on(x.pulled(errc::cancelled))});
     },
     " | give_up, cancelled, ended cancelled", state::done},
    {"RESERVED, FREEZE-COMMIT ok", state::reserved, [](rig& x) { return x.on(x.commit(22, 16)); },
     "claim@21", state::claiming},
    {"RESERVED, FREEZE-COMMIT, data missing", state::reserved,
     [](rig& x) { return x.on(x.commit(22, 17)); }, "failed refused, give_up, ended cancelled",
     state::done},
    {"RESERVED, FREEZE-COMMIT while data lands", state::reserved,
     [](rig& x) {
       x.on(x.progress(1, 119));
       return joined({x.on(x.commit(22, 16)), x.on(x.pulled())});
     },
     "failed refused, cancel_pull | give_up, ended cancelled", state::done},
    {"RESERVED, FREEZE-COMMIT, wrong digest", state::reserved,
     [](rig& x) {
       auto commit = x.commit(22, 16);
       ++commit.digest;
       return x.on(commit);
     },
     "failed refused, give_up, ended cancelled", state::done},
    {"RESERVED, FREEZE-COMMIT, other ids", state::reserved,
     [](rig& x) {
       auto commit = x.commit(22, 16);
       commit.output[3] = 99;
       commit.digest = digest_of(x.offer().request.prompt, commit.output);
       return x.on(commit);
     },
     "failed refused, give_up, ended cancelled", state::done},
    {"RESERVED, FREEZE-COMMIT, fewer ids than known", state::reserved,
     [](rig& x) { return x.on(x.commit(19, 16)); }, "failed refused, give_up, ended cancelled",
     state::done},
    {"RESERVED, FREEZE-COMMIT, more than there is room for", state::reserved,
     [](rig& x) { return x.on(x.commit(101, 16)); }, "failed refused, give_up, ended cancelled",
     state::done},
    {"RESERVED, FREEZE-COMMIT of another epoch", state::reserved,
     [](rig& x) {
       auto commit = x.commit(22, 16);
       commit.of.epoch = 4;
       return x.on(commit);
     },
     "failed refused, give_up, ended cancelled", state::done},
    {"CLAIMING, GRANTED", state::claiming, [](rig& x) { return x.on(x.answer(verdict::granted)); },
     "adopt e4@21", state::adopting},
    {"CLAIMING, ABORTED", state::claiming, [](rig& x) { return x.on(x.answer(verdict::aborted)); },
     "give_up, failed aborted, ended unclaimed", state::done},
    {"CLAIMING, SUPERSEDED", state::claiming,
     [](rig& x) { return x.on(x.answer(verdict::superseded)); },
     "give_up, failed unknown, ended unclaimed", state::done},
    {"CLAIMING, abort from A", state::claiming,
     [](rig& x) { return x.on(destination_side::aborted{4}); },
     "give_up, failed aborted, ended unclaimed", state::done},
    {"CLAIMING, abort of an earlier epoch", state::claiming,
     [](rig& x) { return x.on(destination_side::aborted{3}); }, "", state::claiming},
    {"CLAIMING, timeout 400 ms", state::claiming,
     [](rig& x) {
       return joined({x.on(destination_side::tick{}, 399ms), x.on(destination_side::tick{}, 1ms)});
     },
     " | claim@21", state::claiming},
    {"CLAIMING, 2 s", state::claiming, [](rig& x) { return x.on(destination_side::tick{}, 2s); },
     "give_up, failed unknown, ended abandoned, abandon", state::abandoning},
    {"CLAIMING, FREEZE-COMMIT again", state::claiming, [](rig& x) { return x.on(x.commit()); }, "",
     state::claiming},
    {"CLAIMING, CANCEL", state::claiming, [](rig& x) { return x.on(x.cancel()); }, "",
     state::claiming},
    {"CLAIMING, S unreachable", state::claiming,
     [](rig& x) { return x.on(destination_side::source_lost{}); }, "", state::claiming},
    {"CLAIMING, A gone", state::claiming,
     [](rig& x) { return x.on(destination_side::owner_lost{}); },
     "give_up, failed unknown, ended unclaimed", state::done},
    {"adopting, the engine takes it", state::adopting,
     [](rig& x) {
       return x.on(destination_side::adopted{{errc::ok, ""}});
     },
     "committed, release, ended moved", state::running},
    {"adopting, the engine does not", state::adopting,
     [](rig& x) {
       return x.on(destination_side::adopted{{errc::stale, ""}});
     },
     "give_up, failed unknown, ended abandoned, abandon", state::abandoning},
    {"adopting, abort from A", state::adopting,
     [](rig& x) {
       return joined(
         {x.on(destination_side::aborted{4}), x.on(destination_side::adopted{{errc::ok, ""}})});
     },
     " | committed, release, end_request, ended moved", state::done},
    {"ABANDON is repeated", state::abandoning,
     [](rig& x) {
       return joined({x.on(destination_side::tick{}, 199ms), x.on(destination_side::tick{}, 1ms)});
     },
     " | abandon", state::abandoning},
    {"ABANDONED", state::abandoning, [](rig& x) { return x.on(handover::abandoned{x.head()}); }, "",
     state::done},
    {"ABANDON, A gone", state::abandoning,
     [](rig& x) { return x.on(destination_side::owner_lost{}); }, "", state::done},
    {"ABANDON, a minute", state::abandoning,
     [](rig& x) { return x.on(destination_side::tick{}, 60s); }, "", state::done},
    {"12.1: GRANTED for one given up gets ABANDON", state::abandoning,
     [](rig& x) { return x.on(x.answer(verdict::granted)); }, "abandon", state::abandoning},
    {"12.1: CANCEL of an ended one gets CANCELLED", state::abandoning,
     [](rig& x) { return x.on(x.cancel()); }, "cancelled", state::abandoning},
    {"12.1: OFFER of an ended one gets REJECT", state::abandoning,
     [](rig& x) { return x.on(x.offer()); }, "reject", state::abandoning},
    {"12.1: GRANTED once done", state::done,
     [](rig& x) { return x.on(x.answer(verdict::granted)); }, "abandon", state::done},
    {"12.1: CANCEL once done", state::done, [](rig& x) { return x.on(x.cancel()); }, "cancelled",
     state::done},
    {"12.1: OFFER once done", state::done, [](rig& x) { return x.on(x.offer()); }, "reject",
     state::done},
    {"RUNNING, FREEZE-COMMIT again", state::running, [](rig& x) { return x.on(x.commit()); },
     "committed", state::running},
    {"RUNNING, CANCEL", state::running, [](rig& x) { return x.on(x.cancel()); }, "",
     state::running},
    {"RUNNING, GRANTED again", state::running,
     [](rig& x) { return x.on(x.answer(verdict::granted)); }, "", state::running},
    {"RUNNING, abort from A", state::running,
     [](rig& x) { return x.on(destination_side::aborted{4}); }, "", state::done},
    {"RUNNING, request ended", state::running,
     [](rig& x) { return x.on(destination_side::request_ended{}); }, "", state::done},
    {"RUNNING, a minute", state::running,
     [](rig& x) { return x.on(destination_side::tick{}, 60s); }, "", state::done},
  };
  for (const auto& row : rows) {
    CAPTURE(row.line);
    destination_rig rig;
    rig.reach(row.from);
    REQUIRE(rig.machine->at() == row.from);
    auto effects = row.event(rig);
    CHECK(effects == row.effects);
    CHECK(rig.machine->at() == row.to);
  }
}

TEST_CASE_FIXTURE(destination_rig, "an offer without room here is refused") {
  CHECK(offered({errc::out_of_blocks, "full"}) == "reject, ended refused");
  CHECK(machine->at() == state::done);
  CHECK(on(progress(1, 119)) == "");
}

TEST_CASE_FIXTURE(destination_rig, "progress that makes no sense ends the hand-over") {
  struct row {
    const char* what;
    std::function<void(handover::copy_progress&)> spoil;
  };
  for (const auto& [what, spoil] : {
         row{"ids are missing", [](auto& x) { x.first_output = 21; }},
         row{
           "other ids than before",
           [](auto& x) {
             x.first_output = 19;
             x.ids = {77, 20};
           }},
         row{"more tokens than there is room for", [](auto& x) { x.ids = ids(20, 101); }},
         row{"KV of more tokens than there are", [](auto& x) { x.watermark = 130; }},
         row{"KV without blocks", [](auto& x) { x.blocks.clear(); }},
         row{"an index near the end of numbers", [](auto& x) { x.first_output = ~0u; }},
         row{"a watermark near the end of numbers", [](auto& x) { x.watermark = ~0u; }},
       }) {
    CAPTURE(what);
    offered();
    auto message = progress(1, 125);
    spoil(message);
    CHECK(on(message) == "give_up, cancel, ended cancelled");
  }
}

TEST_CASE_FIXTURE(destination_rig, "what is not ahead of what is known is ignored") {
  const std::pair<state, destination_event> rows[] = {
    {state::reserved, answer(handover::claim_verdict::granted)},
    {state::reserved, handover::abandoned{head()}},
    {state::reserved, handover::cancelled{head()}},
    {state::reserved, pulled()},
    {state::reserved, verified()},
    {state::reserved, destination_side::computed{400}}, // path kv computes nothing
    {state::reserved, destination_side::adopted{{errc::ok, ""}}},
    {state::reserved, handover::cancel{{handover_id{9, 9}, {}, 3}, {errc::timeout, ""}}},
    {state::freeing, progress(2, 125)},
    {state::freeing, commit()},
    {state::claiming, progress(2, 125)},
    {state::claiming, offer()},
    {state::claiming, handover::claim_answer{head(), true, handover::claim_verdict::granted, 0}},
    {state::adopting, cancel()},
    {state::adopting, commit()},
    {state::adopting, answer(handover::claim_verdict::granted)},
    {state::adopting, destination_side::source_lost{}},
    {state::running, offer()},
    {state::running, progress(2, 125)},
    {state::running, destination_side::source_lost{}},
    {state::running, destination_side::aborted{3}},
    {state::abandoning, commit()},
    {state::abandoning, answer(handover::claim_verdict::superseded)},
    {state::done, commit()},
    {state::done, progress(2, 125)},
    {state::done, destination_side::tick{}},
    {state::done, handover::abandoned{head()}},
  };
  for (const auto& [from, event] : rows) {
    CAPTURE(int(from));
    CAPTURE(event.index());
    reach(from);
    CHECK(on(event) == "");
    CHECK(machine->at() == from);
  }
}

TEST_CASE_FIXTURE(destination_rig, "without a transport the KV is computed ahead") {
  path = move_path::recompute;
  offered();
  CHECK(on(progress(1, 121)) == "compute 122");
  CHECK(on(destination_side::computed{64}) == "");
  CHECK(on(handover::copy_progress{head(), 0, 0, {}, {}, 0}) == "prepared@64");
  CHECK(on(destination_side::computed{500}) == "prepared@121"); // never more than there is
  CHECK(on(destination_side::computed{121}) == "");
  CHECK(on(commit(24, 121)) == "claim@21");
}

TEST_CASE_FIXTURE(destination_rig, "HOLDS is answered for a claim that is unanswered") {
  for (auto [at, holds] :
       {std::pair{state::reserved, false},
        {state::claiming, true},
        {state::adopting, true},
        {state::abandoning, false}}) {
    reach(at);
    CHECK(machine->holds(4) == holds);
    CHECK_FALSE(machine->holds(3));
  }
}

TEST_CASE_FIXTURE(destination_rig, "a request comes only where it fits") {
  kv_geometry mine = offer().geometry;
  CHECK(compatible(offer(), mine));
  struct row {
    const char* what;
    std::function<void(handover::offer&)> change;
    errc kv, recompute;
  };
  for (const auto& [what, change, kv, recompute] : {
         row{
           "model", [](auto& x) { x.geometry.model = "other"; }, errc::unsupported,
           errc::unsupported},
         row{"layout", [](auto& x) { x.geometry.layout = "other"; }, errc::unsupported, errc::ok},
         row{
           "block size", [](auto& x) { x.geometry.block_tokens = 32; }, errc::unsupported,
           errc::ok},
         row{
           "bytes", [](auto& x) { x.geometry.bytes_per_token = 16; }, errc::unsupported, errc::ok},
         row{"longer there", [](auto& x) { x.geometry.max_model_len = 9999; }, errc::ok, errc::ok},
         row{
           "too long here", [](auto& x) { x.request.output = ids(0, 400); }, errc::too_long,
           errc::too_long},
         row{
           "no prompt", [](auto& x) { x.request.prompt.clear(); }, errc::invalid_argument,
           errc::invalid_argument},
         row{
           "another stream", [](auto& x) { x.of.stream.stream = 8; }, errc::invalid_argument,
           errc::invalid_argument},
         row{
           "another epoch", [](auto& x) { x.of.epoch = 4; }, errc::invalid_argument,
           errc::invalid_argument},
         row{"no address", [](auto& x) { x.kv_address.clear(); }, errc::invalid_argument, errc::ok},
       }) {
    CAPTURE(what);
    for (auto [by, wanted] : {std::pair{move_path::kv, kv}, {move_path::recompute, recompute}}) {
      path = by;
      auto offered = offer();
      change(offered);
      auto answer = compatible(offered, mine);
      CHECK((answer ? errc::ok : answer.error().code) == wanted);
    }
  }
}

} // namespace llumnix
