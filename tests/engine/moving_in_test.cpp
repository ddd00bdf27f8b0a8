#include "tests/engine/moving_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

using namespace llumnix;
using namespace std::chrono_literals;
using testing::code_of;
using testing::engine_fixture;
using testing::engine_with_moves;
using testing::letters;
using testing::moving_fixture;

TEST_CASE("no room for what makes no sense or is here already") {
  struct row {
    const char* name;
    std::function<void(inference_request&)> change;
    errc answer;
  };
  for (const auto& [name, change, answer] : {
         row{"fine", [](auto&) {}, errc::ok},
         row{"empty prompt", [](auto& x) { x.prompt.clear(); }, errc::invalid_argument},
         row{"bad output id", [](auto& x) { x.output = {264}; }, errc::invalid_argument},
         row{"too long", [](auto& x) { x.prompt.assign(256, 'a'); }, errc::too_long},
         row{
           "no stream of mine",
           [](auto& x) {
             x.stream.stream = 1;
             x.epoch = 4;
           },
           errc::stale},
         row{
           "an older one is here",
           [](auto& x) {
             x.stream.stream = 1;
             x.epoch = 5;
           },
           errc::ok},
       }) {
    CAPTURE(name);
    engine_with_moves x;
    auto here = x.request(1, letters(9), 30);
    here.epoch = 4;
    REQUIRE(x.submit(here) == errc::ok);
    auto request = x.request(2, "hello");
    change(request);
    CHECK(code_of(x.moves.reserve(x.id, request, 0)) == answer);
    CHECK(x.moves.reserved_blocks() == (answer == errc::ok ? 2 : 0));
    CHECK_FALSE(x.engine->holds(request.stream, request.epoch + (request.epoch == 4)));
  }
  engine_with_moves x;
  REQUIRE(x.moves.reserve(x.id, x.request(1, "hello"), 0));
  CHECK(code_of(x.moves.reserve(x.id, x.request(1, "hello"), 0)) == errc::invalid_argument);
  CHECK(x.moves.reserved_blocks() == 2);
}

TEST_CASE("a room has the headroom asked for, within the model's length") {
  struct row {
    std::uint32_t headroom;
    std::size_t blocks;
    std::uint32_t reserved;
  };
  for (auto [headroom, blocks, reserved] :
       {row{0, 3, 12}, row{2, 3, 12}, row{3, 4, 16}, row{40, 13, 50}, row{41, 13, 50},
        row{0xFFFFFFFF, 13, 50}}) {
    CAPTURE(headroom);
    auto config = engine_fixture::small();
    config.max_model_len = 50;
    engine_with_moves x{config};
    auto room = x.moves.reserve(x.id, x.request(1, letters(10)), headroom);
    REQUIRE(room);
    CHECK(room->blocks.size() == blocks);
    CHECK(room->reserved_tokens == reserved);
    CHECK(room->present_tokens == 0);
    CHECK(x.free() == 64 - blocks);
    CHECK(x.engine->conserves_blocks());
    CHECK_FALSE(x.engine->has_work());
  }
}

TEST_CASE("a room leaves one block in a hundred free") {
  struct row {
    std::uint32_t blocks, headroom; // beside 5 tokens, in blocks of 4
    errc answer;
  };
  for (auto [blocks, headroom, answer] :
       {row{64, 247, errc::ok}, row{64, 248, errc::out_of_blocks}, row{200, 787, errc::ok},
        row{200, 788, errc::out_of_blocks}, row{201, 787, errc::ok},
        row{201, 788, errc::out_of_blocks}}) {
    CAPTURE(blocks);
    engine_with_moves x{engine_with_moves::few_blocks(blocks)};
    CHECK(code_of(x.moves.reserve(x.id, x.request(1, "hello"), headroom)) == answer);
    CHECK(x.free() == (answer == errc::ok ? (blocks + 99) / 100 : blocks));
    CHECK(x.engine->conserves_blocks());
    x.moves.give_up(x.id);
    CHECK(x.idle());
  }
}

TEST_CASE("a room shares what is cached, in full blocks, and never the last token") {
  struct row {
    std::size_t length;
    std::uint32_t output, present;
  };
  for (auto [length, output, present] :
       {row{20, 0, 16}, row{21, 0, 20}, row{30, 0, 20}, row{3, 0, 0}, row{20, 1, 20},
        row{20, 5, 24}}) {
    CAPTURE(length);
    CAPTURE(output);
    engine_with_moves x;
    auto earlier = x.request(9, letters(20), 10); // 29 positions, 7 blocks
    REQUIRE(x.submit(earlier) == errc::ok);
    x.run();
    auto request = x.request(1, letters(length), 10);
    request.output.assign(x.streams[9].tokens.begin(), x.streams[9].tokens.begin() + output);
    auto room = *x.moves.reserve(x.id, request, 0);
    CHECK(room.present_tokens == present);
    CHECK(x.moves.ready_tokens(x.id) == present);
    CHECK(x.free() == 64 - room.blocks.size());
    // They are shared: nobody may land there.
    if (present > 0)
      CHECK(
        code_of(x.moves.landed(x.id, request.prompt, present - 1, present - 1))
        == errc::invalid_argument);
    x.moves.give_up(x.id);
    CHECK(x.idle());
    CHECK(x.engine->blocks().cached() >= present / 4);
  }
}

TEST_CASE("what cannot have landed is refused") {
  moving_fixture x;
  REQUIRE(x.source.submit(x.source.request(1, letters(22), 30)) == errc::ok);
  for (int i = 0; i < 4; ++i)
    x.source.step();
  REQUIRE(x.begin(1, 0) == errc::ok); // 26 tokens in 7 blocks, 25 of them written
  x.copy(0, 25);
  auto ids = x.ids();
  auto others = ids;
  others[3] ^= 1;
  auto many = ids;
  many.resize(40, 600);
  struct row {
    const std::vector<token_id>& ids;
    std::uint32_t from, to;
    errc answer;
    std::uint32_t ready;
  };
  for (const auto& [said, from, to, answer, ready] : {
         row{ids, 5, 9, errc::invalid_argument, 0}, // a gap
         row{ids, 1, 0, errc::invalid_argument, 0},
         row{ids, 0, 27, errc::invalid_argument, 0},  // beyond the ids
         row{many, 0, 29, errc::invalid_argument, 0}, // beyond the room
         row{others, 0, 9, errc::bad_message, 0},     // contradicts the offer
         row{ids, 0, 0, errc::ok, 0}, row{ids, 0, 10, errc::ok, 10},
         row{ids, 11, 12, errc::invalid_argument, 10}, row{ids, 8, 9, errc::ok, 10}, // once more
         row{ids, 8, 25, errc::ok, 25}, row{ids, 25, 26, errc::bad_message, 25}, // never written
       }) {
    CAPTURE(from);
    CAPTURE(to);
    CHECK(code_of(x.in.landed(x.id, said, from, to)) == answer);
    CHECK(x.in.ready_tokens(x.id) == ready);
  }
  x.in.give_up(x.id);
  CHECK(x.destination.idle());
}

TEST_CASE("what is adopted must fit what was reserved and what is here") {
  struct row {
    const char* name;
    std::function<void(inference_request&)> change;
    std::uint32_t sent;
    errc answer;
  };
  for (const auto& [name, change, sent, answer] : {
         row{"fine", [](auto&) {}, 2, errc::ok},
         row{"grew", [](auto& x) { x.output.push_back(600); }, 2, errc::ok},
         row{"sent too much", [](auto&) {}, 3, errc::invalid_argument},
         row{"other stream", [](auto& x) { x.stream.stream = 7; }, 2, errc::invalid_argument},
         row{"longer prompt", [](auto& x) { x.prompt.push_back('x'); }, 2, errc::invalid_argument},
         row{"other prompt", [](auto& x) { x.prompt[0] ^= 1; }, 2, errc::bad_message},
         row{"other output", [](auto& x) { x.output[1] = 700; }, 2, errc::bad_message},
         row{"shrank", [](auto& x) { x.output.pop_back(); }, 1, errc::bad_message},
         row{"bad id", [](auto& x) { x.output.push_back(300); }, 2, errc::invalid_argument},
         row{"too long", [](auto& x) { x.output.resize(250, 600); }, 2, errc::too_long},
         row{"overtaken", [](auto& x) { x.epoch = 1; }, 2, errc::stale},
       }) {
    CAPTURE(name);
    engine_with_moves x;
    auto request = x.request(1, letters(9), 30);
    request.output = testing::expect(request, 256, 2).tokens;
    REQUIRE(x.moves.reserve(x.id, request, 4));
    // Its stream came here otherwise meanwhile: the room stays, its hand-over may be over.
    auto replay = request;
    replay.epoch = 1;
    replay.credit = 0;
    REQUIRE(x.submit(replay) == errc::ok);
    request.epoch = 2;
    change(request);
    CHECK(code_of(x.moves.adopt(x.id, request, sent, {})) == answer);
    CHECK(x.moves.reserved_blocks() == (answer == errc::ok ? 0 : 4));
    CHECK(x.engine->holds(x.stream(1), 1) == (answer != errc::ok)); // the older one is aborted
    x.moves.give_up(x.id);
    CHECK(x.engine->conserves_blocks());
    x.run();
    if (std::string_view{name} == "fine") {
      request.output.clear();
      auto expected = testing::expect(request, 256).tokens;
      CHECK(std::equal(expected.begin() + 2, expected.end(), x.streams[1].tokens.begin()));
    }
    x.engine->abort(x.stream(1), 1);
    CHECK(x.idle());
  }
}

TEST_CASE("an abort passes a room by") {
  engine_with_moves x;
  REQUIRE(x.moves.reserve(x.id, x.request(1, letters(9)), 0));
  CHECK_FALSE(x.engine->holds(x.stream(1), 0));
  CHECK_FALSE(x.engine->abort(x.stream(1), 9));
  CHECK(x.moves.reserved_blocks() == 3);
  x.moves.compute_ahead(x.id, x.request(1, letters(9)).prompt);
  x.step();
  x.moves.give_up(x.id);
  CHECK_FALSE(x.engine->has_work());
  CHECK(x.idle());
  CHECK(x.engine->blocks().cached() == 2);
  x.start(2, 9);
  x.run();
  CHECK(x.right(2, 9));
}

TEST_CASE("rooms to be computed stand in line, but need no seat") {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = 8;
  config.max_num_seqs = 2;
  engine_with_moves x{config};
  x.start(1, 4, 20);
  x.step();
  x.start(2, 12, 20);
  auto request = x.request(3, letters(12, 3), 20);
  REQUIRE(x.moves.reserve(x.id, request, 0));
  x.moves.compute_ahead(x.id, request.prompt);
  x.start(4, 12, 20);
  struct row {
    std::uint32_t prefill, ready;
  };
  // Of 8 tokens 1 decodes. 2 computes 7, then 5 and the room 2, then two decode and the room 6; it
  // has 3 left. There is no seat for 4.
  for (auto [prefill, ready] : {row{7, 0}, row{7, 2}, row{6, 8}, row{3, 11}, row{0, 11}}) {
    CAPTURE(ready);
    CHECK(x.step().prefill_tokens == prefill);
    CHECK(x.moves.ready_tokens(x.id) == ready);
  }
  CHECK(x.engine->status().num_running_requests == 2);
  CHECK(x.engine->status().num_waiting_requests == 1);
  REQUIRE(x.moves.adopt(x.id, request, 0, x.now));
  CHECK(x.step().outputs.front().stream == x.stream(3));
  x.run();
  for (auto [number, length] : {std::pair{1, 4}, {2, 12}, {3, 12}, {4, 12}})
    CHECK(x.right(static_cast<std::uint64_t>(number), static_cast<std::size_t>(length), 20));
  CHECK(x.idle());
}

TEST_CASE("whoever came a moment ago is not the first to be preempted") {
  for (auto [after, first] : {std::pair{0ms, 1u}, {999ms, 1u}, {1000ms, 2u}}) {
    CAPTURE(first);
    engine_with_moves x{engine_with_moves::few_blocks(12)};
    x.start(1, 20);
    x.step(); // 5 blocks, then a sixth
    auto request = x.request(2, letters(18, 2), 30);
    request.priority = 1; // behind 1 in the order of service
    REQUIRE(x.moves.reserve(x.id, request, 0));
    REQUIRE(x.moves.adopt(x.id, request, 0, x.now));
    x.now += after;
    // After the first step 6 and 5 blocks are held; when 1 fills its sixth the other has six too.
    std::uint32_t preemptions = 0;
    while (preemptions == 0)
      preemptions = x.step().preemptions;
    REQUIRE(x.moves.pin(x.id, x.stream(first), 0));
    CHECK(x.moves.look(x.id)->preemptions == 1);
    x.moves.unpin(x.id);
    x.run();
    CHECK(x.right(1, 20));
    CHECK(x.right(2, 18));
    CHECK(x.idle());
  }
}

TEST_CASE("where pins and rooms hold all blocks nobody runs until they let go") {
  engine_with_moves x{engine_with_moves::few_blocks(12)};
  x.start(1, 20);
  x.step();
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  handover_id room{1, 2};
  REQUIRE(x.moves.reserve(room, x.request(2, letters(20, 2)), 0));
  x.moves.freeze(x.id).value();
  x.moves.drop(x.id);
  x.start(3, 20);
  CHECK(x.engine->has_work());
  CHECK_FALSE(x.step().worked);
  x.moves.unpin(x.id);
  CHECK(x.step().worked);
  x.moves.give_up(room);
  x.run();
  CHECK(x.right(3, 20));
  CHECK(x.idle());
}

TEST_CASE("requests are told of as they came to run, though one that moved here is served first") {
  moving_fixture x;
  auto running = [](const moving_requests& at) {
    std::string text;
    for (const auto& request : at.movable())
      if (request.running)
        text += std::to_string(request.stream.stream) + " ";
    return text;
  };
  for (std::uint64_t number : {1, 2, 3})
    REQUIRE(x.destination.submit(x.source.request(number, letters(8, number), 20)) == errc::ok);
  x.destination.step();
  REQUIRE(x.source.submit(x.source.request(4, letters(8, 4), 20)) == errc::ok);
  x.source.step();
  REQUIRE(x.begin(4, 12) == errc::ok);
  REQUIRE(x.finish() == errc::ok);
  CHECK(running(x.in) == "1 2 3 4 ");
  REQUIRE(x.destination.submit(x.source.request(5, letters(8, 5), 20)) == errc::ok);
  x.destination.step();
  CHECK(running(x.in) == "1 2 3 4 5 ");
  // What goes back to where it ran keeps its place.
  handover_id away{7, 2};
  REQUIRE(x.in.pin(away, x.destination.stream(2), 0));
  REQUIRE(x.in.freeze(away));
  x.in.thaw(away, 0);
  x.in.unpin(away);
  CHECK(running(x.in) == "1 2 3 4 5 ");
  x.destination.run();
  CHECK(x.idle());
}
