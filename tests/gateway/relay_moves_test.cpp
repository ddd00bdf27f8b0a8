#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>

namespace llumnix::testing {

namespace {

using std::chrono::milliseconds;

/// A relay whose engine "e:1" is well, and which is to go elsewhere.
struct moving_rig : table_rig {
  moving_rig() {
    for (const auto* each : {"e:1", "e:2", "e:3"})
      engines.put(each, {.address = each, .token_ids = true, .context_tokens = 4096});
  }

  /// A streamed completion of the prompt 7, 8, 9.
  std::shared_ptr<fake_exchange> begin(std::string_view fields = {}, int tokens = 2) {
    auto body = R"({"model":"m","prompt":[7,8,9],"stream":true,"max_tokens":20)"
                + std::string{fields} + "}";
    auto wish = std::get<relay::relay_request>(
      relay::request_reader{}.read(openai::endpoint::completions, body));
    auto client = open(wish, body);
    place();
    if (tokens > 0)
      say(of(0, tokens));
    return client;
  }
  /// Events with a token each: ids from `first` on, and letters for text.
  static std::string of(int first, int count, bool prompt = true, const char* id = "c") {
    std::string all;
    for (int i = first; i < first + count; ++i) {
      nlohmann::json choice{
        {"index", 0},
        {"text", std::string(1, static_cast<char>('a' + i))},
        {"logprobs", nullptr},
        {"finish_reason", nullptr}};
      choice["token_ids"] = nlohmann::json::array({i});
      if (prompt && i == first)
        choice["prompt_token_ids"] = nlohmann::json::array({7, 8, 9});
      nlohmann::json chunk{
        {"id", id}, {"object", "text_completion"}, {"created", 1}, {"model", "m"}};
      chunk["choices"] = nlohmann::json::array({choice});
      all += "data: " + chunk.dump() + "\n\n";
    }
    return all;
  }
  void move(const instance_id& to, const instance_id& from = "e:1") {
    table.move({port.placed.back().stream.stream, from, to, "drain"}, [told = heard](relay_moved x) {
      CHECK_FALSE(*told);
      *told = std::move(x);
    });
  }
  static std::string text(const fake_exchange& client) {
    std::string all;
    for (const auto& each : client.events())
      if (each.contains("choices"))
        for (const auto& choice : each["choices"])
          all += choice["text"].get<std::string>();
    return all;
  }

  /// What the end of the rig tells, too, is told to somebody.
  std::shared_ptr<std::optional<relay_moved>> heard
    = std::make_shared<std::optional<relay_moved>>();
  std::optional<relay_moved>& told = *heard;
};

using names = std::vector<instance_id>;

} // namespace

TEST_CASE_FIXTURE(moving_rig, "a stream goes on elsewhere from what its client has") {
  auto client = begin();
  auto before = pool.calls_open;
  move("e:2");
  CHECK(pool.calls_open == before - 1); // which is how its engine hears of it
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 1);
  CHECK(port.loads[1].planned);
  CHECK(port.loads[1].why == "it is moved from e:1 (drain)");
  CHECK(port.excluded[1] == names{"e:1", "e:3"});
  loop.time += milliseconds{3};
  place("e:2");
  CHECK(pool.asked.back().target == "/v1/completions");
  auto asked = nlohmann::json::parse(pool.asked.back().body);
  CHECK(asked["prompt"] == std::vector<int>{7, 8, 9, 0, 1});
  CHECK(asked["max_tokens"] == 18);
  CHECK_FALSE(told);
  CHECK(table.list(loop.now()).at(0).state == "moving");
  loop.time += milliseconds{4};
  say(of(2, 1, false, "d"));
  CHECK(table.list(loop.now()).at(0).state == "running");
  REQUIRE(told);
  CHECK(told->outcome == "moved");
  CHECK(told->reason.empty());
  CHECK(told->at == "e:2");
  CHECK(told->epoch == 1);
  CHECK(told->tokens == 5);
  CHECK(told->gap == milliseconds{7});
  CHECK(told->request == port.placed[0].text_id);
  CHECK(text(*client) == "abc");

  told.reset();
  move("e:1", "e:2"); // and back
  place("e:1");
  say(of(3, 1, false, "e"));
  REQUIRE(told);
  CHECK(told->at == "e:1");
  CHECK(text(*client) == "abcd");
}

TEST_CASE_FIXTURE(moving_rig, "where it goes may be left to the placement, among those that suit") {
  engines.put("e:3", {.address = "e:3"}); // tells no ids
  begin();
  move("");
  CHECK(port.excluded.back() == names{"e:1", "e:3"});
  engines.put("e:4", {.address = "e:4", .token_ids = true, .models = {"other"}});
  table.place_again(loop.now());
  CHECK(port.excluded.back() == names{"e:1", "e:3", "e:4"});
  place("e:2");
  say(of(2, 1, false, "d"));
  REQUIRE(told);
  CHECK(told->at == "e:2");
}

TEST_CASE_FIXTURE(moving_rig, "before its first token a stream is asked for once more elsewhere") {
  auto client = begin(R"(,"seed":3)", 0); // later it could not go
  move("e:2");
  REQUIRE(port.placed.size() == 2);
  place("e:2");
  CHECK(pool.asked.back().body_begin.text.find(R"("prompt":[7,8,9])") != std::string::npos);
  say(of(0, 1));
  REQUIRE(told);
  CHECK(told->outcome == "moved");
  CHECK(text(*client) == "a");
}

TEST_CASE_FIXTURE(moving_rig, "what would be noticed stays where it is, and is told why") {
  struct row {
    const char* fields;
    const char* to;
    bool lasting;
    const char* reason; ///< a part of it
  };
  engines.put("e:3", {.address = "e:3"});
  engines.put("e:4", {.address = "e:4", .token_ids = true, .models = {"other"}});
  engines.put("e:5", {.address = "e:5", .token_ids = true});
  engines.drain("e:5", true);
  engines.put("e:6", {.address = "e:6", .token_ids = true});
  engines.trouble("e:6")->rest(loop.now() + milliseconds{1000}, loop.now());
  for (auto [fields, to, lasting, reason] :
       {row{R"(,"seed":3)", "e:2", true, "'seed'"},
        row{R"(,"presence_penalty":0.5)", "", true, "'presence_penalty'"},
        row{R"(,"stop":"end")", "", true, "a stop string"},
        row{"", "e:3", false, "e:3 cannot take it: it tells no token ids"},
        row{"", "e:4", false, "e:4 cannot take it: it does not serve 'm'"},
        row{"", "e:5", false, "e:5 cannot take it: it is being drained"},
        row{"", "e:6", false, "e:6 cannot take it: it is left alone for a while"},
        row{"", "e:7", false, "e:7 is no engine behind HTTP that its gateway knows"}}) {
    CAPTURE(reason);
    told.reset();
    auto client = begin(fields);
    auto placed = port.placed.size();
    move(to);
    REQUIRE(told);
    CHECK(told->outcome == "refused");
    CHECK(told->lasting == lasting);
    CHECK(told->reason.find(reason) != std::string::npos);
    CHECK(told->at == "e:1");
    CHECK(port.placed.size() == placed);
    engine().on_body(of(2, 1));
    engine().on_pause();
    CHECK(text(*client) == "abc");
  }
  engines.drain("e:2", true);
  told.reset();
  begin();
  move("");
  CHECK(told->reason == "no other engine could go on with it now");
  told.reset();
  open(false);
  place();
  move("e:2");
  CHECK(told->lasting);
  CHECK(told->reason.find("not streamed") != std::string::npos);
}

TEST_CASE_FIXTURE(moving_rig, "a stream waits for the end of a character, for a while") {
  auto client = begin();
  auto several = of(2, 1);
  several.replace(several.find("[2]"), 3, "[2,3]"); // the second may have begun a character
  engine().on_body(several);
  engine().on_pause();
  move("e:2");
  CHECK(port.placed.size() == 1);
  SUBCASE("which comes") {
    engine().on_body(of(4, 1));
    engine().on_pause();
    CHECK(port.placed.size() == 2);
  }
  SUBCASE("which does not come") {
    loop.time += milliseconds{1001};
    table.sweep(loop.now());
    REQUIRE(told);
    CHECK(told->outcome == "refused");
    CHECK_FALSE(told->lasting);
    engine().on_body(of(4, 1));
    engine().on_pause();
    CHECK(port.placed.size() == 1);
  }
  SUBCASE("but its end comes") {
    auto end = of(4, 1);
    end.replace(end.find(R"("finish_reason":null)"), 20, R"("finish_reason":"stop")");
    engine().on_body(end + "data: [DONE]\n\n");
    REQUIRE(told);
    CHECK(told->outcome == "finished");
    CHECK(client->ended);
  }
  SUBCASE("but its engine is lost") {
    table.on_engine_lost("e:1");
    REQUIRE(told);
    CHECK(told->outcome == "finished");
    CHECK_FALSE(port.loads.back().planned);
  }
  CHECK_FALSE(client->events().empty());
}

TEST_CASE_FIXTURE(moving_rig, "an engine that does not take it costs neither stream nor budget") {
  config.engine_retries = 0;
  config.engine_retries_floor = 0;
  struct row {
    const char* what;
    int tokens; ///< before the move
    int status; ///< of the next engine's refusal; 0: it dies
  };
  for (auto [what, tokens, status] :
       {row{"busy", 2, 429}, row{"busy, before its first token", 0, 503}, row{"gone", 2, 0},
        row{"a refusal", 2, 400}}) {
    CAPTURE(what);
    told.reset();
    for (const auto* each : {"e:1", "e:2", "e:3"})
      engines.remove(each);
    for (const auto* each : {"e:1", "e:2", "e:3"})
      engines.put(each, {.address = each, .token_ids = true});
    auto client = begin({}, tokens);
    move("e:2");
    place("e:2");
    auto placed = port.placed.size();
    if (status == 0)
      engine().on_end({errc::unreachable, "no connection"});
    else
      answer({status, {}, "{}"});
    CHECK(port.placed.size() == placed + 1);
    CHECK_FALSE(port.loads.back().planned);
    auto& excluded = port.excluded.back();
    CHECK(std::ranges::find(excluded, "e:2") != excluded.end());
    CHECK(std::ranges::find(excluded, "e:1") == excluded.end()); // its cache has it
    bool back = status != 429;
    place(back ? "e:1" : "e:3");
    say(of(tokens, 1, tokens == 0, "d"));
    REQUIRE(told);
    CHECK(told->outcome == (back ? "failed" : "moved"));
    CHECK(told->at == (back ? "e:1" : "e:3"));
    CHECK(told->reason.starts_with("e:2 did not take it: "));
    CHECK_FALSE(client->ended);
    client->leave();
    loop.run();
  }
}

TEST_CASE_FIXTURE(moving_rig, "a placement elsewhere than was asked for is asked once more") {
  engines.put("e:3", {.address = "e:3", .token_ids = true, .models = {"other"}});
  begin();
  move("e:2");
  place("e:3"); // nobody but the excluded took work
  REQUIRE(port.placed.size() == 3);
  CHECK(port.excluded.back() == names{"e:3"});
  place("e:1");
  say(of(2, 1, false, "d"));
  REQUIRE(told);
  CHECK(told->outcome == "failed");
  CHECK(told->reason == "e:2 takes no work now; it goes on where it was");
}

TEST_CASE_FIXTURE(moving_rig, "moves do not count as attempts") {
  config.max_placements = 2;
  auto client = begin();
  for (int i = 0; i < 6; ++i) {
    told.reset();
    move(i % 2 ? "e:1" : "e:2", i % 2 ? "e:2" : "e:1");
    place(i % 2 ? "e:1" : "e:2");
    say(of(2 + i, 1, false, ("d" + std::to_string(i)).c_str()));
    REQUIRE(told);
    CHECK(told->outcome == "moved");
  }
  engine().on_end({errc::disconnected, "cut"});
  CHECK_FALSE(client->ended);
  CHECK(text(*client) == "abcdefgh");
}

TEST_CASE_FIXTURE(moving_rig, "whoever wants a move hears how the stream ended meanwhile") {
  auto client = begin();
  move("e:2");
  SUBCASE("the client leaves") {
    client->leave();
    REQUIRE(told);
    CHECK(told->outcome == "finished");
    CHECK(port.withdrawn.size() == 1);
  }
  SUBCASE("nobody can be had") {
    const auto& head = port.placed.back();
    table.on_unplaceable(
      head.stream.stream, head.epoch, {errc::no_instance, "nobody"}, loop.now());
    REQUIRE(told);
    CHECK(told->outcome == "failed");
    CHECK(told->reason == "nobody");
  }
  SUBCASE("it is wanted twice") {
    auto first = std::exchange(told, std::nullopt);
    CHECK_FALSE(first);
    table.move(
      {port.placed.back().stream.stream, "e:1", "e:3", "by hand"},
      [&](relay_moved x) { first = std::move(x); });
    REQUIRE(first);
    CHECK(first->outcome == "finished"); // it is nowhere
    CHECK_FALSE(told);
    table.give_up_all(draining);
  }
  SUBCASE("it ended in this turn of the loop") {
    place("e:2");
    client->leave();
    REQUIRE(told);
    told.reset();
    auto placed = port.placed.size();
    move("e:1", "e:2");
    CHECK(told->outcome == "finished");
    CHECK(port.placed.size() == placed);
  }
  SUBCASE("there is none of that number") {
    table.move({1, "e:1", "e:2", "by hand"}, [&](relay_moved x) { told = std::move(x); });
    CHECK(told->outcome == "finished");
    told.reset();
    table.give_up_all(draining);
  }
  loop.run();
  CHECK(table.size() == 0);
}

TEST_CASE_FIXTURE(moving_rig, "an engine that drains gets nothing new") {
  table.drain("e:1", true);
  open(true);
  CHECK(port.excluded.back() == names{"e:1"});
  auto asked = pool.asked.size();
  place("e:1"); // by somebody who does not know yet
  CHECK(pool.asked.size() == asked);
  loop.time += milliseconds{101};
  table.sweep(loop.now());
  CHECK(port.excluded.back() == names{"e:1"});
  CHECK(port.loads.back().why == "e:1 is being drained");
  place("e:2");
  CHECK(pool.asked.back().address == "e:2");
  engines.put("e:1", {.address = "e:1"}); // a look at it changes nothing
  open(true);
  CHECK(port.excluded.back() == names{"e:1"});
  table.drain("e:1", false);
  open(true);
  CHECK(port.excluded.back().empty());
}

TEST_CASE_FIXTURE(moving_rig, "a stream of token ids goes on where there is a way for them") {
  for (const auto* id : {"e:1", "e:2"})
    engines.put(id, {.address = id, .tokens = true});
  auto client = open_tokens();
  place();
  say(R"(data: {"request_id":"r","choices":[{"index":0,"finish_reason":null,"token_ids":[5,6]}]})"
      "\n\n");
  move("e:3");
  REQUIRE(told);
  CHECK(told->reason == "e:3 cannot take it: it has no /inference/v1/generate");
  CHECK_FALSE(told->lasting);
  told.reset();
  move("e:2");
  REQUIRE(port.placed.size() == 2);
  place("e:2");
  CHECK(pool.asked.back().target == "/inference/v1/generate");
  auto asked = nlohmann::json::parse(pool.asked.back().body);
  CHECK(asked["token_ids"] == std::vector<int>{7, 8, 5, 6});
  CHECK(asked["sampling_params"]["max_tokens"] == 7);
  say(R"(data: {"request_id":"q","choices":[{"index":0,"finish_reason":"length","token_ids":[4]}]})"
      "\n\ndata: [DONE]\n\n");
  REQUIRE(told);
  CHECK(told->outcome == "moved");
  CHECK(told->tokens == 4);
  CHECK(client->ended);
  CHECK(port.ended[0].output_tokens == 3);
}

TEST_CASE_FIXTURE(moving_rig, "a stream whose only engine left drains is waited for, within bounds") {
  config.wait_for_instance = milliseconds{1000};
  auto client = begin();
  loop.time += milliseconds{60000};
  say(of(2, 1, false));
  engines.remove("e:3");
  table.drain("e:2", true);
  engine().on_end({errc::disconnected, "cut"});
  int waits = 0;
  for (; !client->ended && waits < 50; ++waits) {
    place("e:2"); // by somebody who does not know yet
    loop.time += milliseconds{101};
    table.sweep(loop.now());
  }
  CHECK(client->ended);
  CHECK(waits >= 9);
  CHECK(waits <= 12);
}

} // namespace llumnix::testing
