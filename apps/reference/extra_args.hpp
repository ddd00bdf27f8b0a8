#pragma once

#include "apps/reference/flag_table.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// `--extra-args`, read.
struct extra_args {
  std::vector<std::pair<std::string, std::string>> flags; ///< name and value, in order
  std::vector<std::string> warnings;                      ///< of what is passed over
};

/// Reads "name=value,name='a,b',name=[1,2]": commas separate outside of quotes and brackets
/// (spec/scheduling.md 1.1).
extra_args read_extra_args(std::string_view text);

/// Puts the flags that `extra-args` names over those given. As the reference has it, what is wrong
/// with them is passed over; each of the answers says so of one.
std::vector<std::string> put_extra_args_on_top(flag_table table, given_flags& given);

} // namespace llumnix
