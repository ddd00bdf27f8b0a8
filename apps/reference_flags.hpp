#pragma once

#include "config/load_config.hpp"

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The flags of the reference's gateway program (spec/gateway.md 2): `llumnix gateway` takes them
/// all, does with each what a knob of ours does, and says so where there is none.
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

std::span<const reference_flag> reference_flags();

/// Flags as given: name to value, the last of each name.
using given_flags = std::map<std::string, std::string, std::less<>>;

/// Command line words in the manner of Go (`-flag value`, `--flag=value`, a lone `-toggle`) as
/// words that our own parser takes: each flag of the reference becomes `--flag NAME=VALUE`. Other
/// words stay, but that a single dash in front of a long name becomes two.
std::vector<std::string> without_go_style(const std::vector<std::string>& words);

/// `--extra-args`, read.
struct extra_args {
  std::vector<std::pair<std::string, std::string>> flags; ///< name and value, in order
  std::vector<std::string> warnings;                      ///< of what is passed over
};
/// Reads "name=value,name='a,b',name=[1,2]": commas separate outside of quotes and brackets.
extra_args read_extra_args(std::string_view text);

/// A duration like Go's: a sequence of numbers with units, "1m30s", "1.5h", "500ms", and "0".
/// Rounded up to milliseconds; false if it is none or below 0.
bool parse_go_duration(std::string_view text, milliseconds& value);

/// What flags made of a configuration, beside the changes in it.
struct flag_effects {
  std::vector<config_problem> problems; ///< their paths are flags, "--port"
  std::vector<std::string> notes;       ///< for the log: what has no effect, and why
  bool debug = false;                   ///< a detailed log is wanted (`-v`)
};

/// What a gateway of the reference is without any flag, as far as knobs say it: the address it
/// listens on, its roles, lite mode.
void set_reference_defaults(cluster_config& config);

/// Applies flags, `extra-args` on top. Redis is where engines are found unless flags or the
/// configuration say otherwise.
flag_effects apply_reference_flags(given_flags given, cluster_config& config);

} // namespace llumnix
