#include "runtime/engine/engine_request.hpp"

#include "runtime/engine/modeled_tokens.hpp"

#include <algorithm>

namespace llumnix {

engine_request::engine_request(
  inference_request request, std::uint64_t arrival, std::uint32_t block_tokens)
  : stream{std::move(request.stream)},
    epoch{request.epoch},
    text_id{std::move(request.text_id)},
    model{std::move(request.model)},
    wishes{std::move(request.wishes)},
    status_id{"cmpl-" + text_id + "-0"},
    sampling{std::move(request.sampling)},
    key{modeled::sampling_key(sampling)},
    priority{request.priority},
    credit{request.credit},
    arrival{arrival},
    prompt_tokens{static_cast<std::uint32_t>(request.prompt.size())},
    submitted_tokens{static_cast<std::uint32_t>(request.prompt.size() + request.output.size())},
    ids{std::move(request.prompt)},
    block_tokens_{block_tokens} {
  ids.insert(ids.end(), request.output.begin(), request.output.end());
  digests.reserve(ids.size() + block_tokens);
  for (auto id : ids)
    append_digest(id);
}

void engine_request::append(token_id id) {
  ids.push_back(id);
  append_digest(id);
}

bool engine_request::follow(std::span<const token_id> all) {
  auto common = std::min(ids.size(), all.size());
  if (!std::equal(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(common), all.begin()))
    return false;
  for (auto id : all.subspan(common))
    append(id);
  return true;
}

inference_request engine_request::as_request() const {
  auto output = ids.begin() + static_cast<std::ptrdiff_t>(prompt_tokens);
  return {
    .stream = stream,
    .epoch = epoch,
    .text_id = text_id,
    .model = model,
    .prompt = {ids.begin(), output},
    .output = {output, ids.end()},
    .sampling = sampling,
    .priority = priority,
    .credit = credit,
    .wishes = wishes,
  };
}

std::span<const std::uint64_t> engine_request::reusable_keys() const {
  return std::span{keys}.first(std::min<std::size_t>(keys.size(), (tokens() - 1) / block_tokens_));
}

void engine_request::append_digest(token_id id) {
  digests.push_back(modeled::next_digest(digests.empty() ? 0 : digests.back(), id));
  if (digests.size() % block_tokens_ == 0)
    keys.push_back(digests.back());
}

} // namespace llumnix
