#include "apps/reference/go_style.hpp"

#include <algorithm>

namespace llumnix {

std::vector<std::string> without_go_style(flag_table table, const std::vector<std::string>& words) {
  std::vector<std::string> own;
  auto put = [&](std::string_view name, std::string_view value) {
    own.emplace_back("--flag");
    own.push_back(std::string{name} + "=" + std::string{value});
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    auto dashes = std::min(word.find_first_not_of('-'), word.size());
    auto name = word.substr(dashes, word.find('=') - dashes);
    const auto* flag = dashes == 1 || dashes == 2 ? find_flag(table, name) : nullptr;
    if (word == "--") {
      own.insert(own.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    if (!flag)
      own.push_back(dashes == 1 && name.size() > 1 ? "-" + words[i] : words[i]);
    else if (auto equals = word.find('='); equals != word.npos)
      put(name, word.substr(equals + 1));
    else if (flag->form == flag_form::toggle)
      put(name, "true");
    else if (i + 1 < words.size())
      put(name, words[++i]);
    else
      own.push_back(dashed(name)); // its value is missed by whoever reads this
  }
  return own;
}

} // namespace llumnix
