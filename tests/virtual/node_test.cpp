#include "actors/node_actor.hpp"
#include "actors/protocol/caf_error.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <map>
#include <string>
#include <unistd.h>

namespace llumnix::testing {

namespace {

/// Catches what is logged while it lives.
class captured_log {
public:
  captured_log() {
    std::FILE* scratch = std::tmpfile();
    REQUIRE(scratch != nullptr);
    file_ = ::dup(::fileno(scratch));
    std::fclose(scratch);
    before_ = ::dup(STDERR_FILENO);
    ::dup2(file_, STDERR_FILENO);
    log::configure({.threshold = log::level::info, .json = false, .node = {}});
  }
  ~captured_log() {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
    ::close(file_);
  }

  std::string text() const {
    std::string all(static_cast<std::size_t>(::lseek(file_, 0, SEEK_END)), '\0');
    auto got = ::pread(file_, all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return all;
  }
  std::size_t count(const std::string& words) const {
    const auto all = text();
    std::size_t found = 0;
    for (auto at = all.find(words); at != std::string::npos; at = all.find(words, at + 1))
      ++found;
    return found;
  }
  std::size_t warnings() const { return count(" W node "); }

private:
  int file_;
  int before_;
};

/// NODE actors in one process that find each other through a book of addresses.
struct neighborhood : stage {
  struct resident {
    node_actor node;
    std::vector<peer_up_msg> ups;
    std::vector<peer_down_msg> downs;
  };

  ~neighborhood() {
    for (auto& x : residents)
      caf::anon_send_exit(x->node, caf::exit_reason::kill);
    book.clear();
    run();
  }

  /// A node that listens on `address`; its one role writes down who comes and goes.
  resident& start(
    node_life life, const std::string& address, std::vector<std::string> roles,
    std::vector<std::string> seeds = {}) {
    residents.push_back(std::make_unique<resident>());
    auto& x = *residents.back();
    node_actor_config settings;
    settings.knobs.name = life.node;
    settings.knobs.roles = std::move(roles);
    settings.knobs.seeds = std::move(seeds);
    settings.life = std::move(life);
    settings.counters = std::make_shared<node_counters>();
    settings.connector = connector();
    settings.roles.push_back(
      {"witness",
       [&x](caf::local_actor& parent, const node_actor&) {
         auto made = parent.spawn([&x](caf::event_based_actor*) -> caf::behavior {
           return {
             [&x](const peer_up_msg& msg) { x.ups.push_back(msg); },
             [&x](const peer_down_msg& msg) { x.downs.push_back(msg); }};
         });
         return caf::actor_cast<caf::strong_actor_ptr>(made);
       },
       [](node_card&, const caf::strong_actor_ptr&) {}});
    x.node = system->spawn(make_node, std::move(settings));
    book[address] = x.node;
    caf::anon_send(x.node, listening_msg{address});
    run();
    return x;
  }
  resident& head(std::uint64_t incarnation = 1) {
    return start({"head", incarnation}, "head:1", {"gateway", "cms"});
  }
  resident& engine(std::uint64_t incarnation, const std::string& address) {
    return start({"e0", incarnation}, address, {"llumlet"}, {"head:1"});
  }

  void stop(resident& x) { caf::anon_send(x.node, stop_node_msg{}); }
  void kill(resident& x) {
    caf::anon_send_exit(x.node, caf::exit_reason::kill);
    run();
  }
  /// Nobody listens there any more.
  void close(const std::string& address) { book.erase(address); }
  void wait(std::chrono::milliseconds time) {
    for (; time > 0ms; time -= 10ms)
      pass(10ms);
  }
  static std::vector<std::string> peers(const resident& x) {
    std::vector<std::string> names;
    const auto* actor = caf::actor_cast<caf::abstract_actor*>(x.node);
    for (const auto& [name, peer] :
         static_cast<const std::remove_pointer_t<node_state::pointer>*>(actor)->state.peers)
      names.push_back(name + "/" + std::to_string(peer.hello.card.self.life.incarnation));
    return names;
  }

  connector_actor connector() {
    return system->spawn([this](connector_actor::pointer) -> connector_actor::behavior_type {
      return {[this](const dial_msg& msg) -> caf::result<dialled_msg> {
        if (interrupted > 0) {
          --interrupted;
          return caf::error{caf::sec::connection_timeout};
        }
        auto found = book.find(msg.address);
        if (found == book.end())
          return to_caf({errc::unreachable, "nobody listens"});
        return dialled_msg{found->second};
      }};
    });
  }

  std::map<std::string, node_actor> book;
  int interrupted = 0; ///< that many handshakes from now on meet a heartbeat
  std::vector<std::unique_ptr<resident>> residents;
};

using names = std::vector<std::string>;

} // namespace

TEST_CASE("a node that stops in order is lost at once, and nobody is alarmed") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  auto& engine = town.engine(1, "e:1");
  REQUIRE(town.peers(head) == names{"e0/1"});
  for (bool engine_goes : {true, false}) {
    CAPTURE(engine_goes);
    auto& goes = engine_goes ? engine : head;
    auto& stays = engine_goes ? head : town.engine(2, "e:2");
    town.close(engine_goes ? "e:1" : "head:1");
    auto before = stays.downs.size();
    town.stop(goes);
    town.run(); // no time passes
    CHECK(stays.downs.size() == before + 1);
    CHECK(town.peers(stays).empty());
    town.wait(5s); // it is dialled in vain
    CHECK(logged.warnings() == 0);
  }
  CHECK(logged.count(" I node peer-left: e0 (incarnation 1) has stopped") == 1);
  CHECK(logged.count(" I node peer-left: head (incarnation 1) has stopped") == 1);
  town.head(2);
  town.wait(3s);
  CHECK(logged.count(" I node peer-up: head (incarnation 2) at head:1") == 1);
  CHECK(logged.warnings() == 0);
}

TEST_CASE("nodes that all stop at once say nothing of each other") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  auto& engine = town.engine(1, "e:1");
  town.book.clear();
  town.stop(head);
  town.stop(engine);
  town.wait(1s);
  CHECK(logged.warnings() == 0);
}

TEST_CASE("a node that ends without a word is a warning, and so is its return") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  auto& engine = town.engine(1, "e:1");
  SUBCASE("an engine") {
    town.kill(engine);
    CHECK(logged.count(" W node peer-down: e0 (incarnation 1) is not connected any more") == 1);
    town.wait(2300ms);
    town.engine(2, "e:2");
    CHECK(
      logged.count(" W node peer-back: e0 (incarnation 2) is connected again after 2.3 s") == 1);
    CHECK(logged.warnings() == 2);
    CHECK(head.downs.size() == 1);
  }
  SUBCASE("the head, which is dialled meanwhile") {
    town.kill(head);
    town.close("head:1");
    town.wait(10s);
    CHECK(logged.count(" W node dial-failed: head:1: ") == 1);
    town.head(2);
    town.wait(3s);
    CHECK(logged.count(" W node peer-back: head (incarnation 2) is connected again after 1") == 1);
    CHECK(logged.count("peer-up: head (incarnation 2)") == 0);
    CHECK(logged.warnings() == 3);
  }
}

TEST_CASE("a seed that could not be reached is a warning, and so is that it can") {
  captured_log logged;
  neighborhood town;
  town.engine(1, "e:1");
  town.wait(5s);
  CHECK(logged.count(" W node dial-failed: head:1: ") == 1);
  town.head();
  town.wait(3s);
  CHECK(logged.count(" W node peer-up: head (incarnation 1) at head:1") == 1);
  CHECK(logged.warnings() == 2);
}

TEST_CASE("a handshake that meets a heartbeat is tried again, and told of when it is no accident") {
  captured_log logged;
  neighborhood town;
  town.head();
  struct row {
    int interrupted;
    std::size_t warnings; ///< that it fails, and that it does no more
  };
  std::uint64_t life = 0;
  for (auto [interrupted, warnings] : {row{1, 0}, row{2, 0}, row{3, 2}, row{9, 2}}) {
    CAPTURE(interrupted);
    auto before = logged.warnings();
    town.interrupted = interrupted;
    ++life;
    auto& engine = town.engine(life, "e:" + std::to_string(life));
    town.wait(10s);
    CHECK(town.peers(engine) == names{"head/1"});
    CHECK(logged.warnings() == before + warnings);
    town.stop(engine);
    town.run();
  }
}

TEST_CASE("of two live nodes with one name the newer is taken, and both sides say so once") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  auto& older = town.engine(5, "old:1");
  auto& newer = town.engine(9, "new:1");
  CHECK(town.peers(head) == names{"e0/9"});
  CHECK(logged.count(" W node name-taken: e0 is taken over by incarnation 9 from new:1") == 1);
  CHECK(
    logged.count(
      " W node name-taken: head has another node of our name: e0 is incarnation 9 at new:1 there; "
      "give one of the two another --name")
    == 1);
  CHECK(town.peers(older).empty());
  CHECK(older.downs.size() == 1); // whose streams it runs for is gone
  town.wait(60s);                 // the older one tries again
  CHECK(town.peers(head) == names{"e0/9"});
  CHECK(logged.warnings() == 2);
  town.kill(newer);
  town.wait(3s);
  CHECK(town.peers(head) == names{"e0/5"});
  CHECK(town.peers(older) == names{"head/1"});
  CHECK(logged.count(" W node peer-back: head (incarnation 1) is connected again after 6") == 1);
  CHECK(logged.count(" W node peer-back: e0 (incarnation 5)") == 1);
}

TEST_CASE("a node whose name a newer one has already is turned away, and both sides say so once") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  town.engine(9, "new:1");
  struct row {
    const char* what;
    std::uint64_t incarnation;
  };
  for (auto [what, incarnation] : {row{"an earlier life", 5}, row{"the same number", 9}}) {
    CAPTURE(what);
    auto before = logged.warnings();
    auto address = "late:" + std::to_string(incarnation);
    auto& late = town.engine(incarnation, address);
    town.wait(30s);
    CHECK(town.peers(head) == names{"e0/9"});
    CHECK(town.peers(late).empty());
    CHECK(
      logged.count(
        " W node name-taken: e0 (incarnation " + std::to_string(incarnation) + ") at " + address
        + " is turned away: incarnation 9 at new:1 has its name")
      == 1);
    CHECK(logged.warnings() == before + 2);
  }
  CHECK(
    logged.count("name-taken: head:1 has another node of our name: e0 is incarnation 9 at new:1 "
                 "here; give one")
    == 2);
}

TEST_CASE("two heads with one name tell each other, and a node that dials itself is no stranger") {
  captured_log logged;
  neighborhood town;
  town.head(1);
  town.book["alias:1"] = town.book["head:1"];
  auto& second = town.start({"head", 2}, "head:2", {"gateway"}, {"head:1"});
  town.wait(10s);
  CHECK(town.peers(second).empty());
  CHECK(logged.count("name-taken: head:1 has another node of our name: this is head too") == 1);
  CHECK(logged.count("name-taken: head (incarnation 2) at head:2 is turned away") == 1);
  CHECK(logged.warnings() == 2);
  auto& third = town.start({"solo", 1}, "solo:1", {"gateway"}, {"solo:2"});
  town.book["solo:2"] = third.node;
  town.wait(3s);
  CHECK(logged.warnings() == 3); // until the alias led to it, it led nowhere
  CHECK(logged.count("dial-failed: solo:2") == 1);
}

TEST_CASE("words in another node's name change nothing") {
  captured_log logged;
  neighborhood town;
  auto& head = town.head();
  town.engine(2, "e:1");
  caf::anon_send(head.node, goodbye_msg{{"e0", 1}}); // an earlier life, late
  caf::anon_send(head.node, goodbye_msg{{"nobody", 1}});
  caf::anon_send(head.node, name_taken_msg{{"e0", 1}, {{"head", 7}, "x:1", {}}});
  caf::anon_send(head.node, name_taken_msg{{"e0", 2}, {{"other", 7}, "x:1", {}}});
  caf::anon_send(head.node, name_taken_msg{{"e0", 2}, {{"head", 1}, "x:1", {}}});
  town.wait(100ms);
  CHECK(town.peers(head) == names{"e0/2"});
  CHECK(logged.warnings() == 0);
}

namespace {

/// Roles whose actors do nothing but be there; `started` counts how often each was.
struct helpers {
  role_spec role(const std::string& name) {
    auto start = [this, name](caf::local_actor& parent, const node_actor&) {
      ++started[name];
      actors[name] = parent.spawn([this, name](caf::event_based_actor*) -> caf::behavior {
        return {[this, name](const peer_up_msg& msg) { heard[name].push_back(msg.card); }};
      });
      return caf::actor_cast<caf::strong_actor_ptr>(actors[name]);
    };
    auto announce = [name](node_card& card, const caf::strong_actor_ptr& actor) {
      instance_metadata metadata;
      metadata.instance_id = name;
      card.instances.push_back({metadata, "scripted", caf::actor_cast<llumlet_actor>(actor)});
    };
    return {name, start, announce, name};
  }

  std::map<std::string, int> started;
  std::map<std::string, caf::actor> actors; ///< the latest of each
  std::map<std::string, std::vector<node_card>> heard;
};

/// The instances on a card; "(a)" is being started again.
names instances(const node_card& card) {
  names all;
  for (const auto& each : card.instances)
    all.push_back(each.metadata.instance_id);
  for (const auto& id : card.starting)
    all.push_back("(" + id + ")");
  return all;
}

} // namespace

TEST_CASE("roles come and go while a node runs, and its peers see it") {
  captured_log logged;
  helpers some;
  neighborhood town;
  auto& head = town.head();
  auto& engine = town.engine(1, "e:1");
  auto seen = [&] { return instances(head.ups.back().card); };
  auto change = [&](names stop, const names& start) {
    role_changes_msg msg{std::move(stop), {}};
    for (const auto& name : start)
      msg.start.push_back(some.role(name));
    caf::anon_send(engine.node, msg);
    town.run();
  };
  change({}, {"a", "b"});
  CHECK(seen() == names{"a", "b"});
  REQUIRE(some.heard["a"].size() == 2); // whom the node knew, then itself
  CHECK(some.heard["a"].front().self.life.node == "head");
  CHECK(instances(some.heard["a"].back()) == names{"a", "b"});

  SUBCASE("one that fails is started again, and was there all the time") {
    caf::anon_send_exit(some.actors["a"], caf::exit_reason::unhandled_exception);
    town.run();
    CHECK(seen() == names{"b", "(a)"});
    town.wait(200ms);
    CHECK(some.started["a"] == 2);
    CHECK(seen() == names{"a", "b"});
    CHECK(logged.count(" W node child-down: a ended: ") == 1);
  }
  SUBCASE("one that is ended is not, and nobody is alarmed") {
    auto before = town.system->registry().running();
    change({"a", "nobody"}, {});
    CHECK(seen() == names{"b"});
    town.wait(1s);
    CHECK(town.system->registry().running() == before - 1);
    CHECK(some.started["a"] == 1);
    CHECK(seen() == names{"b"});
    CHECK(logged.warnings() == 0);
  }
  SUBCASE("one that is ended while it waits to be started again stays away") {
    caf::anon_send_exit(some.actors["a"], caf::exit_reason::unhandled_exception);
    town.run();
    change({"a"}, {});
    CHECK(seen() == names{"b"});
    town.wait(1s);
    CHECK(some.started["a"] == 1);
    caf::anon_send_exit(
      some.actors["b"], caf::exit_reason::unhandled_exception); // who comes after it is found
    town.wait(1s);
    CHECK(some.started["b"] == 2);
    CHECK(seen() == names{"b"});
  }
  SUBCASE("one is replaced by another of its name") {
    auto before = some.actors["a"];
    auto told = head.ups.size();
    change({"a"}, {"a"});
    CHECK(head.ups.size() == told + 1);
    CHECK(seen() == names{"b", "a"});
    CHECK(some.actors["a"] != before);
    town.wait(1s);
    CHECK(some.started["a"] == 2);
    CHECK(logged.warnings() == 0);
  }
  SUBCASE("all end with the node") {
    auto before = town.system->registry().running();
    some.actors.clear();
    town.stop(engine);
    town.run();
    CHECK(town.system->registry().running() <= before - 4); // the node, its witness, a and b
    change({}, {"c"});
    CHECK(some.started["c"] == 0);
  }
}

} // namespace llumnix::testing
