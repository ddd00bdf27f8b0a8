#include "gateway/relay/stop_seam.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {

std::size_t characters_back(std::string_view text, std::size_t characters) {
  auto at = text.size();
  for (; characters > 0 && at > 0; --characters)
    do
      --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

stop_seam::stop_seam(const relay_request& request, std::string before, std::size_t hidden)
  : request_{&request}, text_{std::move(before)}, hidden_{hidden} {}

stop_seam::passage stop_seam::pass(const chunk_choice& choice) {
  auto old = text_.size();
  auto unseen = old - hidden_;
  text_ += choice.text;
  auto found = find_stop(old);
  bool ends = !choice.finish_reason.empty();
  bool by_token = choice.finish_reason == "stop" && found.stop.empty();
  if (by_token && choice.ids.size() == 1 && !shows_stops())
    text_.resize(old);
  auto end = text_.size();
  if (!found.stop.empty())
    end = shows_stops() ? found.end : found.begin;
  else if (!ends)
    end = std::max(unseen, characters_back(text_, request_->held_back));
  passage passed{text_.substr(unseen, end - unseen), found.stop};
  hidden_ = text_.size() - end;
  text_.erase(0, characters_back(text_, request_->stop_reach));
  return passed;
}

/// The stop string that ends behind the `old` bytes of the text and before all others that do.
stop_seam::match stop_seam::find_stop(std::size_t old) const {
  match first;
  for (const auto& stop : request_->stops) {
    if (stop.empty())
      continue;
    auto begin = text_.find(stop, old - std::min(old, stop.size() - 1));
    if (begin != std::string::npos && (first.stop.empty() || begin + stop.size() < first.end))
      first = {stop, begin, begin + stop.size()};
  }
  return first;
}

} // namespace llumnix::relay
