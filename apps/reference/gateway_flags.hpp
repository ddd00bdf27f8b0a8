#pragma once

#include "apps/reference/flag_table.hpp"
#include "config/load_config.hpp"

#include <string>
#include <vector>

/// The flags of the reference's gateway program (spec/gateway.md 2): `llumnix gateway` takes them
/// all, does with each what a knob of ours does, and says so where there is none.
namespace llumnix {

/// Every one of them, and those of the log.
flag_table gateway_flags();

/// What flags made of a configuration, beside the changes in it.
struct flag_effects {
  std::vector<config_problem> problems; ///< their paths are flags, "--port"
  std::vector<std::string> notes;       ///< for the log: what has no effect, and why
  std::vector<std::string> warnings;    ///< likewise: what was probably meant otherwise
  bool debug = false;                   ///< a detailed log is wanted (`-v`)
};

/// What a gateway of the reference is without any flag, as far as knobs say it: the address it
/// listens on, its roles, lite mode.
void set_reference_defaults(cluster_config& config);

/// Applies flags, `extra-args` on top. Redis is where engines are found unless flags or the
/// configuration say otherwise.
flag_effects apply_reference_flags(given_flags given, cluster_config& config);

/// Names problems by these flags (flag_names.hpp).
void name_flags(given_flags given, std::vector<config_problem>& problems);

} // namespace llumnix
