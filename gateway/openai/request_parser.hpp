#pragma once

#include "gateway/openai/api_error.hpp"
#include "gateway/openai/generation_request.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

namespace llumnix::openai {

/// Reads the bodies of generating requests (spec/gateway.md 5 and 6, marks NEW). Keys are
/// case-sensitive, unknown ones are ignored, of duplicates the last counts, `null` leaves the
/// default, 5.0 is an integer; what `forgive` can mend is no mistake. Keeps its buffers from one
/// body to the next: one for each thread.
class request_parser {
public:
  /// `max_choices`: prompts x n of one request at most.
  explicit request_parser(std::uint32_t max_choices);
  ~request_parser();

  /// The request, or the first thing wrong with it. The body's capacity may grow (the parser reads
  /// past its end).
  std::variant<generation_request, api_error> parse(endpoint kind, std::string& body);

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace llumnix::openai
