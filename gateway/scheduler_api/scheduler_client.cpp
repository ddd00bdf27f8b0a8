#include "gateway/scheduler_api/scheduler_client.hpp"

#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::scheduler_api {

namespace {

constexpr std::chrono::seconds silence_max{9}; // of a kept connection: it is pinged every 3 s
constexpr std::uint32_t failures_max = 2;      // in a row, of the kept connection

} // namespace

/// Somebody who waits for an answer, and gets one in any case.
class scheduler_client::promise {
public:
  promise() = default;
  explicit promise(answer told) : told_{std::move(told)} {}
  promise(promise&& other) noexcept : told_{std::exchange(other.told_, nullptr)} {}
  promise& operator=(promise&&) = delete;
  ~promise() { keep(error{errc::cancelled, "the gateway stops asking its scheduler"}); }
  void keep(result<std::string> address) {
    if (auto told = std::exchange(told_, nullptr))
      told(std::move(address));
  }

private:
  answer told_;
};

/// One HTTP call.
class scheduler_client::call final : public net::upstream_watcher {
public:
  enum class kind { place, release, report };

  call(scheduler_client& owner, kind what, std::string path, std::string body, promise waits = {})
    : what{what},
      told{std::move(waits)},
      path{std::move(path)},
      body{std::move(body)},
      owner_{owner} {}

  void on_head(const net::http_reply& head) override { status = head.status; }
  void on_body(std::string_view piece) override { reply += piece; }
  void on_pause() override {}
  void on_end(const error& failure) override { owner_.on_answer(*this, failure); }

  kind what;
  asked_request request;
  std::string text_id;   ///< of a placement
  bool unwanted = false; ///< a placement that was released meanwhile
  promise told;
  std::string path, body;
  std::uint32_t tries_left = 1;
  time_point due{}; ///< the end of the call, or of the pause
  bool over = false;
  int status = 0;
  std::string reply;
  std::unique_ptr<net::upstream_call> under_way; ///< null in a pause

private:
  scheduler_client& owner_;
};

scheduler_client::scheduler_client(client_options options, net::upstream_pool& pool, executor& loop)
  : options_{std::move(options)}, pool_{pool}, loop_{loop} {}

scheduler_client::~scheduler_client() {
  alive_.reset();
  socket_.reset();
  for (auto& each : calls_)
    each->under_way.reset();
}

client_counters scheduler_client::counters() const {
  return {placed_, busy_, failed_, releases_failed_, ready_};
}

void scheduler_client::post(std::function<void()> work) {
  loop_.post([alive = std::weak_ptr{alive_}, work = std::move(work)] {
    if (alive.lock())
      work();
  });
}

// ---- the connection that is kept

void scheduler_client::tick() {
  auto now = loop_.now();
  if (!socket_ && now >= dial_at_) {
    net::web_socket_target target;
    target.address = options_.address;
    target.path = "/keepalive";
    if (!options_.token.empty())
      target.headers.emplace_back("authorization", options_.token);
    heard_ = now;
    socket_ = net::open_web_socket(loop_, target, *this);
  } else if (socket_ && now - heard_ >= silence_max) {
    give_up_link("is silent");
  }
  for (std::size_t i = 0; i < calls_.size(); ++i) { // they may end, and others begin
    auto& each = *calls_[i];
    if (each.over || now < each.due)
      continue;
    if (each.under_way) {
      each.under_way.reset();
      on_answer(each, {errc::timeout, "no whole answer in time"});
    } else {
      send(each);
    }
  }
  std::erase_if(calls_, [](const auto& each) { return each->over; });
  look_ready();
}

void scheduler_client::on_open(const std::string& host, std::uint16_t port) {
  heard_ = loop_.now();
  own_address_ = host + ":" + std::to_string(port);
  socket_->send(render_gateway(host, port));
}

void scheduler_client::on_message(std::string_view message) {
  if (!gateway_id_.empty())
    return;
  if (message != "ok")
    return give_up_link("does not answer as a scheduler does");
  gateway_id_ = own_address_;
  failures_ = 0;
  if (!std::exchange(known_, true) || told_gone_)
    log::gateway.info(
      "scheduler-up", "{} places requests; it knows this gateway as {}", options_.address,
      gateway_id_);
  told_gone_ = false;
  look_ready();
}

void scheduler_client::on_closed() {
  give_up_link(gateway_id_.empty() ? "cannot be reached" : "has closed the connection");
}

void scheduler_client::give_up_link(const char* why) {
  socket_ = nullptr;
  gateway_id_.clear();
  untold_.clear();
  dial_at_ = loop_.now() + options_.dial_pause;
  ++failures_;
  if (failures_ > failures_max && !std::exchange(told_gone_, true))
    log::gateway.warn(
      "scheduler-gone", "{} {}; requests are placed without it, and it is tried again and again",
      options_.address, why);
  look_ready();
}

void scheduler_client::look_ready() {
  ready_ = known_ && failures_ <= failures_max && loop_.now() >= rests_until_;
}

// ---- requests

void scheduler_client::place(remote_question question, answer told) {
  auto waits = std::make_shared<promise>(std::move(told));
  auto asked = std::make_shared<remote_question>(std::move(question));
  post([this, asked, waits] { begin(std::move(*asked), std::move(*waits)); });
}

void scheduler_client::begin(remote_question question, promise told) {
  if (placing_ >= options_.calls_max) {
    ++failed_;
    return told.keep(error{errc::queue_full, "the scheduler is being asked too much"});
  }
  asked_request request{question.request, std::move(question.model), gateway_id_};
  if (question.epoch > 0) // as its engine will know it
    request.id += "-" + std::to_string(question.epoch);
  if (!options_.tell_tokens)
    question.prompt.clear();
  auto body = render_question(request, question.prompt_tokens, question.prompt);
  auto made = std::make_unique<call>(
    *this, call::kind::place, "/schedule", std::move(body), std::move(told));
  made->request = std::move(request);
  made->text_id = std::move(question.request);
  ++placing_;
  calls_.push_back(std::move(made));
  send(*calls_.back());
}

void scheduler_client::send(call& which) {
  --which.tries_left;
  which.status = 0;
  which.reply.clear();
  which.due
    = loop_.now()
      + (which.what == call::kind::report ? options_.report_timeout : options_.call_timeout);
  net::upstream_request request;
  request.address = options_.address;
  request.target = which.path;
  request.headers = {{"content-type", "application/json"}};
  if (!options_.token.empty())
    request.headers.emplace_back("authorization", options_.token);
  request.body = which.body;
  request.max_body_bytes = options_.answer_bytes_max;
  which.under_way = pool_.send(std::move(request), which);
}

/// The next tick takes it out.
void scheduler_client::on_answer(call& which, const error& failure) {
  which.under_way.reset();
  switch (which.what) {
    case call::kind::place: return settle(which, failure);
    case call::kind::release: return end_release(which, failure);
    case call::kind::report:
      which.over = true;
      reporting_ = false;
      if (failure.code != errc::ok || which.status != 200)
        log::gateway.debug(
          "report-lost", "{}: {} {}", options_.address, which.status, to_string(failure));
      return send_report();
  }
}

void scheduler_client::settle(call& which, const error& failure) {
  which.over = true;
  --placing_;
  auto fail = [&](error why) {
    ++failed_;
    log::gateway.debug("not-placed", "{}: {}", which.request.id, to_string(why));
    which.told.keep(std::move(why));
  };
  if (failure.code == errc::ok && which.status == 429) {
    ++busy_;
    return which.told.keep(error{errc::no_instance, "the scheduler has no instance for it now"});
  }
  if (failure.code != errc::ok) {
    rests_until_ = loop_.now() + options_.rest;
    look_ready();
    return fail({errc::unreachable, "the scheduler does not answer: " + failure.context});
  }
  if (which.status != 200)
    return fail({errc::unsupported, "the scheduler answered " + std::to_string(which.status)});
  auto choice = read_choice(which.reply);
  if (!choice && choice.error().code == errc::no_instance) {
    ++busy_;
    return which.told.keep(std::move(choice).error());
  }
  if (!choice) {
    for (const auto& booked : read_bookings(which.reply)) // it counts what nobody will use
      send_release(which.request, booked, false);
    return fail(std::move(choice).error());
  }
  if (which.unwanted) {
    send_release(which.request, *choice, false);
    return which.told.keep(error{errc::cancelled, "the request is over"});
  }
  ++placed_;
  auto address = choice->address;
  tickets_[which.text_id].push_back({std::move(which.request), std::move(*choice), false});
  which.told.keep(std::move(address));
}

void scheduler_client::release(std::string request) {
  post([this, request = std::move(request)] {
    for (auto& each : calls_)
      if (each->what == call::kind::place && each->text_id == request)
        each->unwanted = true;
    auto found = tickets_.find(request);
    if (found == tickets_.end())
      return;
    auto all = std::move(found->second);
    tickets_.erase(found);
    untold_.erase(request);
    for (const auto& each : all)
      send_release(each.request, each.choice, each.began);
  });
}

void scheduler_client::send_release(
  const asked_request& request, const told_choice& choice, bool began) {
  if (releasing_ >= options_.calls_max) {
    ++releases_failed_;
    return;
  }
  ++releasing_;
  auto made = std::make_unique<call>(
    *this, call::kind::release, "/release", render_release(request, choice, began));
  made->tries_left = std::max(options_.release_tries, 1u);
  calls_.push_back(std::move(made));
  send(*calls_.back());
}

/// An answer of any kind is one: it says no more the next time.
void scheduler_client::end_release(call& which, const error& failure) {
  bool answered = failure.code == errc::ok;
  if (!answered && which.tries_left > 0) {
    which.due = loop_.now() + options_.release_pause;
    return;
  }
  which.over = true;
  --releasing_;
  if (!answered)
    ++releases_failed_;
}

void scheduler_client::report(std::vector<remote_progress> news) {
  post([this, news = std::move(news)]() mutable { take_news(std::move(news)); });
}

void scheduler_client::take_news(std::vector<remote_progress> news) {
  if (gateway_id_.empty())
    return;
  for (auto& each : news)
    if (tickets_.contains(each.request)) {
      auto& latest = untold_[each.request];
      latest = std::move(each);
    }
  send_report();
}

void scheduler_client::send_report() {
  if (reporting_)
    return;
  std::string items;
  for (const auto& [id, each] : std::exchange(untold_, {})) {
    auto& ticket = tickets_.at(id).back();
    if (ticket.request.gateway_id != gateway_id_)
      continue; // it has forgotten those of the connection before
    if (each.began && !std::exchange(ticket.began, true))
      append_progress(items, "prefill_done", ticket.request, ticket.choice, 0);
    append_progress(items, "state_update", ticket.request, ticket.choice, each.tokens);
  }
  if (items.empty())
    return;
  reporting_ = true;
  calls_.push_back(std::make_unique<call>(*this, call::kind::report, "/report", "[" + items + "]"));
  send(*calls_.back());
}

} // namespace llumnix::scheduler_api
