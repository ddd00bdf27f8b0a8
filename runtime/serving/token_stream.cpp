#include "runtime/serving/token_stream.hpp"

#include <algorithm>

namespace llumnix {

token_stream::token_stream(
  const tokenizer& words, std::vector<std::string> stop, bool include_stop,
  std::uint32_t min_tokens)
  : words_{&words}, stop_{std::move(stop)}, include_stop_{include_stop}, min_tokens_{min_tokens} {
  std::erase(stop_, std::string{});
}

bool token_stream::take(token_id id) {
  auto before = pending_.size();
  words_->append_text(id, pending_);
  ++taken_;
  if (taken_ > min_tokens_) {
    for (const auto& stop : stop_) {
      // A match must end within the new text; it begins within what is pending, since no prefix of
      // a stop string is ever shown.
      auto from = before >= stop.size() ? before - stop.size() + 1 : 0;
      auto at = pending_.find(stop, from);
      if (at == std::string::npos)
        continue;
      match_ = stop;
      pending_.resize(include_stop_ ? at + stop.size() : at);
      ready_ = pending_.size();
      return true;
    }
  }
  ready_
    = utf8_complete_prefix(std::string_view{pending_}.substr(0, pending_.size() - held_back()));
  return false;
}

void token_stream::end() {
  auto whole = utf8_complete_prefix(pending_);
  if (whole < pending_.size())
    pending_.replace(whole, std::string::npos, "\xEF\xBF\xBD");
  ready_ = pending_.size();
}

void token_stream::shown() {
  pending_.erase(0, ready_);
  ready_ = 0;
}

/// Length of the longest end of the pending text that begins a stop string.
std::size_t token_stream::held_back() const {
  std::size_t held = 0;
  for (const auto& stop : stop_)
    for (auto length = std::min(stop.size() - 1, pending_.size()); length > held; --length)
      if (pending_.compare(pending_.size() - length, length, stop, 0, length) == 0) {
        held = length;
        break;
      }
  return held;
}

} // namespace llumnix
