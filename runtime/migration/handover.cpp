#include "runtime/migration/handover.hpp"

#include <array>
#include <cstdio>

namespace llumnix {

std::string to_string(const handover_id& id) {
  std::array<char, 33> text{};
  std::snprintf(
    text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(id.high),
    static_cast<unsigned long long>(id.low));
  return text.data();
}

std::string_view to_string(move_path path) {
  switch (path) {
    case move_path::kv: return "kv";
    case move_path::recompute: return "recompute";
  }
  return "unknown";
}

std::string_view handover::to_string(commit_failure why) {
  switch (why) {
    case commit_failure::refused: return "refused";
    case commit_failure::aborted: return "aborted";
    case commit_failure::unknown: return "unknown";
  }
  return "unknown";
}

std::string_view handover::to_string(claim_verdict verdict) {
  switch (verdict) {
    case claim_verdict::granted: return "granted";
    case claim_verdict::aborted: return "aborted";
    case claim_verdict::superseded: return "superseded";
  }
  return "unknown";
}

void id_digest::add(std::span<const token_id> ids) {
  for (auto id : ids)
    for (int byte = 0; byte < 4; ++byte)
      value_ = (value_ ^ ((id >> (8 * byte)) & 0xFFu)) * 0x100000001B3ull;
}

std::uint64_t digest_of(const std::vector<token_id>& prompt, const std::vector<token_id>& output) {
  id_digest digest;
  digest.add(prompt);
  digest.add(output);
  return digest.value();
}

} // namespace llumnix
