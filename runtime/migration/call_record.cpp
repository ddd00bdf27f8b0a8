#include "runtime/migration/call_record.hpp"

#include "runtime/base/assert.hpp"

namespace llumnix {

const call_record::entry* call_record::find(const std::string& key, time_point now) {
  forget_old(now);
  auto found = calls_.find(key);
  return found == calls_.end() ? nullptr : &found->second;
}

void call_record::begin(const std::string& key, migrate_call call, time_point now) {
  forget_old(now);
  if (calls_.size() >= calls_max) {
    calls_.erase(ages_.front().key);
    ages_.pop_front();
  }
  bool fresh = calls_.emplace(key, entry{std::move(call)}).second;
  LLUMNIX_ASSERT(fresh);
  ages_.push_back({now, key});
}

void call_record::end(const std::string& key, const call_reply& reply) {
  if (auto found = calls_.find(key); found != calls_.end())
    found->second.reply = reply;
}

void call_record::forget(const std::string& key) {
  if (calls_.erase(key) > 0)
    std::erase_if(ages_, [&](const age& x) { return x.key == key; });
}

void call_record::forget_old(time_point now) {
  while (!ages_.empty() && now - ages_.front().begun >= kept_for) {
    calls_.erase(ages_.front().key);
    ages_.pop_front();
  }
}

} // namespace llumnix
