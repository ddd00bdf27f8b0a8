#include "tests/engine/moving_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace llumnix::testing {

moving_fixture::moving_fixture(engine_config from, engine_config to)
  : source{std::move(from)},
    destination{std::move(to)},
    out{*source.engine->moving()},
    in{*destination.engine->moving()} {}

errc moving_fixture::begin(std::uint64_t stream, std::uint32_t headroom) {
  number = stream;
  auto pinned = out.pin(id, source.stream(number), 0);
  if (!pinned)
    return pinned.error().code;
  leaving = *std::move(pinned);
  auto reserved = in.reserve(id, leaving.request, headroom);
  if (!reserved)
    return reserved.error().code;
  room = *std::move(reserved);
  return errc::ok;
}

errc moving_fixture::round() {
  auto looked = out.look(id);
  if (!looked)
    return looked.error().code;
  leaving = *std::move(looked);
  auto from = in.ready_tokens(id);
  copy(from, leaving.written);
  return code_of(in.landed(id, ids(), std::min(from, leaving.written), leaving.written));
}

void moving_fixture::copy(std::uint32_t from, std::uint32_t to) {
  const auto shape = in.geometry();
  CHECK(shape == out.geometry());
  const std::size_t bytes = std::size_t{shape.block_tokens} * shape.bytes_per_token;
  for (auto i = from / shape.block_tokens; i * shape.block_tokens < to; ++i)
    std::memcpy(
      in.kv_memory().data() + room.blocks[i] * bytes,
      out.kv_memory().data() + leaving.blocks[i] * bytes, bytes);
}

errc moving_fixture::finish(std::uint32_t sent, bool tail) {
  auto frozen = out.freeze(id);
  if (!frozen)
    return frozen.error().code;
  leaving = *std::move(frozen);
  if (tail)
    if (auto landed = round(); landed != errc::ok)
      return landed;
  auto& stream = source.streams[number];
  stream.tokens.resize(sent);
  stream.logprobs.resize(std::min<std::size_t>(stream.logprobs.size(), sent));
  auto request = leaving.request;
  ++request.epoch;
  auto adopted = code_of(in.adopt(id, request, sent, destination.now));
  out.drop(id);
  out.unpin(id);
  return adopted;
}

std::vector<token_id> moving_fixture::ids() const {
  auto all = leaving.request.prompt;
  all.insert(all.end(), leaving.request.output.begin(), leaving.request.output.end());
  return all;
}

engine_fixture::received moving_fixture::client() {
  auto joined = source.streams[number];
  const auto& rest = destination.streams[number];
  if (!rest.starts.empty())
    CHECK(rest.starts.front() == joined.tokens.size());
  joined.tokens.insert(joined.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  joined.logprobs.insert(joined.logprobs.end(), rest.logprobs.begin(), rest.logprobs.end());
  joined.finish = rest.finish;
  joined.cached += rest.cached;
  return joined;
}

bool moving_fixture::idle() const {
  auto empty = [](const engine_fixture& x, const moving_requests& moves) {
    auto status = x.engine->status();
    return x.idle() && x.engine->conserves_blocks() && moves.pinned_blocks() == 0
           && moves.reserved_blocks() == 0 && status.num_migrate_in_reqs == 0
           && status.num_migrate_out_reqs == 0;
  };
  return empty(source, out) && empty(destination, in);
}

engine_with_moves::engine_with_moves(engine_config how)
  : engine_fixture{std::move(how)}, moves{*engine->moving()} {}

engine_config engine_with_moves::few_blocks(std::uint32_t blocks, bool poison) {
  auto config = small();
  config.blocks = blocks;
  config.poison_freed = poison;
  return config;
}

void engine_with_moves::start(std::uint64_t number, std::size_t length, std::uint32_t max_tokens) {
  REQUIRE(submit(request(number, letters(length, number % 7), max_tokens)) == errc::ok);
}

bool engine_with_moves::right(std::uint64_t number, std::size_t length, std::uint32_t max_tokens) {
  auto asked = request(number, letters(length, number % 7), max_tokens);
  return streams[number].tokens == expect(asked, engine->max_model_len()).tokens;
}

bool engine_with_moves::readable(const leaving_request& leaving) {
  engine_request whole{leaving.request, 0, config.block_tokens};
  for (std::uint32_t p = 0; p < leaving.written; ++p) {
    auto block = leaving.blocks[p / config.block_tokens];
    if (!engine->pool().holds(block, p % config.block_tokens, whole.digests[p]))
      return false;
  }
  return true;
}

} // namespace llumnix::testing
