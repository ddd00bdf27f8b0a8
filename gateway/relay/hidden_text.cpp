#include "gateway/relay/hidden_text.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/stop_seam.hpp"

namespace llumnix::relay {

std::optional<std::string>
hidden_text::found_in(std::string_view all, std::string_view prompt) const {
  constexpr std::string_view replacement = "\xEF\xBF\xBD"; // of a character that is not whole
  if (all.ends_with(replacement))
    return std::nullopt;
  if (known.empty()) { // the tokens told have some text, as there is a place behind them
    bool fits = !prompt.empty() && all.size() > prompt.size() && all.starts_with(prompt)
                && !prompt.ends_with(replacement)
                && openai::count_characters(all.substr(prompt.size())) <= characters;
    return fits ? std::optional{std::string{all.substr(prompt.size())}} : std::nullopt;
  }
  auto begin = characters_back(all, characters);
  if (!all.substr(0, begin).ends_with(known))
    return std::nullopt;
  return known.substr(known.size() - unseen) + std::string{all.substr(begin)};
}

} // namespace llumnix::relay
