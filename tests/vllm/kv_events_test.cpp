#include "integrations/vllm/kv_events.hpp"
#include "runtime/scheduling/prefix_index.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {
namespace {

using names = std::vector<std::uint64_t>;
using ids = std::vector<token_id>;

// msgpack, in the few of its forms that are needed here.

std::string bytes(std::initializer_list<int> all) {
  std::string made;
  for (auto each : all)
    made.push_back(static_cast<char>(each));
  return made;
}

std::string number(std::uint64_t it) {
  if (it < 128)
    return bytes({static_cast<int>(it)});
  std::string made = "\xcf";
  for (int shift = 56; shift >= 0; shift -= 8)
    made.push_back(static_cast<char>(it >> shift));
  return made;
}

std::string text(std::string_view it) {
  return (it.size() < 32 ? bytes({0xa0 + static_cast<int>(it.size())})
                         : bytes({0xd9, static_cast<int>(it.size())}))
         + std::string{it};
}

std::string array(const std::vector<std::string>& items) {
  std::string made
    = bytes({0xdc, static_cast<int>(items.size() >> 8), static_cast<int>(items.size() & 255)});
  for (const auto& it : items)
    made += it;
  return made;
}

std::string numbers(const std::vector<std::uint64_t>& all) {
  std::vector<std::string> items;
  for (auto each : all)
    items.push_back(number(each));
  return array(items);
}

using fields = std::vector<std::pair<std::string, std::string>>;

std::string map(const fields& all) {
  auto made = bytes({0x80 + static_cast<int>(all.size())});
  for (const auto& [key, value] : all)
    made += text(key) + value;
  return made;
}

const std::string nil = "\xc0";
const std::string time_of_day = bytes({0xcb, 0x41, 0xd9, 0, 0, 0, 0, 0, 0}); // a double

std::string batch(const std::vector<std::string>& events) {
  return array({time_of_day, array(events), number(0)});
}

fields stored_fields() {
  return {{"type", text("BlockStored")},     {"block_hashes", numbers({7, 8})},
          {"parent_block_hash", nil},        {"token_ids", numbers({1, 2, 3, 4})},
          {"block_size", number(2)},         {"lora_id", nil},
          {"medium", text("GPU")},           {"lora_name", nil},
          {"extra_keys", array({nil, nil})}, {"group_idx", number(0)}};
}

/// A stored event with one field changed, added, or (with an empty value) left out.
std::string stored_with(const std::string& key, const std::string& value) {
  fields all;
  bool found = false;
  for (auto& [name, old] : stored_fields()) {
    found = found || name == key;
    if (name != key)
      all.emplace_back(name, old);
    else if (!value.empty())
      all.emplace_back(name, value);
  }
  if (!found)
    all.emplace_back(key, value);
  return map(all);
}

kv_event event_of(const std::string& event) {
  auto read = read_kv_events(batch({event}));
  REQUIRE(read);
  REQUIRE(read->events.size() == 1);
  return read->events[0];
}

std::uint32_t
held(prefix_index& index, const instance_id& instance, const ids& tokens, std::uint64_t adapter) {
  std::vector<std::uint32_t> all;
  index.match(tokens, adapter, all);
  auto number = index.number_of(instance);
  return number ? all.at(*number) : 0;
}

} // namespace

TEST_CASE("what is no batch of KV events is refused") {
  auto good = map(stored_fields());
  struct row {
    const char* what;
    std::string payload;
  };
  std::string deep(100'000, '\x91');
  for (const auto& [what, payload] :
       {row{"nothing", ""},
        row{"a number", number(1)},
        row{"nil", nil},
        row{"text", text("hi")},
        row{"an empty array", array({})},
        row{"no events", array({time_of_day})},
        row{"a map without events", map({{"ts", time_of_day}})},
        row{"events that are nil", array({time_of_day, nil})},
        row{"events that are a map", array({time_of_day, map({})})},
        row{"events twice", map({{"events", array({})}, {"events", array({})}})},
        row{"a time that is text", array({text("noon"), array({})})},
        row{"a rank that is text", array({time_of_day, array({}), text("0")})},
        row{"a rank below 0", array({time_of_day, array({}), bytes({0xff})})},
        row{"a rank of 33 bits", array({time_of_day, array({}), number(1ull << 32)})},
        row{"an event that is a number", batch({number(1)})},
        row{"an event without type", batch({map({{"block_hashes", numbers({1})}})})},
        row{"an empty event", batch({map({})})},
        row{"an empty event", batch({array({})})},
        row{"a type that is a number", batch({map({{"type", number(1)}})})},
        row{"something after the end", batch({good}) + nil},
        row{"half of it", batch({good}).substr(0, 60)},
        row{"an array that promises too much", bytes({0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0})},
        row{"text that promises too much", bytes({0x92, 0xdb, 0xff, 0xff, 0xff, 0xff, 0x41})},
        row{"a byte that msgpack never uses", bytes({0xc1})},
        row{"keys that are no text", bytes({0x81, 0x01, 0x01})},
        row{"a deep hole", deep},
        row{"a deep hole in what is skipped", array({time_of_day, array({}), nil, deep})},
        row{"a deep hole among extra keys", batch({stored_with("extra_keys", deep)})}}) {
    CAPTURE(what);
    auto read = read_kv_events(payload);
    REQUIRE_FALSE(read);
    CHECK(read.error().code == errc::bad_message);
  }
  auto read = read_kv_events(std::string(kv_payload_max + 1, '\x90'));
  REQUIRE_FALSE(read);
  CHECK(read.error().code == errc::too_long);
}

TEST_CASE("an event that lacks sense spoils its batch") {
  struct row {
    const char* field;
    std::string value; ///< empty: left out
  };
  for (const auto& [field, value] :
       {row{"block_hashes", ""},
        row{"block_hashes", nil},
        row{"block_hashes", number(7)},
        row{"block_hashes", array({nil})},
        row{"block_hashes", array({time_of_day})},
        row{"block_hashes", array({text("7")})},
        row{"block_hashes", array({array({})})},
        row{"block_hashes", map({})},
        row{"parent_block_hash", text("7")},
        row{"parent_block_hash", array({})},
        row{"token_ids", ""},
        row{"token_ids", nil},
        row{"token_ids", array({bytes({0xff})})},
        row{"token_ids", numbers({1ull << 32})},
        row{"token_ids", array({numbers({1, 2})})},
        row{"block_size", ""},
        row{"block_size", number(0)},
        row{"block_size", number(65'537)},
        row{"block_size", bytes({0xff})},
        row{"block_size", time_of_day},
        row{"block_size", nil},
        row{"lora_id", text("a")},
        row{"lora_name", number(1)},
        row{"medium", number(1)},
        row{"extra_keys", number(1)},
        row{"extra_keys", map({})},
        row{"group_idx", bytes({0xff})},
        row{"group_idx", text("0")},
        row{"kv_cache_spec_kind", number(1)},
        row{"locality", number(1)}}) {
    CAPTURE(field);
    CHECK_FALSE(read_kv_events(batch({stored_with(field, value)})));
  }
  CHECK_FALSE(read_kv_events(batch({map({{"type", text("BlockRemoved")}})})));
  auto twice = stored_fields();
  twice.emplace_back("token_ids", numbers({1}));
  CHECK_FALSE(read_kv_events(batch({map(twice)})));
}

TEST_CASE("bytes as a vLLM sends them") {
  // [1.0, [{"type": "BlockStored", "block_hashes": [2^63 + 5], "parent_block_hash": 255,
  //   "token_ids": [173, 3], "block_size": 2, ...}, {"type": "AllBlocksCleared"}], 1]
  auto payload = bytes({0x93, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x92, 0x8b})
                 + "\xa4type\xab"
                   "BlockStored\xac"
                   "block_hashes"
                 + bytes({0x91, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 5}) + "\xb1parent_block_hash"
                 + bytes({0xcc, 0xff}) + "\xa9token_ids" + bytes({0x92, 0xcc, 173, 3}) + "\xaa"
                 + "block_size\x02\xa7lora_id\xc0\xa6medium" + "\xa3GPU\xa9lora_name\xc0\xaa"
                 + "extra_keys\x91\xc0\xa9group_idx" + bytes({0}) + "\xb2kv_cache_spec_kind\xae"
                 + "full_attention" + bytes({0x81}) + "\xa4type\xb0" + "AllBlocksCleared"
                 + bytes({1});
  auto read = read_kv_events(payload);
  REQUIRE(read);
  CHECK(read->rank == 1);
  CHECK(read->unknown == 0);
  REQUIRE(read->events.size() == 2);
  const auto& stored = read->events[0];
  CHECK(stored.happened == kv_event::what::stored);
  CHECK(stored.counts);
  CHECK(stored.hashes == names{(1ull << 63) + 5});
  CHECK(stored.parent == 255);
  CHECK(stored.tokens == ids{173, 3});
  CHECK(stored.block_tokens == 2);
  CHECK(stored.adapter == 0);
  CHECK(stored.extras.empty());
  CHECK(read->events[1].happened == kv_event::what::cleared);
}

TEST_CASE("batches and events may be arrays or maps") {
  auto stored = array(
    {text("BlockStored"), numbers({7, 8}), number(6), numbers({1, 2, 3, 4}), number(2), nil,
     text("GPU")});
  auto removed = array({text("BlockRemoved"), numbers({7}), text("CPU")});
  auto cleared = array({text("AllBlocksCleared")});
  auto events = array({stored, removed, cleared});
  for (const auto& payload :
       {array({time_of_day, events}), array({time_of_day, events, nil, text("more"), array({nil})}),
        map({{"ts", number(1)}, {"events", events}}),
        map({{"later", array({array({nil})})}, {"events", events}, {"ts", time_of_day}})}) {
    auto read = read_kv_events(payload);
    REQUIRE(read);
    CHECK_FALSE(read->rank);
    REQUIRE(read->events.size() == 3);
    CHECK(read->events[0].hashes == names{7, 8});
    CHECK(read->events[0].parent == 6);
    CHECK(read->events[0].tokens == ids{1, 2, 3, 4});
    CHECK(read->events[0].block_tokens == 2);
    CHECK(read->events[0].counts);
    CHECK(read->events[1].happened == kv_event::what::removed);
    CHECK(read->events[1].hashes == names{7});
    CHECK_FALSE(read->events[1].counts);
    CHECK(read->events[2].happened == kv_event::what::cleared);
    CHECK(read->events[2].counts);
  }
  auto ranked = read_kv_events(map({{"data_parallel_rank", number(3)}, {"events", array({})}}));
  REQUIRE(ranked);
  CHECK(ranked->rank == 3);
}

TEST_CASE("what a later release adds is skipped") {
  auto event = event_of(stored_with("news", array({map({{"a", array({nil})}}), nil})));
  CHECK(event.hashes == names{7, 8});
  // A kind nobody knows may use the same names for something else.
  auto read = read_kv_events(batch(
    {map({{"block_hashes", text("all")}, {"type", text("BlocksMoved")}}),
     array({text("BlocksMoved"), map({}), array({nil})}), map(stored_fields())}));
  REQUIRE(read);
  CHECK(read->unknown == 2);
  REQUIRE(read->events.size() == 1);
  CHECK(read->events[0].hashes == names{7, 8});
}

TEST_CASE("names of blocks may be bytes, and below 0") {
  auto some = bytes({0xc4, 3, 1, 2, 3});
  auto others = bytes({0xc4, 3, 1, 2, 4});
  auto event = event_of(stored_with(
    "block_hashes", array({some, others, some, bytes({0xff}), number(~0ull), number(1)})));
  REQUIRE(event.hashes.size() == 6);
  CHECK(event.hashes[0] != event.hashes[1]);
  CHECK(event.hashes[0] == event.hashes[2]);
  CHECK(event.hashes[3] == event.hashes[4]); // the same 64 bits
  CHECK(event.hashes[5] == 1);
  CHECK(event_of(stored_with("parent_block_hash", some)).parent == event.hashes[0]);
}

TEST_CASE("adapters are told by name, else by number") {
  CHECK(event_of(stored_with("lora_name", text("poet"))).adapter == adapter_digest("poet"));
  auto by_number = event_of(stored_with("lora_id", number(3))).adapter;
  CHECK(by_number != 0);
  CHECK(by_number != event_of(stored_with("lora_id", number(4))).adapter);
  CHECK(by_number != adapter_digest("poet"));
  CHECK(adapter_digest("") != 0);
}

TEST_CASE("extra keys tell blocks apart, but for the adapter's own name") {
  auto extras = [](const std::string& first, const std::string& lora = nil) {
    auto all = stored_fields();
    all[7].second = lora;
    all[8].second = array({first, nil});
    return event_of(map(all)).extras;
  };
  auto salt = extras(array({text("salt")}));
  REQUIRE(salt.size() == 2);
  CHECK(salt[0] != 0);
  CHECK(salt[1] == 0);
  CHECK(salt == extras(array({text("salt")})));
  CHECK(salt == extras(array({text("poet"), text("salt")}), text("poet")));
  CHECK(extras(array({text("poet")}), text("poet")).empty());
  CHECK(extras(array({})).empty());
  std::vector<names> apart{
    salt,
    extras(array({text("pepper")})),
    extras(array({text("salt"), text("pepper")})),
    extras(array({text("pepper"), text("salt")})),
    extras(array({bytes({0xc4, 4}) + "salt"})),
    extras(array({array({text("image"), number(1)})})),
    extras(array({array({text("image"), number(2)})})),
    extras(array({text("image"), number(1)})),
    extras(array({array({text("image")}), array({number(1)})})),
    extras(array({array({array({text("image")}), number(1)})})),
    extras(array({map({{"image", number(1)}})})),
  };
  for (std::size_t i = 0; i < apart.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      CAPTURE(i);
      CAPTURE(j);
      CHECK(apart[i] != apart[j]);
    }
}

TEST_CASE("only whole prefixes in the engine's own memory count") {
  struct row {
    const char* field;
    const char* value;
    bool counts;
  };
  for (auto [field, value, counts] :
       {row{"medium", "GPU", true}, row{"medium", "CPU", false}, row{"medium", "", false},
        row{"locality", "LOCAL", true}, row{"locality", "REMOTE", false},
        row{"kv_cache_spec_kind", "full_attention", true},
        row{"kv_cache_spec_kind", "sink_full_attention", true},
        row{"kv_cache_spec_kind", "mla_attention", true},
        row{"kv_cache_spec_kind", "unknown", true},
        row{"kv_cache_spec_kind", "sliding_window", false},
        row{"kv_cache_spec_kind", "mamba", false}}) {
    CAPTURE(value);
    CHECK(event_of(stored_with(field, text(value))).counts == counts);
  }
  CHECK(event_of(stored_with("medium", nil)).counts);
  // Groups of layers name their blocks alike.
  auto first = event_of(stored_with("group_idx", number(1)));
  CHECK(first.hashes != event_of(map(stored_fields())).hashes);
  CHECK(first.hashes != event_of(stored_with("group_idx", number(2))).hashes);
  auto removed = event_of(map(
    {{"type", text("BlockRemoved")}, {"block_hashes", numbers({7, 8})}, {"group_idx", number(1)}}));
  CHECK(removed.hashes == first.hashes);
}

TEST_CASE("events end up in the index") {
  prefix_index index;
  auto tell = [&](const std::string& event) { apply(event_of(event), "a", index); };
  tell(map(stored_fields()));
  CHECK(held(index, "a", {1, 2, 3, 4, 5}, 0) == 4);
  tell(
    map({{"type", text("BlockRemoved")}, {"block_hashes", numbers({8})}, {"medium", text("CPU")}}));
  CHECK(held(index, "a", {1, 2, 3, 4, 5}, 0) == 4);
  tell(
    map({{"type", text("BlockRemoved")}, {"block_hashes", numbers({8})}, {"medium", text("GPU")}}));
  CHECK(held(index, "a", {1, 2, 3, 4, 5}, 0) == 2);
  tell(map({{"type", text("AllBlocksCleared")}}));
  CHECK(held(index, "a", {1, 2, 3, 4, 5}, 0) == 0);
  tell(stored_with("lora_name", text("poet")));
  CHECK(held(index, "a", {1, 2, 3, 4}, 0) == 0);
  CHECK(held(index, "a", {1, 2, 3, 4}, adapter_digest("poet")) == 4);
  tell(stored_with("token_ids", numbers({1, 2, 3}))); // does not add up
  CHECK(index.counters().refused == 2);
}

TEST_CASE("no payload does harm") {
  auto salted = stored_with("extra_keys", array({array({text("a"), array({number(1)})}), nil}));
  auto good = batch({map(stored_fields()), salted, array({text("BlockRemoved"), numbers({1})})});
  std::mt19937 chance{7};
  prefix_index index{{.max_blocks = 50, .max_instances = 4}};
  std::size_t understood = 0;
  for (int round = 0; round < 3'000; ++round) {
    auto payload = good;
    for (auto changes = chance() % 4; changes > 0; --changes) {
      auto at = chance() % payload.size();
      switch (chance() % 3) {
        case 0: payload[at] = static_cast<char>(chance()); break;
        case 1: payload.erase(at, chance() % 4); break;
        default: payload.insert(at, payload.substr(chance() % payload.size(), 10)); break;
      }
    }
    auto read = read_kv_events(payload);
    understood += read.has_value();
    if (read)
      for (const auto& event : read->events)
        apply(event, "a", index);
  }
  CHECK(understood > 0);
  CHECK(understood < 3'000);
  CHECK(index.consistent());
}

} // namespace llumnix
