#include "tests/engine/moving_fixture.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <random>

using namespace llumnix;
using testing::code_of;
using testing::engine_fixture;

namespace {

/// Engines between which seeded chance moves requests, well or badly: hand-overs stop anywhere, in
/// any order of their last steps. After each turn every block of every engine is accounted for, and
/// no stream ever gets a token twice, wrong, or not at all.
class moving_soak {
public:
  moving_soak(const engine_config& config, unsigned seed) : chance_{seed} {
    for (auto& engine : engines_)
      engine = std::make_unique<engine_fixture>(config);
  }

  void turn() {
    auto what = pick(100);
    if (what < 10)
      arrive();
    else if (what < 13)
      leave();
    else if (what < 25)
      offer();
    else if (what < 55 && !moves_.empty())
      go_on(pick(static_cast<std::uint32_t>(moves_.size())));
    else
      step(pick(2));
    check();
  }

  void finish() {
    while (!moves_.empty())
      end(0, true);
    for (auto& [number, life] : live_)
      life.request.credit = inference_request::no_limit;
    while (!live_.empty()) {
      for (auto& [number, life] : live_)
        engines_[life.at]->engine->grant(
          engine_fixture::stream(number), life.epoch, inference_request::no_limit);
      for (std::uint32_t at : {0, 1})
        step(at);
    }
    check();
    for (auto& x : engines_) {
      CHECK(x->engine->moving()->pinned_blocks() == 0);
      CHECK(x->engine->moving()->reserved_blocks() == 0);
      CHECK(x->engine->blocks().free() == x->engine->blocks().total());
      CHECK_FALSE(x->engine->has_work());
    }
  }

  std::uint32_t moved = 0, ended = 0, preemptions = 0, refused = 0, put_back = 0, ahead = 0;

private:
  struct life {
    inference_request request;
    std::uint32_t at = 0, epoch = 0;
    std::vector<token_id> told;
  };
  struct move {
    handover_id id;
    std::uint64_t number = 0;
    std::uint32_t from = 0;
    leaving_request leaving;
    arriving_room room;
    bool frozen = false;
    bool copies = true;
  };

  std::uint32_t pick(std::uint32_t below) {
    return std::uniform_int_distribution<std::uint32_t>{0, below - 1}(chance_);
  }
  moving_requests& out(const move& x) { return *engines_[x.from]->engine->moving(); }
  moving_requests& in(const move& x) { return *engines_[1 - x.from]->engine->moving(); }
  std::uint64_t any() {
    return std::next(live_.begin(), pick(static_cast<std::uint32_t>(live_.size())))->first;
  }

  void arrive() {
    auto number = ++last_;
    life born;
    born.request = engine_fixture::request(number, testing::letters(1 + pick(30), pick(3)), 50);
    auto& sampling = born.request.sampling;
    sampling.max_tokens = 1 + pick(40);
    sampling.temperature = pick(2);
    sampling.seed = number;
    sampling.ignore_eos = pick(2) == 0;
    born.request.priority = static_cast<std::int32_t>(pick(8) == 0);
    if (pick(4) == 0)
      born.request.credit = pick(10);
    born.at = pick(2);
    if (engines_[born.at]->submit(born.request) == errc::ok)
      live_[number] = born;
  }

  void leave() {
    if (live_.empty())
      return;
    auto number = any();
    auto& life = live_[number];
    if (pick(2)) {
      engines_[life.at]->engine->grant(engine_fixture::stream(number), life.epoch, pick(60));
    } else {
      CHECK(engines_[life.at]->engine->abort(engine_fixture::stream(number), life.epoch));
      live_.erase(number);
    }
  }

  void offer() {
    if (live_.empty())
      return;
    move x;
    x.number = any();
    auto& life = live_[x.number];
    x.from = life.at;
    x.id = {seed_of_ids_, ++ids_};
    x.copies = pick(3) != 0;
    auto pinned = out(x).pin(x.id, engine_fixture::stream(x.number), life.epoch);
    if (!pinned) {
      CHECK(pinned.error().code == errc::queue_full);
      return;
    }
    x.leaving = *pinned;
    auto room = in(x).reserve(x.id, x.leaving.request, pick(30));
    if (!room) {
      CHECK(room.error().code == errc::out_of_blocks);
      ++refused;
      out(x).unpin(x.id);
      return;
    }
    x.room = *room;
    moves_.push_back(std::move(x));
  }

  void go_on(std::uint32_t index) {
    auto& x = moves_[index];
    auto what = pick(10);
    if (what == 0)
      end(index, pick(2));
    else if (what < 6)
      round(x);
    else if (what < 8 && !x.frozen)
      freeze(x);
    else if (x.frozen)
      commit(index);
  }

  std::vector<token_id> ids(const move& x) const {
    auto all = x.leaving.request.prompt;
    const auto& output = x.leaving.request.output;
    all.insert(all.end(), output.begin(), output.end());
    return all;
  }

  void round(move& x) {
    auto looked = out(x).look(x.id);
    if (!looked)
      return;
    if (looked->preemptions != x.leaving.preemptions)
      x.copies = false; // what was copied is still good; the rest is computed
    x.leaving = *looked;
    if (!x.copies) {
      ++ahead;
      in(x).compute_ahead(x.id, ids(x));
      return;
    }
    auto from = in(x).ready_tokens(x.id);
    auto to = std::min(x.leaving.written, x.room.reserved_tokens);
    if (to <= from)
      return;
    const auto shape = in(x).geometry();
    const std::size_t bytes = std::size_t{shape.block_tokens} * shape.bytes_per_token;
    for (auto i = from / shape.block_tokens; i * shape.block_tokens < to; ++i)
      std::memcpy(
        in(x).kv_memory().data() + x.room.blocks[i] * bytes,
        out(x).kv_memory().data() + x.leaving.blocks[i] * bytes, bytes);
    CHECK(code_of(in(x).landed(x.id, ids(x), from, to)) == errc::ok);
  }

  void freeze(move& x) {
    if (auto frozen = out(x).freeze(x.id)) {
      x.frozen = true;
      x.leaving = *frozen;
    }
  }

  void commit(std::uint32_t index) {
    auto x = moves_[index];
    if (auto looked = out(x).look(x.id)) {
      auto& life = live_.at(x.number);
      auto request = looked->request;
      auto sent = static_cast<std::uint32_t>(life.told.size());
      if (request.output.size() > 2 && pick(4) == 0)
        sent = static_cast<std::uint32_t>(request.output.size()) - pick(3);
      life.told.resize(sent);
      request.epoch = ++life.epoch;
      REQUIRE(code_of(in(x).adopt(x.id, request, sent, engines_[1 - x.from]->now)) == errc::ok);
      life.at = 1 - x.from;
      ++moved;
      out(x).drop(x.id);
      out(x).unpin(x.id);
      moves_.erase(moves_.begin() + index);
    } else {
      end(index, true);
    }
  }

  /// Gives a hand-over up.
  void end(std::uint32_t index, bool unpin_first) {
    auto x = moves_[index];
    in(x).give_up(x.id);
    if (unpin_first)
      out(x).unpin(x.id);
    if (x.frozen && live_.contains(x.number)) {
      out(x).thaw(x.id, ++live_[x.number].epoch);
      ++put_back;
    }
    if (!unpin_first)
      out(x).unpin(x.id);
    moves_.erase(moves_.begin() + index);
  }

  void step(std::uint32_t at) {
    auto& x = *engines_[at];
    auto result = x.engine->step(x.now);
    x.now += std::chrono::milliseconds{50};
    preemptions += result.preemptions;
    for (const auto& [stream, delta] : result.outputs) {
      auto& life = live_.at(stream.stream);
      REQUIRE(life.at == at);
      REQUIRE(delta.epoch == life.epoch);
      REQUIRE(delta.start == life.told.size());
      life.told.insert(life.told.end(), delta.tokens.begin(), delta.tokens.end());
      if (delta.finish == finish_reason::none)
        continue;
      auto whole = life.request;
      whole.credit = inference_request::no_limit;
      auto expected = testing::expect(whole, x.engine->max_model_len());
      CHECK(life.told == expected.tokens);
      CHECK(delta.finish == expected.finish);
      live_.erase(stream.stream);
      ++ended;
    }
  }

  void check() {
    for (auto& x : engines_) {
      REQUIRE(x->engine->conserves_blocks());
      REQUIRE(x->engine->broken_requests() == 0);
    }
  }

  std::mt19937 chance_;
  std::array<std::unique_ptr<engine_fixture>, 2> engines_;
  std::map<std::uint64_t, life> live_;
  std::vector<move> moves_;
  std::uint64_t last_ = 0, ids_ = 0, seed_of_ids_ = 5;
};

} // namespace

TEST_CASE("whatever becomes of hand-overs, blocks are conserved and streams are whole") {
  struct row {
    std::uint32_t blocks, block_tokens, seqs, batched_tokens;
    bool cache, poison;
  };
  std::uint32_t moved = 0, ended = 0, preemptions = 0, refused = 0, put_back = 0, ahead = 0;
  for (auto [blocks, block_tokens, seqs, batched_tokens, cache, poison] :
       {row{24, 4, 256, 2048, true, false}, row{40, 4, 4, 16, true, false},
        row{60, 3, 8, 7, true, true}, row{30, 4, 6, 32, false, false}})
    for (unsigned seed : {1u, 2u}) {
      CAPTURE(blocks);
      CAPTURE(seed);
      auto config = engine_fixture::small();
      config.blocks = blocks;
      config.block_tokens = block_tokens;
      config.max_num_seqs = seqs;
      config.max_num_batched_tokens = batched_tokens;
      config.prefix_cache = cache;
      config.poison_freed = poison;
      moving_soak life{config, seed};
      for (int i = 0; i < 2000; ++i)
        life.turn();
      life.finish();
      moved += life.moved;
      ended += life.ended;
      preemptions += life.preemptions;
      refused += life.refused;
      put_back += life.put_back;
      ahead += life.ahead;
    }
  // The lives were eventful.
  CHECK(moved > 200);
  CHECK(ended > 500);
  CHECK(preemptions > 100);
  CHECK(refused > 50);
  CHECK(put_back > 20);
  CHECK(ahead > 200);
}
