#pragma once

#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/cluster/instance.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// The names that fields of an instance's records have on the wire (spec/cms.md 1.2, 4.1), which
/// are those of scenes too.
namespace llumnix {

template <class Record>
struct proto_field {
  std::string_view name;
  std::variant<
    std::string Record::*, bool Record::*, std::int32_t Record::*, std::int64_t Record::*,
    double Record::*, std::vector<std::string> Record::*>
    member;
};

/// All fields in the order of their numbers, but for the id, which stands beside the records.
std::span<const proto_field<instance_metadata>> metadata_fields();
std::span<const proto_field<instance_status>> status_fields();

/// A counter of the local account.
struct account_field {
  std::string_view name;
  std::int32_t inflight_load::*member;
};
std::span<const account_field> account_fields();
/// Those that `scheduler.priority_aware` looks at. No records have them: the names are ours.
std::span<const account_field> priority_fields();

} // namespace llumnix
