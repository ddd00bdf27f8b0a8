#include "apps/reference/flag_options.hpp"

#include <algorithm>

namespace llumnix {

namespace {

std::string_view type_of(flag_form form) {
  switch (form) {
    case flag_form::text: return "TEXT";
    case flag_form::whole: return "N";
    case flag_form::number: return "NUMBER";
    case flag_form::toggle: return "";
    case flag_form::duration: return "DURATION";
  }
  return "";
}

} // namespace

given_flags as_given(const std::vector<std::string>& words) {
  given_flags flags;
  for (const auto& word : words)
    flags[word.substr(0, word.find('='))]
      = word.substr(std::min(word.find('='), word.size() - 1) + 1);
  return flags;
}

void add_flag_options(CLI::App& command, flag_table table, std::vector<std::string>& words) {
  command.add_option("--flag", words)->allow_extra_args(false)->group("");
  for (const auto& flag : table) {
    std::string meaning{flag.meaning};
    if (flag.fate == flag_fate::missing)
      meaning += " (not in this build)";
    else if (flag.fate == flag_fate::taken)
      meaning += " (no effect)";
    command
      .add_option_function<std::string>(
        dashed(flag.name), [](const std::string&) {}, meaning)
      ->group(std::string{flag.group})
      ->type_name(std::string{type_of(flag.form)})
      ->default_str(std::string{flag.preset});
  }
}

} // namespace llumnix
