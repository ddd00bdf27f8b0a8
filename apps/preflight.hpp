#pragma once

#include "config/load_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/scheduling/latency_profile.hpp"

#include <vector>

/// What can be known of a configuration before a process is started for it, beyond what `check`
/// says.
namespace llumnix {

/// Adds what the scheduler and the modeled engine find wrong with their knobs: names of policies,
/// metrics and latency models, files of profiles, sizes of an engine. Nothing is told of a knob
/// that `problems` names already.
void check_parts(const cluster_config& config, std::vector<config_problem>& problems);

/// Adds that the policy places no requests such as gateways have, unless it is wrong anyway: a
/// cluster like that would refuse every one.
void check_served(const cluster_config& config, std::vector<config_problem>& problems);

/// Knobs that are set and change nothing under the policy, each with what would mend that. They are
/// no problems: flags of the reference allow them.
std::vector<config_problem> idle_knobs(const scheduler_config& config);

/// Adds what this machine cannot do for a configuration that is right: an address that is in use or
/// not ours, and with `modeled` engines too little memory for the KV pool of one.
void check_machine(
  const cluster_config& config, bool modeled, std::vector<config_problem>& problems);

/// The measured times that the config names files of; none where it names none. Fails on files that
/// cannot be used, with the knob, the file and the line; what in them may surprise is logged.
result<latency_profile> read_profiles(const scheduler_config& config);

} // namespace llumnix
