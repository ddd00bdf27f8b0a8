#pragma once

#include "config/cluster_config.hpp"

#include <cstddef>
#include <string>
#include <string_view>

/// How values are written for people, and what is wrong with those people write; `load_config.hpp`
/// has the functions that read them back.
namespace llumnix {

/// The shortest exact form: "250ms", "10s", "2m", "1h".
std::string format_duration(milliseconds value);

/// The shortest exact form with a binary unit: "64KiB", "2GiB", "100".
std::string format_size(std::size_t value);

/// What is wrong with an engine's URL, as the end of a sentence that begins with it; empty if
/// nothing is, and then `address` is its HOST:PORT.
std::string read_engine_url(std::string_view url, std::string& address);

/// The shortest decimal form that reads back to the same value: "0.7", "8192".
std::string format_number(double value);

} // namespace llumnix
