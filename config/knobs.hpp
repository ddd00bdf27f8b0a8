#pragma once

#include "config/cluster_config.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// The member of a `cluster_config` a knob stands for. Its type decides which texts and JSON values
/// fit.
using knob_field = std::variant<
  bool*, std::uint32_t*, std::uint64_t*, double*, milliseconds*, std::string*,
  std::vector<std::string>*>;

/// What a number or a string means where its type does not tell.
enum class knob_form {
  plain,
  bytes,            ///< a size: `64KiB` is taken too
  name,             ///< letters, digits, '_', '.', '-'; not empty
  address,          ///< HOST:PORT
  optional_address, ///< HOST:PORT or empty
  peer_address,     ///< HOST:PORT to dial, so the port is not 0; empty where it is a single string
  engine_url,       ///< http://HOST:PORT, a closing slash allowed
};

/// One knob: everything the loader, `--set`, the schema and the help know about it.
struct knob {
  std::string_view path;
  knob_field (*field)(cluster_config&) = nullptr;
  std::string_view doc; ///< one line
  double minimum = 0;   ///< of numbers; milliseconds for durations
  double maximum = std::numeric_limits<double>::infinity();
  knob_form form = knob_form::plain;
  bool secret = false;                            ///< never printed
  std::span<const std::string_view> choices = {}; ///< of strings and list items; empty: any
};

/// Every knob of `cluster_config`, in the order of its structs.
std::span<const knob> knobs();

/// The knob of that path; nullptr if there is none.
const knob* find_knob(std::string_view path);

/// Whether some knob's path begins with `name` and a dot.
bool is_section(std::string_view name);

/// What the author of an unknown path probably meant: a knob or a section; empty if nothing is
/// near.
std::string_view nearest_path(std::string_view path);

} // namespace llumnix
