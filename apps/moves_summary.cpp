#include "apps/moves_summary.hpp"

#include "apps/exit_codes.hpp"

#include <utility>

namespace llumnix {

bool was_there(const admin_document& move) {
  if (!move.is_object() || move.value("outcome", "") != "refused")
    return false;
  auto from = move.find("from");
  auto to = move.find("to");
  return from != move.end() && to != move.end() && from->is_string() && *from == *to;
}

moves_summary summary_of(const admin_document& answer) {
  moves_summary sum;
  auto moves = answer.is_object() ? answer.find("moves") : answer.end();
  if (moves == answer.end() || !moves->is_array())
    return sum;
  for (auto& each : *moves) {
    auto outcome = each.is_object() ? each.value("outcome", "") : "";
    if (was_there(each))
      ++sum.there;
    else if (outcome == "moved")
      ++sum.moved;
    else if (outcome == "finished")
      ++sum.finished;
    else if (outcome == "refused")
      ++sum.refused;
    else if (outcome == "failed")
      ++sum.failed;
  }
  if (sum.moved + sum.finished + sum.refused + sum.failed == 0)
    sum.refused = std::exchange(sum.there, 0);
  return sum;
}

int exit_code_for(const moves_summary& moves) {
  if (moves.failed > 0)
    return exit_code::failed;
  bool nothing = moves.moved + moves.finished == 0;
  return nothing || moves.refused > 0 ? exit_code::refused : exit_code::done;
}

} // namespace llumnix
