#include "runtime/engine/modeled_engine.hpp"

#include "runtime/base/log.hpp"
#include "runtime/engine/modeled_tokens.hpp"
#include "runtime/serving/byte_tokenizer.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

constexpr std::uint32_t most_alternatives = 20;
constexpr std::size_t kv_part_bytes = 256u << 10; ///< of what the cache holds, in one message

token_delta delta_for(const engine_request& request) {
  token_delta delta;
  delta.stream = request.stream.stream;
  delta.epoch = request.epoch;
  delta.start = request.output_tokens() - request.untold;
  return delta;
}

/// Adds a request's share to what the step computes and tells.
void account(const scheduled_request& share, step_load& load, step_result& result) {
  if (share.request->decoding()) {
    load.add_decode(share.request->computed);
    result.decode_tokens += share.tokens;
    result.decode_context += share.request->tokens();
  } else {
    load.add_prefill(share.tokens, share.request->computed);
    result.prefill_tokens += share.tokens;
  }
}

} // namespace

result<std::unique_ptr<modeled_engine>> modeled_engine::make(const engine_config& config) {
  auto setup = make_modeled_setup(config);
  if (!setup)
    return std::move(setup).error();
  auto pool = kv_pool::make(setup->blocks, setup->block_tokens, setup->kv_bytes_per_token);
  if (!pool)
    return std::move(pool).error();
  return std::unique_ptr<modeled_engine>{new modeled_engine{*std::move(setup), *std::move(pool)}};
}

modeled_engine::modeled_engine(modeled_setup setup, kv_pool pool)
  : setup_{std::move(setup)},
    pool_{std::move(pool)},
    blocks_{pool_, setup_.prefix_cache, setup_.poison_freed},
    scheduler_{setup_.limits, blocks_, setup_.block_tokens} {}

engine_capabilities modeled_engine::capabilities() const {
  return {
    .exports_kv = true,
    .pauses = true,
    .status_per_step = true,
    .token_ids = true,
    .tells_kv = true};
}

result<void> modeled_engine::validate(const inference_request& request) const {
  const byte_tokenizer vocabulary;
  auto unknown = [&](token_id id) { return !vocabulary.valid(id); };
  if (request.prompt.empty())
    return {errc::invalid_argument, "the prompt is empty"};
  for (const auto* ids : {&request.prompt, &request.output})
    if (auto id = std::find_if(ids->begin(), ids->end(), unknown); id != ids->end())
      return {
        errc::invalid_argument, fmt::format("token id {} is outside the model's vocabulary", *id)};
  if (request.sampling.max_tokens == 0)
    return {errc::invalid_argument, "max_tokens must be at least 1"};
  if (request.sampling.top_logprobs > most_alternatives)
    return {
      errc::invalid_argument, fmt::format(
                                "{} alternatives asked for, {} are the most",
                                request.sampling.top_logprobs, most_alternatives)};
  // A prompt needs room for one token more; what came with output may just have reached the end.
  auto tokens = request.prompt.size() + request.output.size() + request.output.empty();
  if (tokens > setup_.max_model_len)
    return {
      errc::too_long, fmt::format(
                        "{} tokens and one to generate exceed the model's length of {}",
                        request.prompt.size() + request.output.size(), setup_.max_model_len)};
  return {};
}

result<void> modeled_engine::validate_epoch(const inference_request& request) const {
  auto it = requests_.find(request.stream);
  if (it == requests_.end() || it->second->epoch < request.epoch)
    return {};
  return {
    errc::stale, fmt::format(
                   "stream {} is here under epoch {}, not below {}", to_string(request.stream),
                   it->second->epoch, request.epoch)};
}

result<void> modeled_engine::submit(inference_request request) {
  if (auto newer = validate_epoch(request); !newer)
    return newer;
  abort(request.stream, request.epoch);
  if (auto valid = validate(request); !valid)
    return valid;
  if (scheduler_.waiting().size() >= setup_.max_waiting)
    return {
      errc::queue_full, fmt::format("{} requests wait in the engine", scheduler_.waiting().size())};
  auto owned
    = std::make_unique<engine_request>(std::move(request), arrivals_++, setup_.block_tokens);
  auto& added = *owned;
  requests_.emplace(added.stream, std::move(owned));
  if (setup_.corrupt && setup_.corrupt->text_id == added.text_id)
    added.corrupt = setup_.corrupt->block;
  note_over(added);
  if (added.over != finish_reason::none)
    return {};
  scheduler_.add(added);
  arrived_.push_back(&added);
  ++version_;
  return {};
}

/// A request that ended before it came only has its end to be told.
void modeled_engine::note_over(engine_request& request) {
  if (auto told = request.output_tokens(); told > 0)
    request.over = modeled::finish_of(
      request.ids.back(), request.sampling, told - 1, request.tokens() < setup_.max_model_len);
  if (request.over != finish_reason::none)
    over_.push_back(&request);
}

bool modeled_engine::abort(const stream_ref& stream, std::uint32_t epoch) {
  auto it = requests_.find(stream);
  if (it == requests_.end() || it->second->epoch > epoch)
    return false;
  remove(*it->second);
  return true;
}

void modeled_engine::grant(const stream_ref& stream, std::uint32_t epoch, std::uint32_t credit) {
  auto it = requests_.find(stream);
  if (it != requests_.end() && it->second->epoch == epoch)
    it->second->credit = std::max(it->second->credit, credit);
}

bool modeled_engine::holds(const stream_ref& stream, std::uint32_t epoch) const {
  auto it = requests_.find(stream);
  return it != requests_.end() && it->second->epoch == epoch;
}

bool modeled_engine::has_work() const {
  return !over_.empty() || !adopted_.empty() || scheduler_.has_work();
}

step_result modeled_engine::step(time_point now) {
  step_result result;
  note_arrivals();
  tell_over(result);
  const auto& batch = scheduler_.plan(now);
  result.preemptions = batch.preemptions;
  result.outputs.reserve(result.outputs.size() + batch.requests.size());
  step_load load;
  for (const auto& share : batch.requests) {
    account(share, load, result);
    compute(share);
    bool made_token = share.request->computed == share.request->tokens();
    if (made_token)
      emit(*share.request, result);
    if (share.request->stand_at)
      result.prefills.push_back({share.request->stream, share.request->epoch, made_token});
  }
  if (!adopted_.empty())
    tell_adopted(result);
  result.duration = setup_.latency.step_time(load, setup_.speed);
  result.worked = !batch.requests.empty() || !result.outputs.empty();
  for (auto* request : ended_)
    remove(*request);
  ended_.clear();
  if (result.worked)
    ++steps_;
  if (result.worked || result.preemptions > 0)
    ++version_;
  return result;
}

void modeled_engine::note_arrivals() {
  if (arrived_.empty())
    return;
  for (const auto* request : arrived_)
    seen_waiting_.push_back(request->status_id);
  arrived_.clear();
  ++version_;
}

void modeled_engine::tell_over(step_result& result) {
  for (auto* request : over_) {
    auto delta = delta_for(*request);
    tell_untold(*request, delta);
    delta.finish = request->over;
    result.outputs.push_back({request->stream, std::move(delta)});
    ended_.push_back(request);
  }
  over_.clear();
}

/// Ids of requests that moved here whose step told nothing: they wait for credit, or for the rest
/// of their KV. The source had both when it made these.
void modeled_engine::tell_adopted(step_result& result) {
  for (auto* request : adopted_) {
    if (request->untold == 0)
      continue;
    auto delta = delta_for(*request);
    tell_untold(*request, delta);
    if (!std::exchange(request->told_cached, true))
      delta.cached_tokens = *request->cached_tokens;
    result.outputs.push_back({request->stream, std::move(delta)});
  }
  adopted_.clear();
}

/// Puts the ids that nobody was told yet in front of a delta that starts with them.
void modeled_engine::tell_untold(engine_request& request, token_delta& delta) const {
  auto count = std::exchange(request.untold, 0);
  delta.tokens.insert(delta.tokens.begin(), request.ids.end() - count, request.ids.end());
  if (!request.sampling.logprobs)
    return;
  std::vector<token_logprob> logprobs;
  for (auto position = request.tokens() - count; position < request.tokens(); ++position) {
    auto drawn = modeled::draw(request.digests[position - 1], request.key, position - 1);
    logprobs.push_back(modeled::logprob_of(drawn, request.sampling.top_logprobs));
  }
  delta.logprobs.insert(delta.logprobs.begin(), logprobs.begin(), logprobs.end());
}

void modeled_engine::compute(const scheduled_request& share) {
  auto& request = *share.request;
  const auto block_tokens = setup_.block_tokens;
  verify(request);
  std::uint64_t before = 0; // the digest of the position before, as memory has it
  if (auto p = request.computed; p > 0) {
    before = pool_.read(request.blocks[(p - 1) / block_tokens], (p - 1) % block_tokens, 0);
    if (before != request.digests[p - 1])
      distrust(request, (p - 1) / block_tokens);
  }
  for (auto p = request.computed; p < request.computed + share.tokens; ++p) {
    auto block = request.blocks[p / block_tokens];
    auto offset = p % block_tokens;
    pool_.write(block, offset, modeled::next_digest(before, request.ids[p]));
    if (request.corrupt == p / block_tokens && p >= request.written)
      pool_.spoil(block, offset);
    before = pool_.read(block, offset, 0);
    if (before != request.digests[p])
      distrust(request, p / block_tokens);
  }
  request.computed += share.tokens;
  request.written = std::max(request.written, request.computed);
}

void modeled_engine::verify(engine_request& request) {
  const auto block_tokens = setup_.block_tokens;
  const auto place = static_cast<std::uint32_t>(steps_ % block_tokens);
  const auto word = static_cast<std::uint32_t>(steps_ / block_tokens % pool_.words_per_token());
  for (std::uint32_t first = 0, index = 0; first < request.computed;
       first += block_tokens, ++index) {
    auto written = std::min(block_tokens, request.computed - first);
    auto offset = place < written ? place : place % written;
    auto expected = modeled::kv_word(request.digests[first + offset], word);
    if (pool_.read(request.blocks[index], offset, word) != expected)
      distrust(request, index);
  }
}

void modeled_engine::distrust(engine_request& request, std::uint32_t table_index) {
  blocks_.distrust(std::span{request.blocks}.subspan(table_index));
  if (request.broken)
    return;
  request.broken = true;
  ++broken_;
  log::engine.warn(
    "kv-mismatch", "block {} of {} ({}) does not hold what was computed", table_index,
    request.text_id, to_string(request.stream));
}

void modeled_engine::emit(engine_request& request, step_result& result) {
  auto position = request.tokens() - 1;
  auto digest
    = pool_.read(request.blocks[position / setup_.block_tokens], position % setup_.block_tokens, 0);
  auto drawn = modeled::draw(digest, request.key, position);
  auto index = request.output_tokens();
  auto token
    = request.broken ? byte_tokenizer::broken : modeled::token_of(drawn, request.sampling, index);
  auto delta = delta_for(request);
  delta.tokens.push_back(token);
  if (request.sampling.logprobs)
    delta.logprobs.push_back(modeled::logprob_of(drawn, request.sampling.top_logprobs));
  if (!std::exchange(request.told_cached, true))
    delta.cached_tokens = *request.cached_tokens;
  if (request.untold > 0)
    tell_untold(request, delta);
  request.append(token);
  delta.finish
    = modeled::finish_of(token, request.sampling, index, request.tokens() < setup_.max_model_len);
  if (delta.finish != finish_reason::none)
    ended_.push_back(&request);
  result.outputs.push_back({request.stream, std::move(delta)});
}

void modeled_engine::remove(engine_request& request) {
  if (request.over == finish_reason::none)
    scheduler_.remove(request);
  std::erase(arrived_, &request);
  std::erase(over_, &request);
  std::erase(adopted_, &request);
  if (request.pinned)
    forget_pinned(request);
  requests_.erase(requests_.find(request.stream));
  ++version_;
}

instance_status modeled_engine::status() const {
  auto version = static_cast<std::int32_t>(version_ & 0x7FFFFFFF);
  if (status_.update_id != version) {
    status_ = {};
    status_.schedulable = true;
    status_.update_id = version;
    status_.step_id = static_cast<std::int32_t>(steps_ & 0x7FFFFFFF);
    collect_load(scheduler_, blocks_, setup_.block_tokens, status_);
    if (!pins_.empty() || !rooms_.empty())
      collect_moves(status_);
  }
  return status_;
}

std::vector<std::string> modeled_engine::take_seen_waiting() {
  return std::exchange(seen_waiting_, {});
}

void modeled_engine::note_kv_changes(bool wanted) {
  blocks_.changes().turn(wanted);
}

kv_changes modeled_engine::take_kv_changes() {
  return blocks_.changes().take();
}

std::vector<kv_changes> modeled_engine::cached_kv() const {
  auto part = [this] {
    kv_changes empty;
    empty.block_tokens = setup_.block_tokens;
    return empty;
  };
  std::vector<kv_changes> parts{part()};
  parts.front().cleared = true;
  std::vector<token_id> tokens;
  for (const auto& cached : blocks_.cached_chains()) {
    if (!read_tokens(cached, tokens))
      continue;
    if (parts.back().bytes() >= kv_part_bytes)
      parts.push_back(part());
    parts.back().store(cached.parent, cached.key, tokens);
  }
  return parts;
}

/// The tokens whose KV a block holds, read off the bytes: a digest gives away the id it was made
/// of. False where the bytes are not those of its key.
bool modeled_engine::read_tokens(
  const block_manager::cached_block& from, std::vector<token_id>& tokens) const {
  const byte_tokenizer vocabulary;
  tokens.clear();
  auto before = from.parent;
  for (std::uint32_t offset = 0; offset < setup_.block_tokens; ++offset) {
    auto digest = pool_.read(from.block, offset, 0);
    auto id = modeled::id_between(before, digest);
    if (id > std::numeric_limits<token_id>::max() || !vocabulary.valid(static_cast<token_id>(id)))
      return false;
    tokens.push_back(static_cast<token_id>(id));
    before = digest;
  }
  return before == from.key;
}

} // namespace llumnix
