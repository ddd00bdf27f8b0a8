#include "runtime/serving/flight_recorder.hpp"

#include <algorithm>
#include <string_view>

namespace llumnix {

namespace {

/// The request itself, a further choice of it or a namesake.
bool is_related(std::string_view text_id, std::string_view id) {
  if (!text_id.starts_with(id))
    return false;
  auto rest = text_id.substr(id.size());
  return rest.empty()
         || ((rest[0] == '.' || rest[0] == '-') && rest.size() > 1 && rest.find_first_not_of("0123456789.-", 1) == std::string_view::npos);
}

} // namespace

void flight_recorder::note(const std::string& text_id, flight_event event) {
  add(record_of(text_id), std::move(event));
}

void flight_recorder::end(const std::string& text_id, flight_event event) {
  auto& record = record_of(text_id);
  add(record, std::move(event));
  record.ended = true;
  ended_.emplace_back(text_id, record.life);
  if (ended_.size() <= ended_max_)
    return;
  auto oldest = records_.find(ended_.front().first);
  if (oldest != records_.end() && oldest->second.life == ended_.front().second)
    records_.erase(oldest);
  ended_.pop_front();
}

flight_record& flight_recorder::record_of(const std::string& text_id) {
  auto [at, is_new] = records_.try_emplace(text_id);
  auto& record = at->second;
  if (is_new || record.ended) {
    record = {};
    record.text_id = text_id;
    record.life = ++lives_;
    record.events.reserve(2); // most are placed and finish
  }
  return record;
}

void flight_recorder::add(flight_record& record, flight_event event) {
  if (record.events.size() == flight_record::max_events)
    record.events.erase(record.events.begin() + flight_record::max_events / 2);
  record.events.push_back(std::move(event));
}

std::vector<const flight_record*> flight_recorder::find(const std::string& id) const {
  std::vector<const flight_record*> found;
  for (const auto& [text_id, record] : records_)
    if (is_related(text_id, id))
      found.push_back(&record);
  std::sort(found.begin(), found.end(), [](const auto* a, const auto* b) {
    return a->text_id < b->text_id;
  });
  return found;
}

} // namespace llumnix
