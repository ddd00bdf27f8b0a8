#include "integrations/mooncake/metadata_client.hpp"

#include "integrations/mooncake/metadata_messages.hpp"
#include "runtime/base/log.hpp"
#include "runtime/scheduling/prefix_hits.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace llumnix::mooncake {
namespace {

constexpr log::logger mooncake_log{"mooncake"};
constexpr int resends = 3; // within one attempt

/// Worth sending again at once.
bool is_transport_error(errc code) {
  return code == errc::unreachable || code == errc::disconnected || code == errc::bad_message;
}

} // namespace

result<client_options> make_client_options(const scheduler_config& config) {
  auto keys = make_chunk_key_options(config);
  if (!keys)
    return std::move(keys).error();
  client_options options;
  options.address = config.mooncake;
  options.keys = std::move(*keys);
  options.attempts = config.kv_attempts;
  options.attempt_pause = config.kv_attempt_pause;
  options.down = config.kv_down;
  return options;
}

/// Somebody who waits for an answer, and gets one in any case.
class metadata_client::promise {
public:
  explicit promise(answer done) : done_{std::move(done)} {}
  promise(promise&& other) noexcept : done_{std::exchange(other.done_, nullptr)} {}
  promise& operator=(promise&&) = delete;
  ~promise() {
    if (done_)
      keep(error{errc::cancelled, "the KV index has ended"});
  }
  void keep(result<prefix_holders> found) { std::exchange(done_, nullptr)(std::move(found)); }

private:
  answer done_;
};

// ---- one query

/// Asks for one batch of keys after the other, each again as long as attempts are left.
class metadata_client::query final : public net::upstream_watcher {
public:
  query(
    metadata_client& owner, std::vector<std::string> keys, std::uint32_t prompt_tokens,
    std::uint32_t attempts, promise done)
    : owner_{owner},
      keys_{std::move(keys)},
      runs_{owner.options_.keys.chunk_tokens, prompt_tokens},
      attempts_left_{std::max(attempts, 1u)},
      budget_end_{owner.loop_.now() + owner.options_.budget},
      done_{std::move(done)} {}

  void ask();
  /// Looks at the time. Tells nobody, but may have ended.
  void on_tick(time_point now);
  void give_up() { call_.reset(); }

  const std::optional<result<prefix_holders>>& outcome() const { return outcome_; }
  /// Only once there is an outcome.
  void answer() { done_.keep(std::move(*outcome_)); }

  void on_head(const net::http_reply& head) override { status_ = head.status; }
  void on_body(std::string_view piece) override { body_ += piece; }
  void on_pause() override {}
  void on_end(const error& failure) override;

private:
  void take_answer(const error& failure);
  void take_holders();
  void fail_attempt(error why);

  metadata_client& owner_;
  std::vector<std::string> keys_;
  std::size_t told_ = 0;  // keys whose holders are known
  std::size_t asked_ = 0; // keys of the request under way
  prefix_runs runs_;
  std::uint32_t attempts_left_;
  int resends_left_ = resends;
  time_point budget_end_;
  time_point due_{}; // the end of the call, or of the pause
  error last_failure_{errc::timeout, "no answer within the budget"};
  std::optional<result<prefix_holders>> outcome_;
  promise done_;
  int status_ = 0;
  std::string body_;
  std::unique_ptr<net::upstream_call> call_; // null in a pause; last: given up before the rest goes
};

void metadata_client::query::ask() {
  const auto& options = owner_.options_;
  auto batch = ask_holders(std::span{keys_}.subspan(told_), options.target_bytes_max);
  asked_ = batch.keys;
  status_ = 0;
  body_.clear();
  due_ = owner_.loop_.now() + options.call_timeout;
  net::upstream_request request;
  request.address = options.address;
  request.method = "GET";
  request.target = std::move(batch.target);
  request.headers = {{"accept", "application/json"}};
  request.max_body_bytes = options.answer_bytes_max;
  call_ = owner_.pool_.send(std::move(request), *this);
}

void metadata_client::query::on_tick(time_point now) {
  if (now >= budget_end_)
    outcome_ = last_failure_;
  else if (now >= due_ && call_)
    fail_attempt({errc::timeout, "no whole answer in time"});
  else if (now >= due_ && (attempts_left_ == 0 || !owner_.goes_on(*this)))
    outcome_ = last_failure_;
  else if (now >= due_)
    ask();
  if (outcome_)
    give_up();
}

void metadata_client::query::on_end(const error& failure) {
  call_.reset();
  take_answer(failure);
  if (outcome_)
    owner_.settle(*this); // *this is gone now
}

void metadata_client::query::take_answer(const error& failure) {
  if (is_transport_error(failure.code) && resends_left_ > 0) {
    --resends_left_; // at once: a pause of 1 ms would have to wait for a tick
    return ask();
  }
  if (failure.code != errc::ok)
    return fail_attempt(failure);
  if (status_ != 200)
    return fail_attempt({errc::internal, "HTTP status " + std::to_string(status_)});
  take_holders();
}

void metadata_client::query::take_holders() {
  auto holders = read_holders(body_, std::span{keys_}.subspan(told_, asked_));
  if (!holders)
    return fail_attempt(std::move(holders).error());
  told_ += asked_;
  bool open = std::all_of(
    holders->begin(), holders->end(), [this](const auto& hosts) { return runs_.add(hosts); });
  if (open && told_ < keys_.size())
    return ask();
  outcome_ = prefix_holders{holder_naming::kv_address, runs_.holders()};
}

void metadata_client::query::fail_attempt(error why) {
  call_.reset();
  last_failure_ = std::move(why);
  --attempts_left_;
  resends_left_ = resends;
  due_ = owner_.loop_.now() + owner_.options_.attempt_pause;
}

// ---- the client

metadata_client::metadata_client(client_options options, net::upstream_pool& pool, executor& loop)
  : options_{std::move(options)}, pool_{pool}, loop_{loop} {}

metadata_client::~metadata_client() {
  alive_.reset();
  for (auto& each : queries_)
    each->give_up();
}

void metadata_client::find(
  std::span<const token_id> prompt, std::string_view /*model*/, answer done) {
  auto keys = chunk_keys(prompt, options_.keys);
  if (!keys)
    return done(std::move(keys).error());
  if (keys->empty())
    return done(prefix_holders{holder_naming::kv_address, {}});
  auto tokens = static_cast<std::uint32_t>(std::min<std::size_t>(prompt.size(), UINT32_MAX));
  // A loop that runs no more drops what is posted, and the promise is kept all the same.
  loop_.post([this, alive = std::weak_ptr{alive_}, keys = std::move(*keys), tokens,
              waiting = std::make_shared<promise>(std::move(done))]() mutable {
    if (alive.lock())
      begin(std::move(keys), tokens, std::move(*waiting));
  });
}

void metadata_client::begin(
  std::vector<std::string> keys, std::uint32_t prompt_tokens, promise done) {
  auto skip = [&](errc code, const char* why) {
    ++skipped_;
    done.keep(error{code, options_.address + why});
  };
  if (queries_.size() >= options_.queries_max)
    return skip(errc::queue_full, " is being asked too much");
  if (!may_begin(loop_.now()))
    return skip(errc::unreachable, " is down");
  auto probing = health_ == health::probing;
  auto attempts = probing ? 1 : options_.attempts;
  auto made
    = std::make_unique<query>(*this, std::move(keys), prompt_tokens, attempts, std::move(done));
  if (probing)
    probe_ = made.get();
  queries_.push_back(std::move(made));
  queries_.back()->ask();
}

bool metadata_client::may_begin(time_point now) {
  if (health_ == health::down && now - down_since_ > options_.down) {
    health_ = health::probing;
    return true;
  }
  return health_ == health::up;
}

void metadata_client::tick() {
  auto now = loop_.now();
  for (auto& each : queries_)
    each->on_tick(now);
  auto ended = std::stable_partition(
    queries_.begin(), queries_.end(), [](const auto& each) { return !each->outcome(); });
  std::vector<std::unique_ptr<query>> over{
    std::make_move_iterator(ended), std::make_move_iterator(queries_.end())};
  queries_.erase(ended, queries_.end());
  for (const auto& each : over)
    note(*each);
  for (auto& each : over)
    each->answer(); // whatever that does to us
}

void metadata_client::settle(const query& which) {
  auto found = std::find_if(
    queries_.begin(), queries_.end(), [&](const auto& each) { return each.get() == &which; });
  auto over = std::move(*found);
  queries_.erase(found);
  note(*over);
  over->answer(); // whatever that does to us
}

void metadata_client::note(const query& which) {
  const bool is_probe = probe_ == &which;
  if (is_probe)
    probe_ = nullptr;
  const auto& outcome = *which.outcome();
  ++(outcome ? answered_ : failed_);
  if (!outcome && (is_probe || health_ == health::up)) {
    mark_down(outcome.error());
  } else if (outcome && is_probe) {
    health_ = health::up;
    up_ = true;
    mooncake_log.info("up", "{} answers again", options_.address);
  }
}

void metadata_client::mark_down(const error& why) {
  if (health_ == health::up)
    mooncake_log.warn(
      "down", "prompts are placed without asking {} for {} s at least: {}", options_.address,
      std::chrono::duration<double>(options_.down).count(), to_string(why));
  health_ = health::down;
  up_ = false;
  down_since_ = loop_.now();
}

client_counters metadata_client::counters() const {
  return {answered_, failed_, skipped_, up_};
}

} // namespace llumnix::mooncake
