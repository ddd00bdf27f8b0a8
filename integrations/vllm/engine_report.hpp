#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/cluster/instance.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What a look at an engine behind HTTP found.
struct engine_report {
  instance_id id;
  bool ready = false;  ///< takes work: answers /health with 200
  std::string trouble; ///< what it did instead, for people: "cannot be reached", "answers 503"
  bool lost = false;   ///< has answered nothing at all for `hung_after`, though it did before: what
                       ///< it was asked will not come
  std::string
    kind; ///< for people: "vLLM 0.32.0", "SGLang", "OpenAI-compatible"; empty: not known yet
  bool token_ids
    = false; ///< tells token ids when asked (`return_token_ids`) and takes them as a prompt
  bool continues_text = false; ///< goes on with a text when told to, and counts its tokens by chunk
  bool wants_key = false;      ///< answers 401 to some of what it is asked
  bool aborts = false;         ///< has an API to abort requests (`/inference/v1/abort_requests`)
  std::optional<bool> tokens;  ///< has a way for token ids in and out
                               ///< (`/inference/v1/generate`); nothing: not known yet
  std::uint32_t max_model_len = 0; ///< tokens; 0: not told
  /// The entries of its /v1/models, as sent ({"id":…}).
  std::vector<std::string> models;
  std::vector<std::string> model_ids;
  std::vector<std::string> adapters; ///< LoRAs among `model_ids`
  /// Load by its /metrics; `schedulable` says `ready`. Identity is left to the llumlet.
  instance_status status;
};

/// What an engine is and can, for people: "vLLM 0.32.0 (token ids, abort, generate)", "SGLang (text
/// only)", "OpenAI-compatible (text only; answers 401, see gateway.engine_key)", and what keeps it
/// from taking work: "vLLM 0.32.0 (token ids); answers 503"; empty while nothing is known.
std::string describe_engine(const engine_report& report);

/// What an operator is to read of an engine that refuses our questions.
inline constexpr std::string_view engine_key_hint = "see gateway.engine_key";

} // namespace llumnix
