#include "apps/load/load_client.hpp"

#include "apps/load/reply_check.hpp"

#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <deque>
#include <memory>
#include <utility>

namespace llumnix::load {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;
using clock = std::chrono::steady_clock;

namespace {

constexpr milliseconds sweep_every{50};
constexpr milliseconds pause_after_refusal{
  100}; ///< before a slot dials an endpoint again that let it down
constexpr milliseconds first_answer{5000};
constexpr std::size_t models_bytes_max = 1 << 20;

/// What `/v1/models` says of the model to use.
struct model_card {
  std::string id;
  std::optional<std::uint32_t> length; ///< tokens of prompt and output together, where told
};

result<model_card> pick_model(std::string_view body, std::string_view wanted) {
  auto document = nlohmann::json::parse(body, nullptr, false);
  const auto none = nlohmann::json::array();
  const auto& list = document.is_object() && document.contains("data") ? document["data"] : none;
  for (const auto& entry : list) {
    if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_string())
      continue;
    model_card card{entry["id"].get<std::string>(), std::nullopt};
    if (!wanted.empty() && card.id != wanted)
      continue;
    if (auto length = entry.find("max_model_len");
        length != entry.end() && length->is_number_unsigned())
      card.length = length->get<std::uint32_t>();
    return card;
  }
  if (!wanted.empty())
    return model_card{std::string{wanted}, std::nullopt}; // the endpoint decides what it knows
  return error{errc::not_found, "/v1/models names no model; say which with --model"};
}

/// Asks the endpoint for its models; the answer also shows that it can be reached.
result<model_card> ask_model(
  asio::io_context& loop, const tcp::resolver::results_type& peer, const run_options& options,
  std::string_view wanted) {
  load_connection connection{loop, peer};
  int status = 0;
  std::string body;
  std::string failure = "no answer";
  asio::steady_timer deadline{loop, first_answer};
  deadline.async_wait([&](boost::system::error_code cancelled) {
    if (!cancelled)
      connection.cancel("no answer");
  });
  reply_events events;
  events.on_head = [&](int code, std::string_view, bool) { status = code; };
  events.on_body = [&](std::string_view piece) {
    if (body.size() + piece.size() <= models_bytes_max)
      body.append(piece);
  };
  events.on_end = [&](std::string_view why) {
    failure = why;
    deadline.cancel();
  };
  connection.exchange(
    http_request_text("GET", options.endpoint, "/v1/models", options.key, ""), std::move(events));
  loop.run();
  loop.restart();
  if (!failure.empty())
    return error{errc::unreachable, failure};
  if (status == 401 || status == 403)
    return error{
      errc::invalid_argument,
      "HTTP " + std::to_string(status) + ": the endpoint wants another --key"};
  if (status != 200 && wanted.empty())
    return error{
      errc::not_found,
      "/v1/models answered HTTP " + std::to_string(status) + "; say which model with --model"};
  return pick_model(status == 200 ? body : "", wanted);
}

/// One run: slots that each have a request under way or wait for one.
class runner {
public:
  runner(
    asio::io_context& loop, tcp::resolver::results_type peer, const run_options& options,
    pattern_options pattern, std::vector<trace_row> trace,
    std::optional<std::uint32_t> model_length)
    : loop_{loop},
      peer_{std::move(peer)},
      options_{options},
      source_{std::move(pattern), std::move(trace)},
      model_length_{model_length},
      signals_{loop, SIGINT, SIGTERM},
      sweep_{loop},
      arrival_{loop} {}

  void run() {
    begin_ = clock::now();
    signals_.async_wait([this](boost::system::error_code failed, int) {
      if (!failed)
        interrupt();
    });
    upcoming_ = source_.next();
    pump();
    sweep();
    loop_.run();
    lasted_ = clock::now() - begin_;
  }

  run_result result() {
    run_result done{std::move(stats_), {}};
    done.about.url = options_.url;
    done.about.model = source_.options().model;
    done.about.seed = source_.options().seed;
    done.about.lasted = lasted_;
    done.about.verified = options_.verify;
    done.about.interrupted = interrupted_;
    return done;
  }

private:
  struct slot {
    explicit slot(asio::io_context& loop, const tcp::resolver::results_type& peer)
      : connection{loop, peer} {}
    load_connection connection;
    std::optional<reply_check> reply;
    time_point began;
    time_point free_at; ///< not used before
  };

  /// Starts what can start now, and sees to being called when more can.
  void pump() {
    auto now = clock::now();
    bool over = options_.duration && now - begin_ >= *options_.duration;
    if (over || (options_.duration && upcoming_ && upcoming_->due >= *options_.duration))
      upcoming_.reset();
    while (upcoming_ && begin_ + upcoming_->due <= now) {
      auto* free = free_slot(now);
      if (free == nullptr)
        break;
      start(*free, now);
    }
    if (!upcoming_ && running_ == 0)
      return finish();
    if (upcoming_ && source_.timed() && begin_ + upcoming_->due > now) {
      arrival_.expires_at(begin_ + upcoming_->due);
      arrival_.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled && !ended_)
          pump();
      });
    }
  }

  slot* free_slot(time_point now) {
    if (!idle_.empty() && idle_.back()->free_at <= now) {
      auto* found = idle_.back();
      idle_.pop_back();
      return found;
    }
    // Slots that were let down wait at the front of `idle_`, the latest foremost; the sweep finds
    // them due.
    if (slots_.size() < options_.concurrency)
      return slots_.emplace_back(std::make_unique<slot>(loop_, peer_)).get();
    return nullptr;
  }

  void start(slot& at, time_point now) {
    auto request = std::exchange(upcoming_, source_.next());
    at.began = now;
    auto due = source_.timed() ? begin_ + request->due : now;
    at.reply.emplace(*request, source_.options(), options_.verify, model_length_, due, stats_);
    reply_events events;
    events.on_head = [&at](int status, std::string_view id, bool stream) {
      at.reply->on_head(status, id, stream);
    };
    events.on_body = [&at](std::string_view piece) { at.reply->on_body(piece, clock::now()); };
    events.on_end = [this, &at](std::string_view failure) { on_end(at, failure); };
    const char* path = source_.options().chat ? "/v1/chat/completions" : "/v1/completions";
    stats_.started();
    ++running_;
    at.connection.exchange(
      http_request_text(
        "POST", options_.endpoint, path, options_.key, request_body(*request, source_.options())),
      std::move(events));
  }

  void on_end(slot& at, std::string_view failure) {
    auto now = clock::now();
    --running_;
    if (interrupted_) {
      at.reply.reset();
      return;
    }
    stats_.ended(at.reply->finish(failure, now));
    at.reply.reset();
    at.free_at = failure.empty() ? now : now + pause_after_refusal;
    if (failure.empty())
      idle_.push_back(&at);
    else
      idle_.push_front(&at);
    pump();
  }

  void interrupt() {
    interrupted_ = true;
    stats_.abandoned(running_);
    upcoming_.reset();
    for (auto& at : slots_)
      at->connection.cancel("interrupted");
    finish();
  }

  void sweep() {
    sweep_.expires_after(sweep_every);
    sweep_.async_wait([this](boost::system::error_code cancelled) {
      if (cancelled || ended_)
        return;
      auto now = clock::now();
      for (std::size_t i = 0; i < slots_.size() && !ended_; ++i)
        if (slots_[i]->reply && now - slots_[i]->began > options_.timeout)
          slots_[i]->connection.cancel("timeout");
      if (!ended_)
        pump();
      if (ended_)
        return;
      if (options_.progress && now - shown_ >= std::chrono::seconds{1})
        show(now);
      sweep();
    });
  }

  void show(time_point now) {
    auto tokens = stats_.output_tokens();
    auto since = std::chrono::duration<double>(now - std::max(shown_, begin_)).count();
    std::fputs(
      fmt::format(
        "{:>5.0f} s  {} running, {} ok, {} failed{}, {:.0f} tokens/s of ended requests\n",
        std::chrono::duration<double>(now - begin_).count(), running_, stats_.ok(), stats_.failed(),
        stats_.wrong() == 0 ? "" : fmt::format(" ({} WRONG)", stats_.wrong()),
        static_cast<double>(tokens - shown_tokens_) / since)
        .c_str(),
      stderr);
    shown_ = now;
    shown_tokens_ = tokens;
  }

  void finish() {
    ended_ = true;
    sweep_.cancel();
    arrival_.cancel();
    signals_.cancel();
  }

  asio::io_context& loop_;
  tcp::resolver::results_type peer_;
  const run_options& options_;
  request_source source_;
  std::optional<std::uint32_t> model_length_;
  asio::signal_set signals_;
  asio::steady_timer sweep_;
  asio::steady_timer arrival_;
  load_stats stats_;
  std::vector<std::unique_ptr<slot>> slots_;
  std::deque<slot*> idle_;
  std::optional<planned_request> upcoming_;
  std::size_t running_ = 0;
  bool interrupted_ = false;
  bool ended_ = false;
  time_point begin_;
  nanoseconds lasted_{0};
  time_point shown_;
  std::uint64_t shown_tokens_ = 0;
};

} // namespace

result<run_result>
run_load(const run_options& options, pattern_options pattern, std::vector<trace_row> trace) {
  asio::io_context loop{1};
  boost::system::error_code failed;
  auto peer = tcp::resolver{loop}.resolve(options.endpoint.host, options.endpoint.port, failed);
  if (failed)
    return error{errc::unreachable, "no such host: " + options.endpoint.host};
  auto model = ask_model(loop, peer, options, pattern.model);
  if (!model)
    return std::move(model).error();
  pattern.model = model->id;
  runner run{loop, std::move(peer), options, std::move(pattern), std::move(trace), model->length};
  run.run();
  return run.result();
}

} // namespace llumnix::load
