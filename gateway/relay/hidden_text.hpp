#pragma once

#include "runtime/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

/// Text that an engine held back of tokens it told, as it does where stop strings are not shown,
/// and how it is found out: another engine is asked for the text of the last tokens. A plain value.
struct hidden_text {
  std::uint32_t behind = 0;     ///< so many tokens of the output it ends
  std::vector<token_id> tokens; ///< to be asked for: the last of prompt and output
  /// Where no text is known: so many of those are the prompt's, and to be asked for alone, too.
  std::size_t of_prompt = 0;
  std::string known;            ///< the end of the text that is known
  std::size_t unseen = 0;       ///< bytes of that which were not shown
  std::uint32_t characters = 0; ///< that follow; with nothing known the most that do

  /// All that was not shown, from the text of `tokens` and that of the first `of_prompt` of them.
  /// Nothing where these do not go with what is known, or end within a character.
  std::optional<std::string> found_in(std::string_view all, std::string_view prompt) const;
};

} // namespace llumnix::relay
