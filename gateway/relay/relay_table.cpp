#include "gateway/relay/relay_table.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {

namespace {

constexpr double counted_s = 10; // for so long a request counts in the retry budget

} // namespace

relay_table::relay_table(relay_services services)
  : services_{std::move(services)},
    floor_retries_{static_cast<double>(services_.config.engine_retries_floor)},
    aged_{services_.loop.now()},
    self_{std::make_shared<relay_table*>(this)} {}

relay_table::~relay_table() {
  self_.reset();
  sessions_.clear();
}

void relay_table::open(std::shared_ptr<net::exchange> client, passed_request request) {
  auto number = ++next_ | relay_bit;
  age_budget();
  earned_retries_ += services_.config.engine_retries;
  auto made = std::make_unique<relay_session>(*this, number, std::move(client), std::move(request));
  auto& session = *sessions_.emplace(number, std::move(made)).first->second;
  session.start();
}

void relay_table::on_placed(
  std::uint64_t number, std::uint32_t epoch, const stream_owner& owner, time_point) {
  if (auto found = sessions_.find(number); found != sessions_.end())
    found->second->on_placed(epoch, owner);
}

void relay_table::on_unplaceable(
  std::uint64_t number, std::uint32_t epoch, const error& why, time_point) {
  if (auto found = sessions_.find(number); found != sessions_.end())
    found->second->on_unplaceable(epoch, why);
}

/// Of now: a client whose relay ends meanwhile may open another at once. Ended ones are freed
/// later.
std::vector<relay_session*> relay_table::all() const {
  std::vector<relay_session*> all;
  all.reserve(sessions_.size());
  for (const auto& [number, session] : sessions_)
    all.push_back(session.get());
  return all;
}

void relay_table::place_again(time_point) {
  for (auto* session : all())
    session->place_again();
}

void relay_table::on_engine_lost(const instance_id& engine) {
  for (auto* session : all())
    session->on_engine_lost(engine);
}

void relay_table::on_engine_lost(
  const instance_id& engine, const std::vector<std::uint64_t>& numbers) {
  for (auto number : numbers)
    if (auto found = sessions_.find(number); found != sessions_.end())
      found->second->on_engine_lost(engine);
}

std::vector<std::uint64_t> relay_table::served_by(const instance_id& engine) const {
  std::vector<std::uint64_t> numbers;
  for (const auto& [number, session] : sessions_)
    if (is_served_by(engine, number))
      numbers.push_back(number);
  return numbers;
}

bool relay_table::is_served_by(const instance_id& engine, std::uint64_t number) const {
  auto found = sessions_.find(number);
  return found != sessions_.end() && found->second->info(services_.loop.now()).instance == engine;
}

void relay_table::give_up_all(const error& why) {
  for (auto* session : all())
    session->give_up(why);
}

void relay_table::sweep(time_point now) {
  for (auto* session : all())
    session->sweep(now);
}

std::vector<stream_info> relay_table::list(time_point now) const {
  std::vector<stream_info> all;
  all.reserve(sessions_.size());
  for (const auto& [number, session] : sessions_)
    all.push_back(session->info(now));
  std::sort(
    all.begin(), all.end(), [](const auto& a, const auto& b) { return a.stream < b.stream; });
  return all;
}

void relay_table::move(const relay_move& wanted, std::function<void(relay_moved)> done) {
  if (auto found = sessions_.find(wanted.number); found != sessions_.end())
    found->second->move(wanted, std::move(done));
  else
    done({.outcome = "finished", .reason = "it ended before it could be moved"});
}

void relay_table::drain(const instance_id& instance, bool on) {
  services_.engines.drain(instance, on);
}

bool relay_table::may_retry() {
  age_budget();
  for (auto* budget : {&earned_retries_, &floor_retries_})
    if (*budget >= 1) {
      --*budget;
      return true;
    }
  return false;
}

void relay_table::age_budget() {
  auto now = services_.loop.now();
  auto passed = std::chrono::duration<double>(now - std::exchange(aged_, now)).count();
  auto floor = static_cast<double>(services_.config.engine_retries_floor);
  earned_retries_ *= std::max(0.0, 1 - passed / counted_s);
  floor_retries_ = std::min(floor, floor_retries_ + passed * floor);
}

void relay_table::ask_models_for(relay_session& session) {
  services_.ask_models([weak = std::weak_ptr{self_}, number = session.number()] {
    auto self = weak.lock();
    if (!self)
      return;
    if (auto found = (*self)->sessions_.find(number); found != (*self)->sessions_.end())
      found->second->on_models_asked();
  });
}

/// One posted task serves all sessions that end before it runs.
void relay_table::free_later(relay_session& session) {
  if (!self_)
    return; // they go with the table
  ended_.push_back(session.number());
  if (ended_.size() == 1)
    services_.loop.post([weak = std::weak_ptr{self_}] {
      if (auto self = weak.lock())
        (*self)->free_ended();
    });
}

void relay_table::free_ended() {
  for (auto number : std::exchange(ended_, {}))
    sessions_.erase(number);
}

} // namespace llumnix::relay
