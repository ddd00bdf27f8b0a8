#pragma once

#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What an engine's /v1/models says.
struct model_list {
  std::vector<std::string> entries; ///< as sent: {"id":...}
  std::vector<std::string> ids;     ///< of `entries`, in the same order, each once
  std::vector<std::string> adapters; ///< those of `ids` that name another model as their `parent`
  std::string owned_by;             ///< of the first entry: "vllm", "sglang", ...
  std::uint32_t max_model_len = 0;  ///< tokens, of the first entry that tells; 0: none does
  bool cut = false;                 ///< some were left out: named twice, or without a usable id
};

/// As many as `body` holds, which its reader bounds. `bad_message` for what is not JSON, or not an
/// object with an array `data`.
result<model_list> read_models(std::string_view body);

/// The version in the answer to /version; `bad_message` if there is none that could be shown.
result<std::string> read_version(std::string_view body);

/// Whether an engine tells token ids when asked and takes them as a prompt: vLLM does since 0.10.2,
/// and so is a vLLM believed to whose version is no number. `version`: empty if it has none.
bool tells_token_ids(std::string_view owned_by, std::string_view version);

/// Whether an engine goes on with a text when told to (`continue_final_message` of a chat) and
/// tells on every chunk how many tokens it has (`continuous_usage_stats`): vLLM and SGLang do.
bool goes_on_with_text(std::string_view owned_by);

/// Whether an engine has the way for token ids in and out, by the status with which it answers a
/// request there that has none: vLLM finds that wrong where the way is open, and answers 403, or
/// 404 of old, where it is not.
bool takes_tokens(int status);

/// An engine's name for people: "vLLM 0.32.0", "SGLang", "OpenAI-compatible".
std::string name_engine(std::string_view owned_by, std::string_view version);

} // namespace llumnix
