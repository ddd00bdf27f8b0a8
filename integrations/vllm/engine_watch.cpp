#include "integrations/vllm/engine_watch.hpp"

#include "integrations/vllm/engine_facts.hpp"
#include "integrations/vllm/engine_question.hpp"
#include "integrations/vllm/metrics_text.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

namespace llumnix {
namespace {

constexpr std::chrono::milliseconds suspicions_apart{100};
constexpr int silences_to_leave = 2; // in a row: a busy engine is not a dead one
constexpr int tries_per_fact = 3;
constexpr int unauthorized = 401;

constexpr topic facts[]
  = {topic::models, topic::version, topic::aborts, topic::tokens}; // in this order

/// Known by an answer. After a few that were none one does without it, and asks now and then.
struct fact {
  bool known = false;
  bool lasting = false; ///< known, and for all of the engine's life
  int tries = 0;
  time_point tried_at{};
  bool open() const { return !known && tries < tries_per_fact; }
};

auto parts(const engine_report& report) {
  return std::tie(
    report.id, report.ready, report.trouble, report.lost, report.kind, report.token_ids,
    report.continues_text, report.wants_key, report.aborts, report.tokens, report.max_model_len,
    report.models, report.model_ids, report.status);
}

std::string trouble_of(const engine_answer& what) {
  if (what.whole())
    return "answers " + std::to_string(what.status)
           + (what.status == 401 ? ", " + std::string{engine_key_hint} : "");
  return what.outcome == errc::timeout ? "does not answer" : "cannot be reached";
}

void take_load(instance_status& status, engine_load load) {
  if (load.running) {
    status.num_running_requests = *load.running;
    status.scheduler_running_to_decode_requests_num = *load.running;
  }
  status.num_waiting_requests = load.waiting.value_or(status.num_waiting_requests);
  status.num_total_gpu_tokens = load.kv_tokens.value_or(status.num_total_gpu_tokens);
  if (load.kv_usage)
    status.num_used_gpu_tokens
      = static_cast<std::int32_t>(std::lround(status.num_total_gpu_tokens * *load.kv_usage));
  status.adapters = std::move(load.adapters);
}

} // namespace

/// Gathers one answer for an engine. Given up when destroyed.
class engine_watch::question final : public net::upstream_watcher {
public:
  question(engine& owner, topic about, time_point deadline)
    : owner_{owner}, about_{about}, deadline_{deadline} {}

  void send(net::upstream_pool& pool, net::upstream_request request) {
    bytes_max_ = request.max_body_bytes;
    call_ = pool.send(std::move(request), *this);
  }

  void on_head(const net::http_reply& head) override;
  void on_body(std::string_view piece) override {
    if (piece.size() > bytes_max_ - answer_.body.size())
      too_long_ = true;
    else if (!too_long_)
      answer_.body += piece;
  }
  void on_pause() override {}
  void on_end(const error& failure) override;

  topic about() const { return about_; }
  bool overdue(time_point now) const { return !ended_ && now >= deadline_; }
  engine_answer take() { return std::move(answer_); }

private:
  engine& owner_;
  topic about_;
  time_point deadline_;
  std::size_t bytes_max_ = 0;
  engine_answer answer_;
  bool too_long_ = false;
  bool ended_ = false;
  std::unique_ptr<net::upstream_call> call_; // last: given up before the rest goes
};

/// One engine under watch: a look is a row of questions, one at a time.
struct engine_watch::engine {
  engine(engine_watch& watch, instance_id id, std::string address)
    : watch_{watch}, address_{std::move(address)} {
    report_.id = std::move(id);
  }

  void tick();
  void suspect();
  void rename(const instance_id& id);
  void want_models();
  bool wants_models() const { return models_wanted_at_ && report_.ready; }

  // Called by the question.
  void hear();
  void on_answer();

private:
  time_point now() const { return watch_.loop_.now(); }

  void begin_look();
  void ask(topic about);
  void ask_next();
  void end_look(bool well);
  void take(topic about, const engine_answer& what);

  void judge(const engine_answer& what);
  void begin_life();
  time_point lost_at() const;
  void find_lost();

  void take_metrics(const engine_answer& what);
  void take_fact(topic about, const engine_answer& what);
  void take_models(const engine_answer& what);
  void take_version(const engine_answer& what);
  bool is_due(topic about);
  bool models_due() const;
  void note_key(topic about, const engine_answer& what);
  void describe();
  void note_nonsense(const error& what);

  void tell();

  engine_watch& watch_;
  std::string address_;

  std::unique_ptr<question> question_; // of the look under way
  bool models_decide_ = false;         // in this look: the engine has no /health
  bool heard_ = false;                 // in this look
  bool metrics_asked_ = false;         // in this look
  std::vector<topic> asked_;           // facts, in this look
  std::optional<time_point> started_;  // the latest look
  time_point due_{};
  bool suspected_ = false; // since the look under way began
  std::chrono::milliseconds pause_{0};

  std::optional<time_point> heard_at_; // anything at all
  int silent_looks_ = 0;               // in a row
  int timeouts_ = 0;                   // of what decides, in a row

  std::map<topic, fact> facts_;
  std::optional<time_point> models_asked_at_;  // last
  std::optional<time_point> models_wanted_at_; // out of turn
  std::set<topic> locked_;                     // those it answered with 401 last
  bool key_noted_ = false;                     // in this life
  std::string owned_by_;
  std::string version_;
  bool nonsense_noted_ = false; // in this life

  engine_report report_;
  std::optional<engine_report> told_;
  time_point told_at_{};
  // Ends with the engine; what was posted for it finds out by this.
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

void engine_watch::question::on_head(const net::http_reply& head) {
  answer_.status = head.status;
  owner_.hear();
}

void engine_watch::question::on_end(const error& failure) {
  answer_.outcome = failure.code == errc::ok && too_long_ ? errc::too_long : failure.code;
  ended_ = true;
  owner_.on_answer();
}

// --- looks

void engine_watch::engine::tick() {
  if (question_ && question_->overdue(now())) {
    auto about = question_->about();
    auto what = question_->take();
    what.outcome = errc::timeout;
    question_.reset();
    take(about, what);
  }
  find_lost();
  if (!question_ && now() >= due_)
    begin_look();
  else if (
    question_ && question_->about() != topic::health && told_ && told_->ready && report_.ready
    && now() - told_at_ >= watch_.options_.interval)
    tell(); // the rest of its answers may take long
}

void engine_watch::engine::suspect() {
  if (question_)
    suspected_ = true;
  else if (!started_ || now() - *started_ >= suspicions_apart)
    begin_look();
  else
    due_ = std::min(due_, *started_ + suspicions_apart);
}

void engine_watch::engine::want_models() {
  models_wanted_at_ = now();
  suspect();
}

void engine_watch::engine::rename(const instance_id& id) {
  report_.id = id;
  if (told_)
    told_->id = id;
}

void engine_watch::engine::begin_look() {
  started_ = now();
  suspected_ = heard_ = models_decide_ = metrics_asked_ = false;
  asked_.clear();
  ask(topic::health);
}

void engine_watch::engine::ask(topic about) {
  const auto& options = watch_.options_;
  question_ = std::make_unique<question>(*this, about, now() + options.patience);
  if (about == topic::models)
    models_asked_at_ = now();
  question_->send(watch_.pool_, ask_engine(about, address_, options.patience, options.key));
}

void engine_watch::engine::hear() {
  heard_ = true;
  heard_at_ = now();
  silent_looks_ = 0;
  report_.lost = false;
}

/// The pool is still at work on the call that ended: it is taken leave of later.
void engine_watch::engine::on_answer() {
  watch_.loop_.post([this, alive = std::weak_ptr<char>{alive_}] {
    if (alive.expired())
      return;
    auto about = question_->about();
    auto what = question_->take();
    question_.reset();
    take(about, what);
  });
}

void engine_watch::engine::take(topic about, const engine_answer& what) {
  note_key(about, what);
  if (about == topic::health && what.whole() && what.status == 404) {
    models_decide_ = true;
    return ask(topic::models);
  }
  if (about == topic::health || (about == topic::models && models_decide_ && !metrics_asked_)) {
    judge(what);
    if (!what.good())
      return end_look(false);
  }
  if (about == topic::metrics)
    take_metrics(what);
  else if (about != topic::health)
    take_fact(about, what);
  ask_next();
}

void engine_watch::engine::ask_next() {
  if (!metrics_asked_) {
    metrics_asked_ = true;
    return ask(topic::metrics);
  }
  for (auto about : facts)
    if (is_due(about) && std::find(asked_.begin(), asked_.end(), about) == asked_.end())
      return ask(about);
  if (models_due())
    return ask(topic::models);
  end_look(true);
}

bool engine_watch::engine::is_due(topic about) {
  const auto& found = facts_[about];
  return found.open() || (!found.lasting && now() - found.tried_at >= watch_.options_.models_every);
}

/// An engine may load more of them at any time.
bool engine_watch::engine::models_due() const {
  if (!models_asked_at_ || std::find(asked_.begin(), asked_.end(), topic::models) != asked_.end())
    return false;
  return (models_wanted_at_ && *models_wanted_at_ >= *models_asked_at_)
         || now() - *models_asked_at_ >= watch_.options_.models_every;
}

/// Well, or in doubt for the first time: the next look comes in its time. Else ever later, but none
/// is called lost that was not asked shortly before.
void engine_watch::engine::end_look(bool well) {
  const auto& options = watch_.options_;
  silent_looks_ += heard_ ? 0 : 1;
  if (well || report_.ready) {
    pause_ = {};
    due_ = std::max(now(), *started_ + options.interval);
  } else {
    pause_ = std::clamp(
      pause_ * 2, options.interval, std::max(options.interval, options.longest_interval));
    due_ = now() + pause_;
    if (auto last_chance = lost_at() - options.patience; last_chance > now())
      due_ = std::min(due_, last_chance);
  }
  if (suspected_)
    due_ = std::min(due_, std::max(now(), *started_ + suspicions_apart));
  if (!told_ || heard_ || parts(report_) != parts(*told_))
    tell();
}

// --- whether it takes work

/// By the answer to the question that decides it.
void engine_watch::engine::judge(const engine_answer& what) {
  timeouts_ = what.outcome == errc::timeout ? timeouts_ + 1 : 0;
  if (what.good()) {
    if (!report_.ready)
      begin_life();
    report_.ready = true;
    report_.trouble.clear();
  } else if (what.outcome != errc::timeout || timeouts_ >= silences_to_leave) {
    report_.ready = false;
    report_.trouble = trouble_of(what);
  }
}

/// It may have become another engine since it was last ready.
void engine_watch::engine::begin_life() {
  engine_report fresh;
  fresh.id = std::move(report_.id);
  fresh.status.update_id = report_.status.update_id;
  report_ = std::move(fresh);
  facts_.clear();
  owned_by_.clear();
  version_.clear();
  locked_.clear();
  nonsense_noted_ = key_noted_ = false;
}

/// When it is lost if it stays silent; the end of time for one that never answered.
time_point engine_watch::engine::lost_at() const {
  auto limit = watch_.options_.hung_after;
  return limit.count() > 0 && heard_at_ ? *heard_at_ + limit : time_point::max();
}

/// Two looks in vain, too: when we slept ourselves, a long silence proves nothing.
void engine_watch::engine::find_lost() {
  if (report_.lost || silent_looks_ < silences_to_leave || now() < lost_at())
    return;
  report_.lost = true;
  report_.ready = false;
  tell();
}

// --- what it is and how loaded

void engine_watch::engine::take_metrics(const engine_answer& what) {
  if (what.outcome == errc::too_long)
    return note_nonsense({errc::too_long, "the page of metrics is too long"});
  if (!what.good())
    return; // it has none, or will have: the last one stands
  auto load = read_engine_load(what.body);
  if (load)
    take_load(report_.status, std::move(*load));
  else
    note_nonsense(load.error());
}

void engine_watch::engine::take_fact(topic about, const engine_answer& what) {
  asked_.push_back(about);
  if (about == topic::models && models_wanted_at_ && *models_asked_at_ >= *models_wanted_at_)
    models_wanted_at_.reset();
  auto& found = facts_[about];
  ++found.tries;
  found.tried_at = now();
  if (about == topic::tokens && (!what.may_change() || !found.open()))
    report_.tokens = takes_tokens(what.status);
  if (what.may_change())
    return describe();
  found.known = true;
  found.lasting = what.status != unauthorized // a key may come, and the page where there is none yet
                  && (about != topic::version || what.good());
  if (about == topic::models && what.good())
    take_models(what);
  else if (about == topic::version && what.good())
    take_version(what);
  else if (about == topic::aborts)
    report_.aborts = what.status == 200 || what.status == 400 || what.status == 422;
  describe();
}

void engine_watch::engine::take_models(const engine_answer& what) {
  auto list = read_models(what.body);
  if (!list)
    return note_nonsense(list.error());
  if (list->cut)
    log::engine.warn(
      "models-left-out", "{}: not all entries of its /v1/models are used", report_.id);
  owned_by_ = std::move(list->owned_by);
  report_.max_model_len = list->max_model_len;
  report_.models = std::move(list->entries);
  report_.model_ids = std::move(list->ids);
  report_.adapters = std::move(list->adapters);
}

void engine_watch::engine::take_version(const engine_answer& what) {
  auto version = read_version(what.body);
  if (version)
    version_ = std::move(*version);
  else
    note_nonsense(version.error());
}

/// It has a key that we do not have, or another one.
void engine_watch::engine::note_key(topic about, const engine_answer& what) {
  if (!what.whole())
    return;
  if (what.status == unauthorized)
    locked_.insert(about);
  else
    locked_.erase(about);
  report_.wants_key = !locked_.empty();
  if (report_.wants_key && !std::exchange(key_noted_, true))
    log::engine.warn(
      "engine-key", "{} answers 401 to {}: {}; what needs the answer does without it", report_.id,
      path_of(about),
      watch_.options_.key.empty() ? "it wants a key; set gateway.engine_key"
                                  : "its key is another than gateway.engine_key");
}

void engine_watch::engine::describe() {
  if (facts_[topic::models].open())
    return; // whose it is, is not known yet
  report_.kind = name_engine(owned_by_, version_);
  report_.token_ids = tells_token_ids(owned_by_, version_);
  report_.continues_text = goes_on_with_text(owned_by_);
}

void engine_watch::engine::note_nonsense(const error& what) {
  if (!std::exchange(nonsense_noted_, true))
    log::engine.warn("odd-answer", "{}: {}", report_.id, to_string(what));
}

// --- telling

void engine_watch::engine::tell() {
  auto& status = report_.status;
  status.schedulable = report_.ready;
  if (!told_ || status != told_->status)
    status.update_id = status.update_id % std::numeric_limits<std::int32_t>::max() + 1;
  told_ = report_;
  told_at_ = now();
  watch_.on_report_(*told_);
}

// --- all of them

engine_watch::engine_watch(
  net::upstream_pool& pool, executor& loop, engine_watch_options options,
  std::function<void(const engine_report&)> on_report)
  : pool_{pool}, loop_{loop}, options_{options}, on_report_{std::move(on_report)} {}

engine_watch::~engine_watch() = default;

void engine_watch::add(const instance_id& id, std::string address) {
  engines_[id] = std::make_unique<engine>(*this, id, std::move(address));
}

void engine_watch::remove(const instance_id& id) {
  engines_.erase(id);
}

void engine_watch::rename(const instance_id& from, const instance_id& to) {
  auto found = engines_.extract(from);
  if (!found)
    return;
  found.key() = to;
  found.mapped()->rename(to);
  engines_.insert(std::move(found));
}

void engine_watch::tick() {
  for (auto& [id, each] : engines_)
    each->tick();
}

void engine_watch::ask_models() {
  for (auto& [id, each] : engines_)
    each->want_models();
}

bool engine_watch::asks_models() const {
  return std::any_of(
    engines_.begin(), engines_.end(), [](const auto& each) { return each.second->wants_models(); });
}

void engine_watch::suspect(const instance_id& id) {
  if (auto found = engines_.find(id); found != engines_.end())
    found->second->suspect();
}

} // namespace llumnix
