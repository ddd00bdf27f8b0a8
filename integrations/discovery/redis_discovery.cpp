#include "integrations/discovery/redis_discovery.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

using namespace std::chrono_literals;

constexpr auto longest_pause = 10s;
constexpr int timeouts_per_reading = 10; // a reading has many replies to wait for

unix_ms utc_now() {
  using namespace std::chrono;
  return duration_cast<std::chrono::milliseconds>(system_clock::now().time_since_epoch()).count();
}

} // namespace

result<std::unique_ptr<redis_discovery>>
redis_discovery::make(const discovery_config& config, record_rules rules, executor& loop) {
  std::unique_ptr<redis_discovery> made{new redis_discovery{config, std::move(rules), loop}};
  redis_config server;
  server.address = config.redis;
  server.username = config.redis_username;
  server.password = config.redis_password;
  server.timeout = config.timeout;
  auto client = redis_client::make(server, made->metrics_, [self = made.get()](bool up) {
    self->post([self, up] { self->on_link(up); });
  });
  if (!client)
    return std::move(client).error();
  made->client_ = std::move(*client);
  return made;
}

redis_discovery::redis_discovery(const discovery_config& config, record_rules rules, executor& loop)
  : address_{config.redis},
    interval_{config.redis_interval},
    timeout_{config.timeout},
    loop_{loop},
    ledger_{std::move(rules)},
    pause_{interval_} {}

redis_discovery::~redis_discovery() = default;

void redis_discovery::start(listener told) {
  told_ = std::move(told);
  due_ = loop_.now() + timeout_; // or as soon as there is a link
  client_->start();
}

void redis_discovery::post(std::function<void()> work) {
  loop_.post([work = std::move(work), alive = std::weak_ptr{alive_}] {
    if (!alive.expired())
      work();
  });
}

void redis_discovery::on_link(bool up) {
  link_up_ = up;
  if (up && !reading_)
    begin_reading();
}

void redis_discovery::tick() {
  if (reading_ || loop_.now() < due_)
    return;
  if (link_up_)
    begin_reading();
  else
    note_failure({errc::unreachable, "there is no link"});
}

void redis_discovery::begin_reading() {
  reading_ = true;
  auto asked_at = loop_.now();
  auto deadline = std::chrono::steady_clock::now() + timeouts_per_reading * timeout_;
  client_->post([this, asked_at, deadline] {
    read_redis_records(*client_, deadline, [this, asked_at](result<stored_records> found) {
      auto shared = std::make_shared<result<stored_records>>(std::move(found));
      post([this, asked_at, shared] { on_records(asked_at, std::move(*shared)); });
    });
  });
}

/// Records age by the time between two readings, but not by that of an outage.
void redis_discovery::on_records(time_point asked_at, result<stored_records> found) {
  reading_ = false;
  if (!found)
    return note_failure(found.error());
  if (std::exchange(failure_told_, false))
    log::discovery.warn("records-read", "the records of redis {} are read again", address_);
  pause_ = interval_;
  due_ = std::max(loop_.now(), asked_at + interval_);
  for (auto& problem : found->problems)
    ledger_.object(std::move(problem));
  if (asked_at_)
    ledger_.pass(std::min<nanoseconds>(asked_at - *asked_at_, 2 * interval_ + timeout_));
  ledger_.read(found->bytes_of_pod, utc_now());
  asked_at_ = asked_at;
  const bool first = !std::exchange(answered_at_, loop_.now());
  auto engines = ledger_.alive();
  if (!first && engines == engines_)
    return;
  engines_ = std::move(engines);
  told_(engines_);
}

void redis_discovery::note_failure(const error& why) {
  ++errors_;
  pause_ = std::min<milliseconds>(2 * pause_, std::max<milliseconds>(longest_pause, interval_));
  due_ = loop_.now() + pause_;
  if (!std::exchange(failure_told_, true))
    log::discovery.warn(
      "records-unread", "the records of redis {} cannot be read, the last ones stay in force: {}",
      address_, to_string(why));
}

discovery_health redis_discovery::health() const {
  discovery_health health{"redis " + address_, engines_.size(), errors_ + ledger_.problems(), -1};
  if (answered_at_)
    health.answered_s_ago = std::chrono::duration<double>(loop_.now() - *answered_at_).count();
  return health;
}

} // namespace llumnix
