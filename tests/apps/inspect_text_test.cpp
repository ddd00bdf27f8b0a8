#include "apps/inspect_text.hpp"
#include "apps/text_table.hpp"

#include <doctest/doctest.h>

namespace llumnix {

TEST_CASE("a table aligns words to the left and numbers to the right, and colours no width") {
  text_table table{{"NAME", "COUNT"}};
  table.add({"a", "7"});
  table.add({{"longer", tint::green}, "1234"});
  CHECK(table.render(false) == "NAME    COUNT\na           7\nlonger   1234\n");
  CHECK(table.render(false, 2).starts_with("  NAME"));
  CHECK(table.render(true).find("\x1b[32mlonger\x1b[0m   1234") != std::string::npos);
}

TEST_CASE("status shows nodes and instances, and a dash for what is not known") {
  auto text = status_text(
    admin_document::parse(
      R"({"nodes":[{"node":"head","incarnation":1,"pid":7,"address":"127.0.0.1:1","roles":["gateway","cms"]}],
      "instances":[{"id":"engine-0","node":"engine-0","incarnation":2,"role":"neutral","state":"ready",
        "scheduling":{"waiting":3,"running":4},"kv_blocks":{"total":792,"used":10},"status_age_ms":1500,"engine":"modeled x"},
        {"id":"engine-1","state":"lost"}],"leaders":{}})"),
    false);
  CHECK(
    text
    == "NODE  LIFE  PID  ADDRESS      ROLES\n"
       "head     1    7  127.0.0.1:1  gateway,cms\n"
       "\n"
       "INSTANCE  NODE      LIFE  ROLE     STATE  RUNNING  WAITING  KV USED  KV TOTAL  STATUS AGE  "
       "ENGINE\n"
       "engine-0  engine-0     2  neutral  ready        4        3       10       792  1.5s        "
       "modeled x\n"
       "engine-1  -            -  -        lost         -        -        -         -  -           "
       "-\n");
}

TEST_CASE("status says who leads the reschedulers") {
  auto text = status_text(
    admin_document::parse(
      R"({"nodes":[],"instances":[],"leaders":{"rescheduler":"r1"},
      "terms":{"rescheduler":{"node":"r1","incarnation":2,"term":1764200000123}}})"),
    false);
  CHECK(text.ends_with("\nThe rescheduler of r1 leads, under term 1764200000123\n"));
}

TEST_CASE("empty lists are said in words") {
  CHECK(
    requests_text(admin_document::parse(R"({"requests":[]})"), false) == "No request is running\n");
  CHECK(actors_text(admin_document::object(), false) == "No actor is known\n");
  CHECK(status_text(admin_document::object(), false).ends_with("No instance is known\n"));
}

TEST_CASE("requests and actors are rows") {
  auto requests = requests_text(
    admin_document::parse(
      R"({"requests":[{"id":"r1","instance":null,"state":"queued","epoch":0,"prompt_tokens":5,
      "output_tokens":0,"age_ms":90000,"client":"127.0.0.1:5"}]})"),
    false);
  CHECK(
    requests.find("r1       -         queued      0       5       0  1.5m  127.0.0.1:5")
    != std::string::npos);
  auto actors = actors_text(
    admin_document::parse(
      R"({"actors":[{"id":"head/3","name":"gateway","role":"gateway","node":"head","mailbox":0,
      "messages":12,"busy_ms":0.25,"restarts":0,"up_ms":7200000,"state":{}}]})"),
    false);
  CHECK(
    actors.find("head/3  gateway  gateway  head        0        12  0.25ms         0  2.0h")
    != std::string::npos);
}

TEST_CASE("why tells placements with their candidates, best first, and those passed over") {
  auto text = why_text(
    admin_document::parse(R"({"id":"r1","requests":["r1"],"events":[
      {"at_ms":1000,"kind":"placed","request":"r1","instance":"engine-2","epoch":1,"reasons":{"policy":"load-balance",
        "fallback":false,"considered":5,"ranking":["engine-2","engine-1"],
        "metrics":{"engine-1":{"load":0.5},"engine-2":{"load":0.25}},
        "dropped":[{"first":"engine-3","count":3,"pass":1,"filter":"metric","metric":"load","value":0.95,"threshold":0.9},
          {"first":"engine-4","count":1,"pass":1,"filter":"attribute","reserved":"decode"}],
        "predicted":{"tpot_ms":8.25,"ttft_ms":40},"wishes":{"session":"s","ttft_slo_ms":250},"sentence":"engine-2 chosen by load"}},
      {"at_ms":1340,"kind":"replayed","instance":"engine-1","epoch":2,"reasons":{},"note":"engine-2 was lost"},
      {"at_ms":3500,"kind":"finished","reasons":{},"note":"stop, 12 tokens"}]})"),
    false);
  CHECK(
    text
    == "Request r1\n"
       "      +0ms  placed on engine-2, epoch 1\n"
       "             policy load-balance, 5 candidates\n"
       "             -> engine-2  load 0.25\n"
       "                engine-1  load 0.5\n"
       "             not engine-3 and 2 more: filter metric, load 0.95 against 0.9\n"
       "             not engine-4: filter attribute, reserved for decode\n"
       "             predicted tpot_ms 8.25  ttft_ms 40\n"
       "             asked for session s  ttft_slo_ms 250\n"
       "             engine-2 chosen by load\n"
       "    +340ms  replayed on engine-1, epoch 2: engine-2 was lost\n"
       "     +2.5s  finished: stop, 12 tokens\n");
}

TEST_CASE("why tells what was in a request's way, and who chose where nobody says among whom") {
  auto text = why_text(
    admin_document::parse(R"({"id":"r1","requests":["r1"],"events":[
      {"at_ms":1000,"kind":"waiting","reasons":{"policy":"slo","fallback":false,"considered":1,"ranking":[],"metrics":{},
        "dropped":[{"first":"a","count":1,"pass":1,"filter":"metric","metric":"predicted_ttft","value":20,"threshold":0.85}],
        "sentence":"none of 1 candidates can take work; dropped: 1 by predicted_ttft"},
        "note":"none of 1 candidates can take work; dropped: 1 by predicted_ttft"},
      {"at_ms":1010,"kind":"placed","instance":"a","epoch":0,"reasons":{"policy":"remote","considered":0,
        "sentence":"a chosen by remote","note":"placed by another scheduler: gateway.scheduler"}}]})"),
    false);
  CHECK(
    text
    == "Request r1\n"
       "      +0ms  waiting: none of 1 candidates can take work; dropped: 1 by predicted_ttft\n"
       "             policy slo, 1 candidate\n"
       "             not a: filter metric, predicted_ttft 20 against 0.85\n"
       "     +10ms  placed on a, epoch 0\n"
       "             policy remote\n"
       "             a chosen by remote\n"
       "             placed by another scheduler: gateway.scheduler\n");
}

TEST_CASE("why tells what a request took beside what was predicted, as far as either is known") {
  auto shown = [](const std::string& times) {
    return why_text(
      admin_document::parse(
        R"({"id":"r","events":[{"at_ms":0,"kind":"finished","reasons":{},"times":)" + times
        + "}]}"),
      false);
  };
  CHECK(
    shown(
      R"({"placed_ms":0.25,"ttft_ms":1241,"tpot_ms":8.5,"predicted_ttft_ms":1200,"predicted_tpot_ms":8})")
    == "Request r\n"
       "      +0ms  finished\n"
       "             first token after 1.2s, 0.25ms of it until it was placed; from there on 1.2s "
       "were predicted\n"
       "             8.5ms for each token after it; 8ms were predicted\n");
  CHECK(
    shown(R"({"placed_ms":2,"ttft_ms":30})")
    == "Request r\n"
       "      +0ms  finished\n"
       "             first token after 30ms, 2ms of it until it was placed\n");
  CHECK(shown("{}") == "Request r\n      +0ms  finished\n");
}

TEST_CASE("a document of another shape is no reason to fail") {
  for (auto text :
       {R"({"events":7})", R"({"events":[1,null,{"reasons":[]}]})",
        R"({"instances":{"a":1},"nodes":[5]})"}) {
    CAPTURE(text);
    auto document = admin_document::parse(text);
    CHECK(why_text(document, false).starts_with("Request -\n"));
    CHECK_FALSE(status_text(document, true).empty());
  }
}

TEST_CASE("each move is a sentence: where to, how, and what it cost; or why not") {
  auto text = moves_text(
    admin_document::parse(R"({"moves":[
      {"request":"sea","from":"engine-0","to":"engine-1","outcome":"moved","reason":null,"path":"kv",
        "rounds":2,"bytes":1258291,"downtime_ms":0.4,"epoch":1},
      {"request":"lake","from":"engine-0","to":"engine-1","outcome":"moved","path":"recompute",
        "rounds":1,"bytes":0,"downtime_ms":1500},
      {"request":"fjord","from":"engine-0","to":"engine-1","outcome":"moved","path":"recompute",
        "reason":"no kv: other blocks","rounds":1,"bytes":0,"downtime_ms":2},
      {"request":"brook","from":"a:1","to":"b:1","outcome":"moved","path":"replay","tail_tokens":412,
        "rounds":0,"bytes":0,"downtime_ms":38.2},
      {"request":"pond","outcome":"finished","reason":"it ended"},
      {"request":null,"from":"engine-0","outcome":"refused","reason":"engine-1 is draining"},
      {}]})"),
    false);
  CHECK(
    text
    == "sea moved from engine-0 to engine-1 by kv: 2 rounds, 1.2MiB, 0.4ms between two steps\n"
       "lake moved from engine-0 to engine-1 by recompute: 1 round, 0B, 1.5s between two steps\n"
       "fjord moved from engine-0 to engine-1 by recompute: 1 round, 0B, 2ms between two steps; no "
       "kv: other blocks\n"
       "brook moved from a:1 to b:1 by replay: 412 tokens computed anew, 38.2ms without one\n"
       "pond finished: it ended\n"
       "from engine-0 refused: engine-1 is draining\n"
       "from - -\n");
  CHECK(moves_text(admin_document::parse(R"({"moves":[]})"), false).starts_with("Nothing moved"));
}

TEST_CASE("a drain's end is told in numbers, and why it is none") {
  CHECK(
    drain_text(admin_document::parse(R"({"instance":"engine-1","moved":38,"finished":3,"left":0})"))
    == "engine-1: 38 moved, 3 finished, 0 left\n");
  CHECK(
    drain_text(admin_document::parse(
      R"({"instance":"engine-1","moved":0,"finished":0,"left":2,"reason":"2 requests are there"})"))
    == "engine-1: 0 moved, 0 finished, 2 left; 2 requests are there\n");
}

TEST_CASE("a request is named by either form of its id, and by any letters in a path") {
  using row = std::pair<const char*, const char*>;
  for (auto [given, bare] :
       {row{"chatcmpl-a", "a"}, row{"cmpl-a", "a"}, row{"a", "a"}, row{"chatcmpl-", "chatcmpl-"},
        row{"chatcmpl-cmpl-a", "cmpl-a"}})
    CHECK(bare_request_id(given) == bare);
  CHECK(path_segment("a_.:-9") == "a_.:-9");
  CHECK(path_segment("a/b?c %") == "a%2Fb%3Fc%20%25");
}

} // namespace llumnix
