#include "transport/ucx/ucx_address.hpp"
#include "transport/ucx/ucx_messages.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace llumnix;
using namespace llumnix::ucx;

namespace {

const std::vector<message> all_messages{
  hello{1, {2, 3}, {4, 5}},
  challenge{1, 2, {3, 4}, {}},
  answer{1, {}},
  welcome{1},
  refusal{1, errc::unreachable},
  read_request{1, 2, {3, 4}, 5, true, {{6, 7}, {UINT64_MAX, 8}}},
  chunk_header{1, 2, 3},
  denial{1, 2, errc::stale},
  lease_request{1, 2, {3, 4}, 5},
  lease_grant{1, 2, 3, 4, 5, 6, {7, 8}},
  lease_return{1, 2, 3},
  lease_end{1, 2},
  ping{1},
  pong{1}};

std::vector<std::byte> bytes_of_text(std::initializer_list<int> numbers) {
  std::vector<std::byte> bytes;
  for (auto x : numbers)
    bytes.push_back(static_cast<std::byte>(x));
  return bytes;
}

} // namespace

TEST_CASE("messages are written little-endian, kind and version first") {
  CHECK(
    encode(lease_end{0x0102030405060708, 9})
    == bytes_of_text({11, 1, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0}));
  CHECK(
    encode(denial{1, 2, errc::stale})
    == bytes_of_text({7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8}));
}

TEST_CASE("what was written is read again; cut, longer or of another version it is nothing") {
  for (const auto& one : all_messages) {
    CAPTURE(one.index());
    auto bytes = encode(one);
    auto again = decode(bytes);
    REQUIRE(again);
    CHECK(again->index() == one.index());
    CHECK(encode(*again) == bytes);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      CHECK(!decode(std::span{bytes}.first(size)));
    auto longer = bytes;
    longer.push_back(std::byte{0});
    CHECK(!decode(longer));
    auto older = bytes;
    older[1] = std::byte{0};
    CHECK(!decode(older));
  }
}

TEST_CASE("requests beyond the bounds are no messages") {
  struct row {
    const char* name;
    std::vector<kv_piece> pieces;
    bool good;
  };
  for (const auto& [name, pieces, good] : {
         row{"none", {}, false},
         row{"of no bytes", {{1, 0}}, false},
         row{"as many as may be", std::vector<kv_piece>(pieces_max, {0, 1}), true},
         row{"one too many", std::vector<kv_piece>(pieces_max + 1, {0, 1}), false},
         row{"as large as may be", {{0, chunk_bytes_max}}, true},
         row{"too large together", {{0, chunk_bytes_max}, {0, 1}}, false},
       }) {
    CAPTURE(name);
    CHECK(decode(encode(read_request{1, 2, {3, 4}, 5, false, pieces})).has_value() == good);
  }
}

TEST_CASE("whatever bytes come, decoding ends with a message or nothing") {
  std::mt19937_64 random{5};
  for (int i = 0; i < 20000; ++i) {
    auto bytes = encode(all_messages[random() % all_messages.size()]);
    for (auto changes = random() % 4; changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    if (random() % 4 == 0)
      bytes.resize(random() % (bytes.size() + 8));
    if (auto what = decode(bytes))
      CHECK(encode(*what) == bytes);
  }
}

TEST_CASE("addresses are written and read again; anything else is none") {
  address one{{"127.0.0.1", 4711, {0xAB, 0xCD}, 0xEF}, 3};
  const std::string text
    = "ucx/2/127.0.0.1/4711/00000000000000ab00000000000000cd/00000000000000ef/3";
  CHECK(to_string(one) == text);
  auto again = parse_address(text);
  REQUIRE(again);
  CHECK(again->at == one.at);
  CHECK(again->region == 3);
  address six{{"fe80::1", 1, {1, 2}, 3}, 4};
  CHECK(parse_address(to_string(six))->at == six.at);
  for (const auto* bad :
       {"", "ucx", "ucx/2", "ucx/1/127.0.0.1/4711/00000000000000ab00000000000000cd/ef/3",
        "ucx/2/localhost/4711/00000000000000ab00000000000000cd/ef/3",
        "ucx/2/127.0.0.1/0/00000000000000ab00000000000000cd/ef/3",
        "ucx/2/127.0.0.1/65536/00000000000000ab00000000000000cd/ef/3",
        "ucx/2/127.0.0.1/4711/ab/ef/3",
        "ucx/2/127.0.0.1/4711/00000000000000ab00000000000000cg/ef/3",
        "ucx/2/127.0.0.1/4711/00000000000000ab00000000000000cd/ef/3/",
        "ucx/2/127.0.0.1/4711/00000000000000ab00000000000000cd/ef/4294967296",
        "ucx/2/127.0.0.1/4711/00000000000000ab00000000000000cd/ef/-1"}) {
    CAPTURE(bad);
    CHECK(!parse_address(bad));
  }
  CHECK(!parse_address(text + std::string(1000, '0')));
}
