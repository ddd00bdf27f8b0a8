#pragma once

#include <span>
#include <string_view>

namespace llumnix {

/// The name in `known` that `wanted` is probably a misspelling of, or empty when none is near
/// enough. Near: at most one edit per three letters, and at least one is allowed; ties go to the
/// one that begins most alike, then to the earlier.
std::string_view nearest_name(std::string_view wanted, std::span<const std::string_view> known);

/// Insertions, deletions, replacements and swaps of neighbours that turn one name into the other.
std::size_t edit_distance(std::string_view from, std::string_view to);

} // namespace llumnix
