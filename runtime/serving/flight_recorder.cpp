#include "runtime/serving/flight_recorder.hpp"

#include <algorithm>
#include <map>
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

using found_records = std::map<std::string_view, const flight_record*>; // by id

std::vector<flight_record> copied(const found_records& found) {
  std::vector<flight_record> all;
  for (const auto& [text_id, record] : found)
    all.emplace_back(*record).text_id = text_id;
  return all;
}

} // namespace

std::optional<double> flight_times::ttft_error_ms() const {
  if (!ttft_ms || !placed_ms || !predicted_ttft_ms)
    return std::nullopt;
  return *ttft_ms - *placed_ms - *predicted_ttft_ms;
}

std::optional<double> flight_times::tpot_error_ms() const {
  if (!tpot_ms || !predicted_tpot_ms)
    return std::nullopt;
  return *tpot_ms - *predicted_tpot_ms;
}

void flight_record::add(flight_event event) {
  if (events.empty())
    events.reserve(2); // most are placed and finish
  if (events.size() == max_events)
    leave_one_out();
  events.push_back(std::move(event));
}

void flight_record::leave_one_out() {
  auto middle = events.begin() + max_events / 2;
  if (left_out == 0) {
    *middle = {middle->at, "left_out", {}, middle->epoch, {}, {}};
    ++left_out;
  }
  ++left_out;
  middle->note = std::to_string(left_out) + " events are not kept";
  events.erase(middle + 1);
}

const flight_event*
flight_recorder::last(const std::string& text_id, std::string_view kind) const {
  auto running = running_.find(text_id);
  if (running == running_.end())
    return nullptr;
  auto& events = running->second.events;
  auto found = std::find_if(
    events.rbegin(), events.rend(), [kind](const flight_event& x) { return x.kind == kind; });
  return found == events.rend() ? nullptr : &*found;
}

void flight_recorder::note(const std::string& text_id, flight_event event) {
  running_[text_id].add(std::move(event));
}

void flight_recorder::note_late(const std::string& text_id, flight_event event) {
  auto found = running_.find(text_id);
  if (found != running_.end()) {
    found->second.add(std::move(event));
    return;
  }
  auto ended = std::find_if(ended_.rbegin(), ended_.rend(), [&](const flight_record& x) {
    return x.text_id == text_id;
  });
  if (ended != ended_.rend())
    ended->add(std::move(event));
}

void flight_recorder::end(const std::string& text_id, flight_event event) {
  auto running = running_.try_emplace(text_id).first;
  running->second.add(std::move(event));
  auto& record = ended_.emplace_back(std::move(running->second));
  running_.erase(running);
  record.text_id = text_id;
  record.ended = true;
  if (ended_.size() > ended_max_)
    ended_.pop_front();
}

std::vector<flight_record> flight_recorder::find(const std::string& id) const {
  found_records found;
  for (const auto& [text_id, record] : running_)
    if (is_related(text_id, id))
      found.emplace(text_id, &record);
  for (auto record = ended_.rbegin(); record != ended_.rend(); ++record)
    if (is_related(record->text_id, id))
      found.emplace(record->text_id, &*record); // unless there is a later one
  return copied(found);
}

void recent_flights::note(const std::string& text_id, flight_event event) {
  if (!keeps())
    return;
  auto [record, fresh] = records_.try_emplace(text_id);
  record->second.add(std::move(event));
  if (!fresh)
    return;
  order_.push_back(text_id);
  if (order_.size() > requests_max_) {
    records_.erase(order_.front());
    order_.pop_front();
  }
}

void recent_flights::note_known(const std::string& text_id, flight_event event) {
  if (auto known = records_.find(text_id); known != records_.end())
    known->second.add(std::move(event));
}

std::vector<flight_record> recent_flights::find(const std::string& id) const {
  found_records found;
  for (const auto& [text_id, record] : records_)
    if (is_related(text_id, id))
      found.emplace(text_id, &record);
  return copied(found);
}

} // namespace llumnix
