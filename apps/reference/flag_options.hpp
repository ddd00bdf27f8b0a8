#pragma once

#include "apps/reference/flag_table.hpp"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>
#include <vector>

namespace llumnix {

/// Gives a command the flags of a table. They come as words `--flag NAME=VALUE`, which
/// `without_go_style` makes of them and which end in `words`; under their own names they are there
/// for the help, and for whoever leaves a value out.
void add_flag_options(CLI::App& command, flag_table table, std::vector<std::string>& words);

/// Words NAME=VALUE as flags; the last of each name counts.
given_flags as_given(const std::vector<std::string>& words);

} // namespace llumnix
