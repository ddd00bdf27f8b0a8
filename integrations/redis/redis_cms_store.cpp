#include "integrations/redis/redis_cms_store.hpp"

#include "integrations/redis/record_reader.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <future>
#include <utility>

namespace llumnix {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t window = 1024;    // writes without an answer
constexpr auto hold_after_refusal = 1s; // before a refused write is tried again
constexpr auto closing_time = 200ms;
constexpr auto settle_time_max = 1000ms;
constexpr std::size_t odd_records_max = 1024;

time_point now() {
  return std::chrono::steady_clock::now();
}

double utc_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Ids come from keys anyone may have written: nothing but plain text reaches the log.
std::string printable(std::string_view text) {
  std::string out;
  for (unsigned char c : text.substr(0, 128))
    out
      += c >= 0x20 && c < 0x7f ? std::string(1, static_cast<char>(c)) : fmt::format("\\x{:02x}", c);
  return out;
}

} // namespace

result<std::unique_ptr<redis_cms_store>>
redis_cms_store::make(const redis_config& redis, const cms_config& cms) {
  if (std::chrono::seconds{cms.expiry_s} <= std::max(cms.metadata_interval, cms.status_interval))
    return error{errc::invalid_argument, "cms.expiry_s must be above both intervals"};
  if (cms.metadata_interval <= 0ms || cms.status_interval < 0ms)
    return error{
      errc::invalid_argument, "cms.metadata_interval and cms.status_interval must be positive"};
  std::unique_ptr<redis_cms_store> store{new redis_cms_store{redis, cms}};
  auto client = redis_client::make(
    redis, store->metrics_, [self = store.get()](bool up) { self->on_link(up); });
  if (!client)
    return std::move(client).error();
  store->client_ = std::move(*client);
  store->client_->start();
  store->client_->run_at(
    now() + cms.metadata_interval, [self = store.get()] { self->heartbeat(); });
  return store;
}

redis_cms_store::redis_cms_store(const redis_config& redis, const cms_config& cms)
  : redis_{redis}, cms_{cms}, records_{std::chrono::seconds{cms.expiry_s}} {}

redis_cms_store::~redis_cms_store() {
  if (!client_)
    return;
  auto closed = std::make_shared<std::promise<void>>();
  auto written = closed->get_future();
  client_->post([this, closed] { close([closed] { closed->set_value(); }); });
  written.wait_for(closing_time); // then client_ ends its thread, which uses it to the last
}

void redis_cms_store::put_metadata(const instance_metadata& metadata) {
  note(metadata.instance_id, [&](mirror_change& change) { change.metadata = metadata; });
}

void redis_cms_store::put_status(const instance_status& status) {
  note(status.instance_id, [&](mirror_change& change) {
    if (change.status)
      follow(*change.status, status);
    else
      change.status = status;
  });
}

void redis_cms_store::remove(const instance_id& id) {
  note(id, [](mirror_change& change) { change = {.removed = true, .metadata = {}, .status = {}}; });
}

void redis_cms_store::read_metadata(
  std::function<void(result<std::vector<instance_metadata>>)> done) {
  client_->post([this, done = counted(std::move(done), metrics_.metadata_ms)] {
    with_link([this, done](result<void> link) {
      if (!link)
        return done(std::move(link).error());
      read_metadata_records(
        *client_, [this](auto id, auto why) { on_odd_record(id, why); }, done);
    });
  });
}

void redis_cms_store::read_statuses(
  std::vector<instance_id> instances, std::function<void(result<stored_statuses>)> done) {
  auto counting = counted(std::move(done), metrics_.statuses_ms);
  client_->post([this, instances = std::move(instances), done = std::move(counting)] {
    with_link([this, instances, done](result<void> link) {
      if (!link)
        return done(std::move(link).error());
      read_status_records(
        *client_, instances, [this](auto id, auto why) { on_odd_record(id, why); }, done);
    });
  });
}

/// Counts how a reading that is asked for now ends, and how long it takes.
template <class T>
std::function<void(result<T>)>
redis_cms_store::counted(std::function<void(result<T>)> done, loop_histogram& took_ms) {
  return [this, &took_ms, began = now(), done = std::move(done)](result<T> found) {
    took_ms.observe(std::chrono::duration<double, std::milli>(now() - began).count());
    metrics_.readable = found.has_value();
    ++(found ? metrics_.readings : metrics_.reading_failures);
    done(std::move(found));
  };
}

void redis_cms_store::note(
  const instance_id& id, const std::function<void(mirror_change&)>& merge) {
  if (id.empty())
    return; // has no key; readers would call it odd
  bool wake = false;
  {
    std::lock_guard guard{mutex_};
    merge(changes_[id]);
    metrics_.pending = changes_.size() + unconfirmed_;
    wake = !std::exchange(woken_, true);
  }
  if (wake)
    client_->post([this] { schedule(); });
}

void redis_cms_store::on_link(bool up) {
  if (!up)
    return; // each write that was lost with it has said so
  take_changes();
  records_.mark_all();
  flushed_at_ = hold_until_ = {};
  client_->run_at(
    now() + std::min<std::chrono::milliseconds>(redis_.timeout, settle_time_max),
    [this, link = ++links_] {
      if (link != links_)
        return;
      records_.settle();
      schedule();
    });
  flush();
  for (auto& [number, go_on] : std::exchange(waiting_readings_, {}))
    go_on({});
}

void redis_cms_store::take_changes() {
  std::map<instance_id, mirror_change> changes;
  {
    std::lock_guard guard{mutex_};
    changes.swap(changes_);
    woken_ = false;
  }
  for (auto& [id, change] : changes)
    records_.apply(id, std::move(change), now());
}

// Sees to it that a flush comes, when there is something to write and the last one is answered.
void redis_cms_store::schedule() {
  if (flush_armed_ || in_flight_ > 0 || !client_->up())
    return;
  bool changed = false;
  {
    std::lock_guard guard{mutex_};
    changed = !changes_.empty();
  }
  if (!changed && !records_.dirty())
    return;
  flush_armed_ = true;
  client_->run_at(std::max(flushed_at_ + cms_.status_interval, hold_until_), [this] {
    flush_armed_ = false;
    flush();
  });
}

void redis_cms_store::flush() {
  if (in_flight_ > 0 || !client_->up())
    return;
  take_changes();
  records_.begin_batch();
  batch_refused_ = batch_confirmed_ = false;
  flushed_at_ = now();
  pump();
}

void redis_cms_store::pump() {
  const auto utc_now = utc_seconds();
  while (in_flight_ < window && client_->has_room()) {
    auto write = records_.next(utc_now);
    if (!write)
      break;
    ++in_flight_;
    auto words = std::move(write->words);
    client_->send(words, [this, write = std::move(*write)](const result<redis_reply>& reply) {
      --in_flight_;
      on_answer(write, reply);
      pump();
    });
  }
  publish_pending();
  if (in_flight_ > 0)
    return;
  if (batch_confirmed_ && !batch_refused_ && std::exchange(refusal_reported_, false))
    log::redis.warn("writes-taken", "{} takes writes again", redis_.address);
  if (closing_)
    finish();
  else
    schedule();
}

void redis_cms_store::on_answer(const mirror_write& write, const result<redis_reply>& reply) {
  if (reply && reply->kind != redis_reply::type::failure) {
    ++metrics_.writes;
    batch_confirmed_ = true;
    return records_.confirmed(write);
  }
  ++metrics_.failures;
  records_.failed(write);
  batch_refused_ = true;
  if (!reply)
    return; // the link is gone, and says so itself
  hold_until_ = now() + hold_after_refusal;
  if (!std::exchange(refusal_reported_, true))
    log::redis.warn(
      "write-refused", "{} refuses writes and is asked again every second: {}", redis_.address,
      printable(reply->text));
}

void redis_cms_store::heartbeat() {
  take_changes();
  records_.mark_metadata();
  records_.sweep(now());
  publish_pending();
  schedule();
  client_->run_at(now() + cms_.metadata_interval, [this] { heartbeat(); });
}

/// Goes on once there is a link, or says why there is none in time.
void redis_cms_store::with_link(link_handler go_on) {
  if (closing_)
    return go_on(error{errc::cancelled, "the store is closing"});
  if (client_->up())
    return go_on({});
  const auto number = readings_++;
  waiting_readings_.emplace(number, std::move(go_on));
  client_->run_at(now() + redis_.timeout, [this, number] {
    if (auto waiting = waiting_readings_.extract(number))
      waiting.mapped()(error{errc::unreachable, "no link to the Redis server " + redis_.address});
  });
}

void redis_cms_store::on_odd_record(std::string_view id, std::string_view why) {
  ++metrics_.odd_records;
  if (odd_records_.size() >= odd_records_max || !odd_records_.emplace(id).second)
    return;
  log::redis.warn("odd-record", "left out the record of '{}': {}", printable(id), why);
}

// The link's end cancels the readings that have a command under way; those that wait for a link
// have none.
void redis_cms_store::close(std::function<void()> closed) {
  for (auto& [number, go_on] : std::exchange(waiting_readings_, {}))
    go_on(error{errc::cancelled, "the store is closing"});
  closing_ = true;
  closed_ = std::move(closed);
  if (in_flight_ == 0)
    finish();
}

// Nothing is in flight: one more flush, and that was it.
void redis_cms_store::finish() {
  if (client_->up() && !std::exchange(last_flush_begun_, true))
    return flush();
  if (closed_)
    std::exchange(closed_, nullptr)();
}

void redis_cms_store::publish_pending() {
  std::lock_guard guard{mutex_};
  unconfirmed_ = records_.pending() + in_flight_;
  metrics_.pending = changes_.size() + unconfirmed_;
}

} // namespace llumnix
