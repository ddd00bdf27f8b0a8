#include "integrations/discovery/etcd_discovery.hpp"

#include "integrations/discovery/host_text.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

using namespace std::chrono_literals;

constexpr milliseconds shortest_pause{250};
constexpr milliseconds longest_pause{10000};
constexpr auto probes_apart = 5s;
constexpr int timeouts_per_answer = 5; // long ones may take a while
constexpr int timeouts_per_reading = 30;

unix_ms utc_now() {
  using namespace std::chrono;
  return duration_cast<std::chrono::milliseconds>(system_clock::now().time_since_epoch()).count();
}

/// An etcd without users lets in anybody, but nobody by name.
bool has_no_users(const etcd_call& call) {
  return call.status() != 200
         && call.body().find("authentication is not enabled") != std::string::npos;
}

} // namespace

etcd_discovery::etcd_discovery(
  const discovery_config& config, record_rules rules, net::upstream_pool& pool, executor& loop)
  : members_{config.etcd},
    username_{config.etcd_username},
    password_{config.etcd_password},
    interval_{config.etcd_interval},
    timeout_{config.timeout},
    pool_{pool},
    loop_{loop},
    ledger_{std::move(rules)},
    pause_{shortest_pause} {}

etcd_discovery::~etcd_discovery() = default;

void etcd_discovery::start(listener told) {
  told_ = std::move(told);
  due_ = loop_.now();
}

void etcd_discovery::tick() {
  const auto now = loop_.now();
  if (phase_ == phase::waiting) {
    if (now >= due_)
      begin();
    return;
  }
  if (phase_ != phase::watching || !created_) {
    if (now >= due_ || (phase_ == phase::reading && now >= reading_until_))
      fail({errc::timeout, "no answer in time"});
    return;
  }
  if (probe_ && now >= probe_until_)
    fail({errc::timeout, "no answer to a probe"});
  else if (now >= read_again_at_)
    begin();
  else if (!probe_ && now >= probe_at_)
    probe();
}

// --- asking

/// Runs it once the pool has let go of us, unless another attempt has begun by then.
void etcd_discovery::later(void (etcd_discovery::*what)()) {
  loop_.post([this, what, attempt = std::weak_ptr{attempt_}] {
    if (!attempt.expired())
      (this->*what)();
  });
}

std::unique_ptr<etcd_call>
etcd_discovery::ask(std::string_view path, std::string body, void (etcd_discovery::*then)()) {
  due_ = deadline(timeouts_per_answer);
  return std::make_unique<etcd_call>(
    pool_, members_[member_], path, std::move(body), token_, timeout_,
    etcd_call::handlers{.ended = [this, then] { later(then); }});
}

void etcd_discovery::begin() {
  attempt_ = std::make_shared<char>();
  probe_.reset();
  call_.reset();
  reading_.emplace();
  reading_until_ = deadline(timeouts_per_reading);
  if (username_.empty() || !token_.empty())
    return read_page();
  phase_ = phase::authenticating;
  call_ = ask(
    etcd::authenticate_path, etcd::authenticate_request(username_, password_),
    &etcd_discovery::take_token);
}

void etcd_discovery::take_token() {
  if (has_no_users(*call_))
    return read_page();
  if (!call_->good())
    return fail(call_->failure().while_doing("authenticate"));
  auto token = etcd::read_token(call_->body());
  if (!token)
    return fail(token.error());
  token_ = std::move(*token);
  read_page();
}

void etcd_discovery::read_page() {
  phase_ = phase::reading;
  call_ = ask(etcd::range_path, reading_->next(), &etcd_discovery::take_page);
}

void etcd_discovery::take_page() {
  if (call_->outcome().code == errc::too_long && reading_->shrink())
    return read_page();
  if (!call_->good())
    return fail(call_->failure().while_doing("read records"));
  auto page = etcd::read_range(call_->body());
  if (!page)
    return fail(page.error());
  auto last = reading_->take(std::move(*page));
  if (!last)
    return fail(last.error());
  if (!*last)
    return read_page();
  for (auto& problem : reading_->problems)
    ledger_.object(std::move(problem));
  note_answer();
  ledger_.read(reading_->bytes_of_pod, utc_now());
  tell();
  watch();
}

// --- watching

void etcd_discovery::watch() {
  phase_ = phase::watching;
  created_ = proven_ = false;
  broken_.reset();
  whole_ = reading_->problems.empty();
  read_revision_ = reading_->revision;
  newest_told_ = reading_->newest;
  doubt_ = {};
  reading_.reset();
  due_ = deadline(timeouts_per_answer);
  read_again_at_ = loop_.now() + interval_;
  probe_at_ = loop_.now() + probes_apart;
  call_ = std::make_unique<etcd_call>(
    pool_, members_[member_], etcd::watch_path, etcd::watch_request(read_revision_ + 1), token_,
    0ms,
    etcd_call::handlers{
      .lines = [this](const std::vector<std::string>& lines) { take_lines(lines); },
      .ended = [this] { later(&etcd_discovery::end_watch); }});
}

void etcd_discovery::take_lines(const std::vector<std::string>& lines) {
  for (const auto& line : lines)
    if (broken_ || !take_line(line))
      break;
  tell();
}

/// Whether the watch goes on.
bool etcd_discovery::take_line(const std::string& line) {
  auto reply = etcd::read_watch(line);
  if (reply && reply->canceled)
    reply = error{
      errc::stale, reply->compact_revision > 0 ? "etcd has forgotten what was to be told"
                                               : "etcd canceled the watch: " + reply->reason};
  if (!reply)
    return give_up_watch(std::move(reply).error());
  created_ = created_ || reply->created;
  for (const auto& change : reply->changes) {
    const std::string pod{pod_of_etcd_key(change.what.key)};
    if (pod.empty())
      return give_up_watch({errc::bad_message, "the watch tells of a key that names no pod"});
    newest_told_ = std::max(newest_told_, change.what.revision);
    if (change.removed)
      ledger_.remove(pod);
    else
      ledger_.put(pod, change.what.value);
  }
  return true;
}

/// Later: this is said from within the watch.
bool etcd_discovery::give_up_watch(error why) {
  broken_ = std::move(why);
  later(&etcd_discovery::end_watch);
  return false;
}

/// One that was good for a while ends for reasons that are none of ours: a proxy's patience, a
/// member's restart, a compaction.
void etcd_discovery::end_watch() {
  auto why = broken_         ? std::move(*broken_)
             : call_->good() ? error{errc::disconnected, "the watch ended"}
                             : call_->failure();
  if (!proven_)
    return fail(std::move(why).while_doing("watch records"));
  log::discovery.debug("watch-ended", "etcd {}: {}", members_[member_], to_string(why));
  token_.clear();
  begin();
}

void etcd_discovery::probe() {
  probe_until_ = deadline(timeouts_per_answer);
  probe_ = ask(etcd::range_path, etcd::probe_request(), &etcd_discovery::take_probe);
}

void etcd_discovery::take_probe() {
  if (!probe_->good())
    return fail(probe_->failure().while_doing("probe"));
  auto reply = etcd::read_range(probe_->body());
  if (!reply)
    return fail(reply.error());
  probe_.reset();
  if (reply->revision < read_revision_)
    return fail({errc::stale, "the store is older than it was"});
  const auto newest = reply->records.empty() ? 0 : reply->records.front().revision;
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(reply->count, 0));
  if (doubt_.lags(newest, count, newest_told_, whole_ ? ledger_.held() : count))
    return fail({errc::stale, "the watch does not tell everything"});
  probe_at_ = loop_.now() + probes_apart;
  proven_ = true;
  failed_members_ = 0;
  pause_ = shortest_pause;
  if (std::exchange(failure_told_, false))
    log::discovery.warn("records-read", "the records of etcd are followed again");
  note_answer();
  tell();
}

// --- telling

/// Records age by the time between two answers, but not by that of an outage.
void etcd_discovery::note_answer() {
  if (answered_at_)
    ledger_.pass(std::min<nanoseconds>(loop_.now() - *answered_at_, 2 * probes_apart));
  answered_at_ = loop_.now();
}

void etcd_discovery::fail(const error& why) {
  ++errors_;
  if (!std::exchange(failure_told_, true))
    log::discovery.warn(
      "records-unread",
      "the records of etcd {} cannot be followed, the last ones stay in force: {}",
      members_[member_], to_string(why));
  attempt_.reset();
  probe_.reset();
  call_.reset();
  reading_.reset();
  token_.clear();
  phase_ = phase::waiting;
  due_ = loop_.now();
  member_ = (member_ + 1) % members_.size();
  if (++failed_members_ % members_.size() == 0) {
    due_ += pause_;
    pause_ = std::min(2 * pause_, longest_pause);
  }
}

void etcd_discovery::tell() {
  auto engines = ledger_.alive();
  if (std::exchange(told_once_, true) && engines == engines_)
    return;
  engines_ = std::move(engines);
  told_(engines_);
}

discovery_health etcd_discovery::health() const {
  discovery_health health{"etcd", engines_.size(), errors_ + ledger_.problems(), -1};
  if (answered_at_)
    health.answered_s_ago = std::chrono::duration<double>(loop_.now() - *answered_at_).count();
  return health;
}

} // namespace llumnix
