#pragma once

#include "apps/reference/flag_table.hpp"
#include "config/load_config.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

/// The flags of the reference's scheduler program (spec/scheduling.md 1.3): of `llumnix scheduler`
/// and, as `config.flags`, of the scenes that `llumnix decide` answers.
namespace llumnix {

/// Every one of them, and those of the log.
flag_table scheduler_flags();

/// A value for every flag, of the type that its form says.
///
/// Names are those of the table, without dashes; to ask for one that is not there, or by the wrong
/// type, is a bug of the caller and stops the process.
class scheduler_flag_values {
public:
  /// The presets.
  scheduler_flag_values();

  bool toggle(std::string_view name) const;
  std::int64_t whole(std::string_view name) const;
  double number(std::string_view name) const; ///< may be infinite, never NaN
  const std::string& text(std::string_view name) const;

  void set(std::string_view name, flag_value value);

  /// All but those of the log by their names; infinities as "inf" and "-inf". Passwords are in it.
  nlohmann::json to_json() const;

private:
  const flag_value& at(std::string_view name) const;

  std::map<std::string, flag_value, std::less<>> values_;
};

/// What became of flags that were given.
struct scheduler_flags_read {
  scheduler_flag_values values; ///< effective: after `extra-args` and coercion
  /// Paths are names without dashes, and empty if what was given is no object of flags. Without
  /// problems `values` holds.
  std::vector<config_problem> problems;
  std::vector<std::string> warnings; ///< "--name: what was passed over or replaced, and why"
};

/// Reads flags of a command line, applies `extra-args` on top, and verifies and coerces as the
/// reference does when it starts (spec/scheduling.md 1.1, 1.2).
scheduler_flags_read read_scheduler_flags(const given_flags& given);

/// The same for `config.flags` of a scene, an object of names and values: a truth value, a number
/// or a string as the flag's form wants it, or a string that would do on a command line; where the
/// text is a list with commas, also an array of strings.
scheduler_flags_read read_scheduler_flags(const nlohmann::json& given);

/// Placement as these flags have it. Profiles are the files that flags name; `seed` and
/// `kv_hash_seed`, which no flag sets, stay at their presets. A number that does not fit becomes
/// the nearest one that does; a KV store that is not Mooncake stands as its name in `kv_index`.
scheduler_config scheduler_config_of(const scheduler_flag_values& values);

/// Plans as these flags have them; with adaptive PD those of its policies that are not listed come
/// after the others (spec/rescheduling.md 1.2).
rescheduler_config rescheduler_config_of(const scheduler_flag_values& values);

} // namespace llumnix
