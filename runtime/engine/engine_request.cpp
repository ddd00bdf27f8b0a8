#include "runtime/engine/engine_request.hpp"

#include "runtime/engine/modeled_tokens.hpp"

namespace llumnix {

engine_request::engine_request(
  inference_request request, std::uint64_t arrival, std::uint32_t block_tokens)
  : stream{std::move(request.stream)},
    epoch{request.epoch},
    text_id{std::move(request.text_id)},
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

void engine_request::append_digest(token_id id) {
  digests.push_back(modeled::next_digest(digests.empty() ? 0 : digests.back(), id));
  if (digests.size() % block_tokens_ == 0)
    keys.push_back(digests.back());
}

} // namespace llumnix
