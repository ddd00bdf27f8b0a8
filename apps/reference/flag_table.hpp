#pragma once

#include "config/cluster_config.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

/// Flags of the reference's programs as tables: what there is, how values are written, and what
/// becomes of each here.
namespace llumnix {

enum class flag_form {
  text,
  whole,    ///< a whole number
  number,   ///< with a fraction
  toggle,   ///< `--flag`, `--flag=false`
  duration, ///< as Go writes them: 1m30s, 500ms
};

/// What becomes of a flag.
enum class flag_fate {
  knob,    ///< sets the knob that `word` names
  works,   ///< does what it says, by code of its own
  taken,   ///< changes nothing; `word` says why nothing is amiss
  missing, ///< only its preset is accepted: this build has no `word`
};

struct reference_flag {
  std::string_view group;
  std::string_view name; ///< without dashes
  flag_form form;
  std::string_view preset;
  std::string_view meaning; ///< for --help
  flag_fate fate;
  std::string_view word = {};
  std::string_view unit = {}; ///< of a plain number that is a time: "s", "ms"
};

using flag_table = std::span<const reference_flag>;

/// The flag of that name; nullptr if there is none.
const reference_flag* find_flag(flag_table table, std::string_view name);

/// Tables one after another, as one.
template <std::size_t... Sizes>
constexpr auto join_tables(const std::array<reference_flag, Sizes>&... parts) {
  std::array<reference_flag, (Sizes + ...)> whole{};
  auto end = whole.begin();
  ((end = std::copy(parts.begin(), parts.end(), end)), ...);
  return whole;
}

/// Flags as given: name to value, the last of each name.
using given_flags = std::map<std::string, std::string, std::less<>>;

/// A flag's name as one writes it: "--port".
std::string dashed(std::string_view name);

/// A value of a flag: toggle, whole, number, and text (a duration too, written like 1500ms).
using flag_value = std::variant<bool, std::int64_t, double, std::string>;

/// Reads a value as the reference does, so that 0x10 is a whole number too; nothing if it is none
/// of that form. A number may be infinite, but never NaN.
std::optional<flag_value> read_flag(flag_form form, std::string_view text);

/// The one way to write a value.
std::string to_text(const flag_value& value);

/// A value as the subject of a sentence: not too long, and never nothing.
std::string shown_value(std::string_view text);

/// Says that `text` is no value of that form.
std::string wrong_form(flag_form form, std::string_view text);

/// A duration like Go's: a sequence of numbers with units, "1m30s", "1.5h", "500ms", and "0".
/// Rounded up to milliseconds; false if it is none or below 0.
bool parse_go_duration(std::string_view text, milliseconds& value);

} // namespace llumnix
