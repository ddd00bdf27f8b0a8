#include "integrations/discovery/engine_list.hpp"

#include <doctest/doctest.h>

namespace llumnix {
namespace {

using text = std::string;

discovered_engine at(text address, text kv_address) {
  discovered_engine engine;
  engine.id = engine.address = std::move(address);
  engine.kv_address = std::move(kv_address);
  return engine;
}

} // namespace

TEST_CASE("an item of a list is an engine") {
  auto full = at("10.0.0.1:8000", "[fd00::1]:9000");
  full.role = "prefill";
  full.model = "org/m@1";
  full.dp_size = 2;
  auto second = at("h:80", "h:20080");
  second.dp_rank = 1;
  second.dp_size = 2;
  const std::pair<text, discovered_engine> rows[] = {
    {"h:1", at("h:1", "h:20001")},
    {"h", at("h:80", "h:20080")},
    {"H.Svc", at("h.svc:80", "h.svc:20080")},
    {"10.0.0.1", at("10.0.0.1:80", "10.0.0.1:20080")},
    {"[fd00::1]:8000", at("[fd00::1]:8000", "[fd00::1]:28000")},
    {"[FD00::1]", at("[fd00::1]:80", "[fd00::1]:20080")},
    {"http://h:1", at("h:1", "h:20001")},
    {"http://h", at("h:80", "h:20080")},
    {"HTTP://h:1/", at("h:1", "h:20001")},
    {"  h:1\t\r", at("h:1", "h:20001")},
    {"@h:1", at("h:1", "h:20001")},
    {"type=neutral@h:1", at("h:1", "h:20001")},
    {"aux=h:9000@h:1", at("h:1", "h:9000")},
    {"h:45535", at("h:45535", "h:65535")},
    {"h:45536", at("h:45536", "")}, // there is no port 20000 above it
    {"type=prefill;model=org/m@1;aux=[fd00::1]:9000;dp=0/2@10.0.0.1:8000", full},
    {" dp = 0/2 ; aux = [FD00::1]:9000;; type = prefill; model = org/m@1 @ http://10.0.0.1:8000/",
     full},
    {"dp=1/2@h", second},
    {"h:1 # the one in the cellar, h:2", at("h:1", "h:20001")},
  };
  for (const auto& [item, engine] : rows) {
    CAPTURE(item);
    auto list = read_engine_list(item);
    CHECK(list.problems.empty());
    REQUIRE(list.engines.size() == 1);
    CHECK(list.engines[0] == engine);
  }
}

TEST_CASE("items are told apart by commas and lines") {
  const std::pair<text, std::vector<text>> rows[] = {
    {"", {}},
    {"\n\n  ,,\r\n# nothing, here", {}},
    {"b:1,a:1", {"a:1", "b:1"}},
    {"b:1\na:1\n", {"a:1", "b:1"}},
    {"b:1,\r\n,a:1 # c:1\r\nc:2", {"a:1", "b:1", "c:2"}},
    {"h:10,h:9", {"h:10", "h:9"}}, // ordered as ids are
  };
  for (const auto& [words, addresses] : rows) {
    CAPTURE(words);
    auto list = read_engine_list(words);
    CHECK(list.problems.empty());
    std::vector<text> found;
    for (const auto& engine : list.engines)
      found.push_back(engine.id);
    CHECK(found == addresses);
  }
}

TEST_CASE("what is no engine is a problem with its line") {
  const std::pair<text, text> rows[] = {
    {"h:", "'h:' is no address; write HOST:PORT"},
    {"h:0", "'h:0' is no address; write HOST:PORT"},
    {"h:65536", "'h:65536' is no address; write HOST:PORT"},
    {"h:-1", "'h:-1' is no address; write HOST:PORT"},
    {"h:80x", "'h:80x' is no address; write HOST:PORT"},
    {":80", "':80' is no address; write HOST:PORT"},
    {"fd00::1", "'fd00::1' is no address; write HOST:PORT"},
    {"[fd00::1", "'[fd00::1' is no address; write HOST:PORT"},
    {"[fd00::1]8000", "'[fd00::1]8000' is no address; write HOST:PORT"},
    {"h:80/v1", "'h:80/v1' is no address; write HOST:PORT"},
    {"https://h:80", "'https://h:80' is no address; write HOST:PORT"},
    {"a b", "'a b' is no address; write HOST:PORT"},
    {"h\x01", "'h\\x01' is no address; write HOST:PORT"},
    {"weight=1@h:1", "'weight' is no option; there are type, model, aux and dp"},
    {"type@h:1", "'type' is no option; write OPTION=VALUE"},
    {"type=x@h:1", "type='x' is none of neutral, prefill, decode"},
    {"type=@h:1", "type='' is none of neutral, prefill, decode"},
    {"model=@h:1", "model='' is no name"},
    {"model=\xff@h:1", "model='\\xff' is no name"},
    {"aux=h@h:1", "aux='h' is not HOST:PORT"},
    {"aux=@h:1", "aux='' is not HOST:PORT"},
    {"dp=2@h:1", "dp='2' is not RANK/SIZE, like 0/2"},
    {"dp=2/2@h:1", "dp='2/2' is not RANK/SIZE, like 0/2"},
    {"dp=-1/2@h:1", "dp='-1/2' is not RANK/SIZE, like 0/2"},
    {"dp=/@h:1", "dp='/' is not RANK/SIZE, like 0/2"},
    {"dp=0/1025@h:1", "dp='0/1025' is not RANK/SIZE, like 0/2"},
    {"dp=0/99999999999999999999@h:1", "dp='0/99999999999999999999' is not RANK/SIZE, like 0/2"},
    {"g:1", "g:1 is in line 1 already"},
    {"http://G:1/", "g:1 is in line 1 already"},
  };
  for (const auto& [item, sentence] : rows) {
    CAPTURE(item);
    auto list = read_engine_list("g:1\n\n" + item + "\ni:1");
    CHECK(list.problems == std::vector<list_problem>{{3, sentence}});
    CHECK(
      list.engines == std::vector<discovered_engine>{at("g:1", "g:20001"), at("i:1", "i:20001")});
  }
  text many;
  for (int i = 0; i < 100000; ++i)
    many += "?,";
  CHECK(read_engine_list(many).problems.size() == 16);
}

} // namespace llumnix
