#include "runtime/scheduling/chunk_keys.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

using namespace llumnix;

// The digests were computed apart from this code: SHA-256 by Python's hashlib over pre-images put
// together by hand as spec/scheduling.md 8.1 has them, XXH64 after its specification.

namespace {

using tokens = std::vector<token_id>;
using keys = std::vector<std::string>;

tokens count(token_id from, std::size_t size) {
  tokens made(size);
  std::iota(made.begin(), made.end(), from);
  return made;
}

chunk_key_options chunks_of(chunk_hash hash, std::uint32_t size, bool tail = false) {
  chunk_key_options options;
  options.hash = hash;
  options.chunk_tokens = size;
  options.save_unfull_chunk = tail;
  return options;
}

keys keys_of(const tokens& prompt, const chunk_key_options& options) {
  auto made = chunk_keys(prompt, options);
  REQUIRE(made);
  return *made;
}

const tokens wide{0, 23, 24, 255, 256, 65535, 65536, 4294967295}; // where CBOR's heads grow

} // namespace

TEST_CASE("what has no chunks is refused") {
  for (auto hash : {chunk_hash::sha256_cbor, chunk_hash::sha256_hex, chunk_hash::xxhash}) {
    auto refused = [&](const tokens& prompt, std::uint32_t size) {
      auto made = chunk_keys(prompt, chunks_of(hash, size, true));
      return !made && made.error().code == errc::invalid_argument;
    };
    CHECK(refused({}, 256));
    CHECK(refused({1}, 0));
    CHECK(refused({1}, chunk_tokens_max + 1));
    CHECK_FALSE(refused({1}, chunk_tokens_max));
  }
  CHECK(!chunk_keys(tokens{1}, chunks_of(chunk_hash{7}, 256)));
}

TEST_CASE("a prompt below one chunk has a key only where tails are saved") {
  for (auto hash : {chunk_hash::sha256_cbor, chunk_hash::sha256_hex, chunk_hash::xxhash}) {
    CHECK(keys_of({1, 2, 3}, chunks_of(hash, 4)).empty());
    CHECK(keys_of({1, 2, 3}, chunks_of(hash, 4, true)).size() == 1);
    CHECK(keys_of({1, 2, 3, 4}, chunks_of(hash, 4, true)).size() == 1); // no tail
  }
}

TEST_CASE("sha256_cbor chains digests over canonical CBOR, and tails look like the rest") {
  const keys three{
    "c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0",
    "24125b23e68883b5c2141db2959d48433fe6bde2f26bd914efad121d154ab2d6_0",
    "128a226d31d49c070c027325a6f501ea097fb252653e92d2055ff7af74062fc8_0"};
  CHECK(keys_of(count(1, 10), chunks_of(chunk_hash::sha256_cbor, 4, true)) == three);
  CHECK(keys_of(count(1, 10), chunks_of(chunk_hash::sha256_cbor, 4)) == keys{three[0], three[1]});
}

TEST_CASE("CBOR says each number and each length in the shortest way") {
  struct row {
    tokens prompt;
    std::uint32_t chunk;
    keys made;
  };
  const row rows[]{
    {wide, 8, {"39532d759036eca7efd7a6e039e216836a50436ef6b04f2f261c9e2f453fb3ec_0"}},
    {wide,
     3,
     {"459ea7d673af43d366c2a0611cb77b6956b07bfca04c38dd8377c26ef58a240c_0",
      "1334297143d549312241e9194ffd02533c2744ff01806d7970cc01f240ccd313_0",
      "b169e9dd9f952c6a00004fefc0609fd405fcfa704fd345e01bc0ae1fe85b2b06_0"}},
    {count(0, 24), 24, {"792917e681c347b21bebfdd57cabcca6b79c865f83ccd2cfbd9cb56ffed2b088_0"}},
    {count(0, 256), 256, {"f3de83132fabc7fa86835e24f2a2008df215e9d03ba998de8e1aaa1431327685_0"}},
    {count(0, 70000),
     70000,
     {"c39e73d83d3a4257138749a9f9ae6073c8a8bdd95d81d5244ea6ffafc094d16e_0"}}};
  for (const auto& [prompt, chunk, made] : rows) {
    CAPTURE(chunk);
    CHECK(keys_of(prompt, chunks_of(chunk_hash::sha256_cbor, chunk, true)) == made);
  }
}

TEST_CASE("the seed of sha256_cbor is a text, \"0\" where there is none") {
  auto options = chunks_of(chunk_hash::sha256_cbor, 4);
  auto key = [&](std::string seed) {
    options.hash_seed = std::move(seed);
    return keys_of({1, 2, 3, 4}, options).front();
  };
  CHECK(key("") == "c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0");
  CHECK(key("0") == key(""));
  CHECK(key("abc") == "c0dbb85cbd36c20751bdd8b8cd89161485f7227dd798da0338c804a5015b4439_0");
  CHECK(
    key(std::string(24, 's'))
    == "18d20cb36ece73bff76d2019b793e206f1e3ee299da8a89d72f9dc2099395572_0");
}

TEST_CASE("sha256_hex chains raw digests, and only a tail bears the rank") {
  CHECK(
    keys_of(count(1, 10), chunks_of(chunk_hash::sha256_hex, 4, true))
    == keys{
      "cf97adeedb59e05bfd73a2b4c2a8885708c4f4f70c84c64b27120e72ab733b72",
      "4ebfa8a1f3c341517621838c6e1b9aa350307e3f00b3cbd1a07ef740f54396d6",
      "6dc571acd2ccb712fb7a8b13854443ded3fba409ddd9aa84849d3840c1547ca3_0"});
  CHECK(
    keys_of(wide, chunks_of(chunk_hash::sha256_hex, 8))
    == keys{"874a64ed0b8dc59be6a74b1fcf43d11e22467779e3c51e82c941e49dac1e44ed"});
}

TEST_CASE("xxhash runs on over the chunks, and fills a tail up with zeros") {
  const std::string prefix = "iris.block.hash.key.";
  CHECK(
    keys_of(count(1, 10), chunks_of(chunk_hash::xxhash, 4, true))
    == keys{
      prefix + "8356527653647720045", prefix + "18035310477575821480",
      prefix + "8792831042805156027"});
  CHECK(keys_of(wide, chunks_of(chunk_hash::xxhash, 8)) == keys{prefix + "11856154298011449287"});
  auto others = chunks_of(chunk_hash::xxhash, 2, true);
  others.iris_prefix = "a";
  others.block_prefix = "/b ";
  CHECK(keys_of({1, 2, 3}, others) == keys{"a/b 5411092459628516524", "a/b 6412453645028654371"});
  CHECK(keys_of({1, 2, 3}, others) == keys_of({1, 2, 3, 0}, others));
}

TEST_CASE("the last of 128 keys depends on all 32768 tokens") {
  tokens prompt(32768);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<token_id>(i * 7919 % 151936);
  for (auto [hash, last] : std::initializer_list<std::pair<chunk_hash, std::string>>{
         {chunk_hash::sha256_cbor,
          "78f8a3585b870cdef13dacf9226652d8319a47bdfeb612144f9a9b2e1d397fac_0"},
         {chunk_hash::sha256_hex,
          "32a0b547934073e303df89d070df3f8a90b70539bf4518a27f53655f06800c72"},
         {chunk_hash::xxhash, "iris.block.hash.key.2094235503702110622"}}) {
    auto made = keys_of(prompt, chunks_of(hash, 256));
    CHECK(made.size() == 128);
    CHECK(made.back() == last);
    ++prompt.front();
    auto other = keys_of(prompt, chunks_of(hash, 256));
    --prompt.front();
    CHECK(std::mismatch(made.begin(), made.end(), other.begin()).first == made.begin());
    CHECK(other.back() != last);
  }
}

TEST_CASE("options come from the configuration, or it is refused") {
  scheduler_config config;
  config.kv_hash = "sha256_hex";
  config.kv_chunk_tokens = 16;
  config.kv_save_unfull_chunk = true;
  config.kv_iris_prefix = "i";
  config.kv_block_prefix = "b";
  config.kv_hash_seed = "s";
  auto made = make_chunk_key_options(config);
  REQUIRE(made);
  CHECK(made->hash == chunk_hash::sha256_hex);
  CHECK(made->chunk_tokens == 16);
  CHECK(made->save_unfull_chunk);
  CHECK(made->iris_prefix == "i");
  CHECK(made->block_prefix == "b");
  CHECK(made->hash_seed == "s");
  config.kv_chunk_tokens = 0;
  CHECK(!make_chunk_key_options(config));
  config = {};
  CHECK(make_chunk_key_options(config)->hash == chunk_hash::sha256_cbor);
  config.kv_hash = "md5";
  CHECK(make_chunk_key_options(config).error().code == errc::invalid_argument);
}
