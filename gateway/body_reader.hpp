#pragma once

#include "config/cluster_config.hpp"
#include "gateway/openai/api_error.hpp"
#include "gateway/openai/request_parser.hpp"
#include "gateway/openai/tokenize.hpp"
#include "gateway/relay/relay_request.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// How a body is to be read.
struct body_form {
  openai::endpoint kind = openai::endpoint::chat;
  bool relayed = false;            ///< for an engine behind HTTP, which reads most of it by itself
  std::uint32_t max_model_len = 0; ///< tokens of prompt and output; 0: unknown
};

/// A generating request that has only to be placed.
struct checked_request {
  openai::generation_request wish; ///< without its messages and prompts
  std::vector<openai::tokenized_prompt> prompts;
};

/// A request that only has to be passed on.
struct relayable_request {
  relay::relay_request wish;
};

/// What a body turned out to hold.
using body_content = std::variant<openai::api_error, checked_request, relayable_request>;

/// Reads the bodies of generating requests as far as that needs nothing but the body: parsed,
/// checked, tokenized. Keeps buffers from one body to the next: one for each thread.
class body_reader {
public:
  /// Both outlive the reader.
  body_reader(const gateway_config& config, const tokenizer& words);
  /// The body's capacity may grow.
  body_content read(const body_form& form, std::string& body);

private:
  body_content read_tokens(const body_form& form, std::string& body);
  body_content read_relayed(const body_form& form, const std::string& body);

  const gateway_config& config_;
  const tokenizer& words_;
  openai::request_parser parser_;
  relay::request_reader relay_reader_;
};

/// The error for a model that is not served.
openai::api_error unknown_model(std::string_view name);

} // namespace llumnix
