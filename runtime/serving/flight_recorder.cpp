#include "runtime/serving/flight_recorder.hpp"

#include <string_view>

namespace llumnix {

void flight_recorder::note(const std::string& text_id, flight_event event) {
  auto& record = records_[text_id];
  if (record.text_id.empty() || record.ended) {
    record = {};
    record.text_id = text_id;
    record.life = ++lives_;
  }
  if (record.events.size() == flight_record::max_events)
    record.events.erase(record.events.begin() + flight_record::max_events / 2);
  record.events.push_back(std::move(event));
}

void flight_recorder::end(const std::string& text_id, flight_event event) {
  note(text_id, std::move(event));
  auto& record = records_[text_id];
  record.ended = true;
  ended_.emplace_back(text_id, record.life);
  if (ended_.size() <= ended_max_)
    return;
  auto oldest = records_.find(ended_.front().first);
  if (oldest != records_.end() && oldest->second.life == ended_.front().second)
    records_.erase(oldest);
  ended_.pop_front();
}

std::vector<const flight_record*> flight_recorder::find(const std::string& id) const {
  std::vector<const flight_record*> found;
  for (auto at = records_.lower_bound(id); at != records_.end() && at->first.starts_with(id);
       ++at) {
    auto rest = std::string_view{at->first}.substr(id.size());
    bool related
      = rest.empty()
        || ((rest[0] == '.' || rest[0] == '-') && rest.size() > 1 && rest.find_first_not_of("0123456789.-", 1) == std::string_view::npos);
    if (related)
      found.push_back(&at->second);
  }
  return found;
}

} // namespace llumnix
