#include "runtime/base/assert.hpp"
#include "runtime/engine/modeled_engine.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <utility>

/// How requests leave the modeled engine and come to it (`moving_requests`).
namespace llumnix {

namespace {

constexpr std::uint32_t spare_share = 100; ///< one block in so many is not reserved
constexpr std::chrono::seconds spared_for{1};

error id_in_use() {
  return {errc::invalid_argument, "the hand-over's id is in use"};
}

error contradiction(const engine_request& request) {
  return {
    errc::bad_message,
    fmt::format("the ids of {} contradict those that came before", request.text_id)};
}

/// As the reference rounds it.
double ratio_of(std::uint64_t tokens, std::int32_t total) {
  return std::round(static_cast<double>(tokens) / total * 1e4) / 1e4;
}

} // namespace

kv_geometry modeled_engine::geometry() const {
  return {
    .model = "modeled",
    .layout = "modeled-u64",
    .block_tokens = setup_.block_tokens,
    .bytes_per_token = setup_.kv_bytes_per_token,
    .max_model_len = setup_.max_model_len};
}

std::span<std::byte> modeled_engine::kv_memory() {
  return pool_.memory();
}

std::vector<movable_request> modeled_engine::movable() const {
  std::vector<movable_request> all;
  all.reserve(scheduler_.running().size() + scheduler_.waiting().size());
  auto add = [&](const engine_request& x) {
    all.push_back(
      {.stream = x.stream,
       .tokens = x.tokens(),
       .output_tokens = x.output_tokens(),
       .priority = x.priority,
       .running = x.running,
       .moving = x.pinned || x.frozen || x.stand_at});
  };
  std::vector<const engine_request*> running(
    scheduler_.running().begin(), scheduler_.running().end());
  // Not in order of service: one that a hand-over brought is served first, and came last.
  std::sort(running.begin(), running.end(), [](const auto* a, const auto* b) {
    return a->admitted < b->admitted;
  });
  for (const auto* request : running)
    add(*request);
  for (const auto* request : scheduler_.waiting())
    add(*request);
  return all;
}

// --- prefill here, decode elsewhere ---

bool modeled_engine::decode_elsewhere(const stream_ref& stream, std::uint32_t epoch) {
  if (!holds(stream, epoch))
    return false;
  auto& request = *requests_.at(stream);
  auto with_one_more = request.output_tokens() + 1;
  if (request.over != finish_reason::none || request.sampling.max_tokens <= with_one_more)
    return false;
  request.stand_at = with_one_more;
  return true;
}

void modeled_engine::decode_here(const stream_ref& stream, std::uint32_t epoch) {
  if (!holds(stream, epoch))
    return;
  requests_.at(stream)->stand_at.reset();
  ++version_;
}

// --- out ---

result<leaving_request>
modeled_engine::pin(const handover_id& id, const stream_ref& stream, std::uint32_t epoch) {
  if (pins_.contains(id))
    return id_in_use();
  auto it = requests_.find(stream);
  if (
    it == requests_.end() || it->second->epoch != epoch || it->second->over != finish_reason::none)
    return {
      errc::not_found,
      fmt::format("stream {} is not here under epoch {}", to_string(stream), epoch)};
  auto& request = *it->second;
  if (request.pinned)
    return {errc::queue_full, fmt::format("{} is on its way out already", request.text_id)};
  request.pinned = true;
  ++version_;
  return tell_leaving(pins_[id] = {&request});
}

result<leaving_request> modeled_engine::look(const handover_id& id) {
  auto it = pins_.find(id);
  if (it == pins_.end() || !it->second.pins)
    return {errc::not_found, "no such hand-over"};
  if (it->second.request == nullptr)
    return {errc::not_found, "the request ended"};
  return tell_leaving(it->second);
}

/// Also pins what was not yet: nobody outside can know of a block before it is told here.
leaving_request modeled_engine::tell_leaving(pin_hold& hold) {
  auto& request = *hold.request;
  auto used = (request.computed + setup_.block_tokens - 1) / setup_.block_tokens;
  leaving_request told{
    .request = request.as_request(),
    .written = request.computed,
    .blocks = {request.blocks.begin(), request.blocks.begin() + used},
    .running = request.running,
    .preemptions = request.preemptions,
    .prefilling = request.stand_at && !request.stands()};
  auto& held = hold.blocks;
  for (std::size_t i = 0; i < told.blocks.size(); ++i) {
    auto block = told.blocks[i];
    if (
      (i < held.size() && held[i] == block)
      || std::find(held.begin(), held.end(), block) != held.end())
      continue;
    blocks_.pin({&block, 1});
    held.push_back(block);
  }
  return told;
}

result<leaving_request> modeled_engine::freeze(const handover_id& id) {
  auto told = look(id);
  if (!told || pins_[id].request->frozen)
    return told;
  auto& request = *pins_[id].request;
  scheduler_.freeze(request);
  std::erase(adopted_, &request);
  ++version_;
  return told;
}

void modeled_engine::thaw(const handover_id& id, std::uint32_t epoch) {
  auto it = pins_.find(id);
  if (it == pins_.end() || it->second.request == nullptr || !it->second.request->frozen)
    return;
  auto& request = *it->second.request;
  request.epoch = epoch;
  request.arrival = --fronts_;
  scheduler_.thaw(request);
  if (request.untold > 0)
    adopted_.push_back(&request);
  if (!it->second.pins)
    let_go(it);
  ++version_;
}

void modeled_engine::drop(const handover_id& id) {
  auto it = pins_.find(id);
  if (it != pins_.end() && it->second.request != nullptr && it->second.request->frozen)
    remove(*it->second.request);
}

void modeled_engine::unpin(const handover_id& id) {
  auto it = pins_.find(id);
  if (it == pins_.end())
    return;
  blocks_.unpin(it->second.blocks);
  it->second.pins = false;
  if (it->second.request == nullptr || !it->second.request->frozen)
    let_go(it);
  ++version_;
}

/// Forgets a hand-over that holds nothing any more.
void modeled_engine::let_go(pin_holds::iterator hold) {
  if (hold->second.request != nullptr)
    hold->second.request->pinned = false;
  pins_.erase(hold);
}

/// A pinned request goes; what is pinned stays.
void modeled_engine::forget_pinned(const engine_request& request) {
  auto it = std::find_if(
    pins_.begin(), pins_.end(), [&](const auto& x) { return x.second.request == &request; });
  LLUMNIX_ASSERT(it != pins_.end());
  it->second.request = nullptr;
  if (!it->second.pins)
    pins_.erase(it);
}

// --- in ---

result<arriving_room> modeled_engine::reserve(
  const handover_id& id, const inference_request& request, std::uint32_t headroom) {
  if (rooms_.contains(id))
    return id_in_use();
  if (auto valid = validate(request); !valid)
    return std::move(valid).error();
  if (auto newer = validate_epoch(request); !newer)
    return std::move(newer).error();
  auto owned = std::make_unique<engine_request>(request, arrivals_, setup_.block_tokens);
  auto keys = owned->reusable_keys();
  keys = keys.first(blocks_.count_cached(keys));
  auto positions = owned->tokens() + std::min(headroom, setup_.max_model_len - owned->tokens());
  auto needed = (positions + setup_.block_tokens - 1) / setup_.block_tokens;
  auto spare = (blocks_.total() + spare_share - 1) / spare_share;
  if (!blocks_.take(keys, needed - static_cast<std::uint32_t>(keys.size()), owned->blocks, spare))
    return {
      errc::out_of_blocks,
      fmt::format(
        "{} blocks for {} tokens, {} of them cached, with {} to spare, are not among the {} free",
        needed, positions, keys.size(), spare, blocks_.free())};
  ++arrivals_;
  ++version_;
  auto present = static_cast<std::uint32_t>(keys.size()) * setup_.block_tokens;
  owned->computed = owned->written = present;
  owned->cached_tokens = std::min(present, owned->prompt_tokens);
  if (setup_.corrupt && setup_.corrupt->text_id == owned->text_id)
    owned->corrupt = setup_.corrupt->block;
  auto& in = rooms_[id] = {std::move(owned), present};
  return arriving_room{in.request->blocks, present, capacity(in)};
}

/// Positions a room has, tokens.
std::uint32_t modeled_engine::capacity(const room& in) const {
  auto blocks = static_cast<std::uint32_t>(in.request->blocks.size());
  return std::min(blocks * setup_.block_tokens, setup_.max_model_len);
}

result<void> modeled_engine::landed(
  const handover_id& id, std::span<const token_id> ids, std::uint32_t from, std::uint32_t to) {
  auto it = rooms_.find(id);
  if (it == rooms_.end())
    return {errc::not_found, "no such room"};
  auto& in = it->second;
  auto& request = *in.request;
  if (
    from > to || to > ids.size() || to > capacity(in) || from < in.present_tokens
    || from > request.computed)
    return {
      errc::invalid_argument,
      fmt::format(
        "positions {} to {} of {} ids do not follow on {} that are ready, {} of them shared, in a "
        "room of {}",
        from, to, ids.size(), request.computed, in.present_tokens, capacity(in))};
  if (!request.follow(ids))
    return contradiction(request);
  return verify_landed(in, from, to);
}

result<void> modeled_engine::verify_landed(room& in, std::uint32_t from, std::uint32_t to) {
  auto& request = *in.request;
  for (auto p = from; p < to; ++p) {
    auto index = p / setup_.block_tokens;
    auto block = request.blocks[index];
    if (pool_.holds(block, p % setup_.block_tokens, request.digests[p]))
      continue;
    request.computed = p;
    blocks_.distrust(std::span{request.blocks}.subspan(index));
    return {
      errc::bad_message, fmt::format(
                           "what landed in block {} (the {}. of {}) is not the KV of position {}",
                           block, index + 1, request.text_id, p)};
  }
  request.computed = std::max(request.computed, to);
  request.written = std::max(request.written, to);
  return {};
}

void modeled_engine::compute_ahead(const handover_id& id, std::span<const token_id> ids) {
  auto it = rooms_.find(id);
  if (it == rooms_.end() || ids.empty() || !it->second.request->follow(ids))
    return;
  auto& request = *it->second.request;
  auto wanted = std::min<std::size_t>(ids.size() - 1, capacity(it->second));
  request.prefill_tokens = std::max(request.prefill_tokens, static_cast<std::uint32_t>(wanted));
  scheduler_.compute_ahead(request);
}

std::uint32_t modeled_engine::ready_tokens(const handover_id& id) const {
  auto it = rooms_.find(id);
  return it == rooms_.end() ? 0 : it->second.request->computed;
}

result<void> modeled_engine::validate_adopted(
  const room& in, const inference_request& request, std::uint32_t sent) const {
  const auto& reserved = *in.request;
  if (auto valid = validate(request); !valid)
    return valid;
  if (request.stream != reserved.stream || request.prompt.size() != reserved.prompt_tokens)
    return {
      errc::invalid_argument,
      fmt::format("the room is that of {}, with another stream or prompt", reserved.text_id)};
  if (sent > request.output.size())
    return {
      errc::invalid_argument,
      fmt::format("{} output tokens are told to be sent, of {}", sent, request.output.size())};
  return validate_epoch(request);
}

result<void> modeled_engine::adopt(
  const handover_id& id, inference_request asked, std::uint32_t sent, time_point now) {
  auto it = rooms_.find(id);
  if (it == rooms_.end())
    return {errc::not_found, "no such room"};
  if (auto valid = validate_adopted(it->second, asked, sent); !valid)
    return valid;
  auto& request = *it->second.request;
  auto ids = std::move(asked.prompt);
  ids.insert(ids.end(), asked.output.begin(), asked.output.end());
  if (ids.size() < request.tokens() || !request.follow(ids))
    return contradiction(request);
  abort(asked.stream, asked.epoch);
  scheduler_.forget_ahead(request);
  requests_[asked.stream] = std::move(it->second.request);
  rooms_.erase(it);
  ++version_;
  request.epoch = asked.epoch;
  request.arrival = --fronts_;
  request.credit = asked.credit;
  request.submitted_tokens = request.tokens();
  request.untold = request.output_tokens() - sent;
  request.told_cached = sent > 0; // the source did that
  note_over(request);
  if (request.over != finish_reason::none) {
    blocks_.release(request.blocks);
    return {};
  }
  // The next token is read off the last position, which was never computed before.
  request.computed = std::min(request.computed, request.tokens() - 1);
  auto decodes = request.computed + 1 == request.tokens();
  request.prefill_tokens = decodes ? request.computed : request.tokens();
  request.spared_until = now + spared_for;
  scheduler_.adopt(request);
  if (request.untold > 0)
    adopted_.push_back(&request);
  return {};
}

void modeled_engine::give_up(const handover_id& id) {
  auto it = rooms_.find(id);
  if (it == rooms_.end())
    return;
  scheduler_.forget_ahead(*it->second.request);
  blocks_.release(it->second.request->blocks);
  rooms_.erase(it);
  ++version_;
}

// --- accounts ---

std::uint32_t modeled_engine::pinned_blocks() const {
  return blocks_.pinned();
}

std::uint32_t modeled_engine::reserved_blocks() const {
  std::size_t blocks = 0;
  for (const auto& [_, in] : rooms_)
    blocks += in.request->blocks.size();
  return static_cast<std::uint32_t>(blocks);
}

/// Requests on their way as vLLM's connector counts them; how many more may be is the llumlet's to
/// say.
void modeled_engine::collect_moves(instance_status& status) const {
  for (const auto& [_, hold] : pins_)
    if (hold.request != nullptr) {
      ++status.num_migrate_out_reqs;
      status.num_migrate_out_tokens += static_cast<std::int32_t>(hold.request->tokens());
    }
  for (const auto& [_, in] : rooms_) {
    ++status.num_migrate_in_reqs;
    status.num_migrate_in_tokens += static_cast<std::int32_t>(in.request->tokens());
  }
  status.kv_cache_usage_ratio_migrate_out
    = ratio_of(status.num_migrate_out_tokens, status.num_total_gpu_tokens);
  status.kv_cache_usage_ratio_migrate_in
    = ratio_of(status.num_migrate_in_tokens, status.num_total_gpu_tokens);
}

bool modeled_engine::conserves_blocks() const {
  std::vector<std::uint32_t> holders(blocks_.total());
  auto count = [&](const std::vector<block_index>& table) {
    for (auto block : table)
      ++holders[block];
  };
  for (const auto& [_, request] : requests_)
    count(request->blocks);
  for (const auto& [_, hold] : pins_)
    count(hold.blocks);
  for (const auto& [_, in] : rooms_)
    count(in.request->blocks);
  for (block_index block = 0; block < blocks_.total(); ++block)
    if (holders[block] != blocks_.references(block))
      return false;
  auto free = std::count(holders.begin(), holders.end(), 0u);
  return blocks_.consistent() && static_cast<std::uint32_t>(free) == blocks_.free();
}

} // namespace llumnix
