#include "integrations/redis/redis_link.hpp"

#include "runtime/base/log.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto pause_min = 50ms;
constexpr auto pause_max = 2000ms;
constexpr std::size_t waiting_max = 4096;            // commands without a reply
constexpr std::size_t outgoing_bytes_max = 8u << 20; // not yet handed to the kernel

time_point now() {
  return std::chrono::steady_clock::now();
}

error unreachable(std::string why) {
  return {errc::unreachable, std::move(why)};
}

// The first word of an error reply ("WRONGPASS"): the rest may repeat what was sent, passwords
// included.
std::string code_of(const redis_reply& failure) {
  return failure.text.substr(0, failure.text.find(' '));
}

} // namespace

redis_client::link::link(
  const redis_config& config, std::string host, std::string port, redis_metrics& metrics,
  std::function<void(bool)> on_link)
  : config_{config},
    host_{std::move(host)},
    port_{std::move(port)},
    metrics_{metrics},
    on_link_{std::move(on_link)},
    pause_{pause_min} {
  handle_->target = this;
}

void redis_client::link::dial() {
  current_ = std::make_shared<connection>(io);
  watch(current_, now() + config_.timeout);
  error_code not_numeric;
  auto address = asio::ip::make_address(host_, not_numeric);
  if (not_numeric)
    resolve(current_);
  else
    connect(current_, {{address, static_cast<std::uint16_t>(std::stoul(port_))}});
}

// The system's resolver can block for many seconds, which neither the loop nor the end of the
// process waits for: it gets a thread that is left alone, one at a time.
void redis_client::link::resolve(const connection_ptr& current) {
  {
    std::lock_guard guard{handle_->mutex};
    if (handle_->resolving)
      return; // the watchdog ends this attempt
    handle_->resolving = true;
  }
  auto work = [handle = handle_, held = std::weak_ptr{current}, host = host_, port = port_] {
    asio::io_context own;
    error_code failed;
    std::vector<tcp::endpoint> found;
    for (const auto& entry : tcp::resolver{own}.resolve(host, port, failed))
      found.push_back(entry.endpoint());
    std::lock_guard guard{handle->mutex};
    handle->resolving = false;
    if (handle->target == nullptr)
      return;
    asio::post(handle->target->io, [self = handle->target, held, failed, found = std::move(found)] {
      auto current = held.lock();
      if (!current || current != self->current_)
        return;
      if (failed)
        self->lose(unreachable(failed.message()));
      else
        self->connect(current, found);
    });
  };
  std::thread{std::move(work)}.detach();
}

void redis_client::link::connect(
  const connection_ptr& current, std::vector<tcp::endpoint> endpoints) {
  asio::async_connect(
    current->socket, std::move(endpoints),
    [this, current](error_code failed, const tcp::endpoint&) {
      if (current != current_)
        return;
      if (failed)
        return lose(unreachable(failed.message()));
      current->socket.set_option(tcp::no_delay{true}, failed);
      read(current);
      greet();
    });
}

// A server that is merely stopped still accepts connections, so only an answer makes the link
// usable.
void redis_client::link::greet() {
  if (!config_.password.empty()) {
    std::vector<std::string> words{"AUTH"};
    if (!config_.username.empty())
      words.push_back(config_.username);
    words.push_back(config_.password);
    enqueue(words, [this](result<redis_reply> reply) {
      if (reply && reply->kind == redis_reply::type::failure)
        lose(unreachable("the server refused AUTH: " + code_of(*reply)), true);
    });
  }
  enqueue({"PING"}, [this](result<redis_reply> reply) { on_pong(std::move(reply)); });
}

void redis_client::link::on_pong(result<redis_reply> reply) {
  if (!reply)
    return; // the link is gone already
  if (reply->kind == redis_reply::type::failure)
    return lose(
      unreachable("the server refused PING: " + code_of(*reply)),
      reply->text.starts_with("NOAUTH"));
  up = true;
  up_since_ = now();
  metrics_.connected = true;
  if (was_up_)
    ++metrics_.reconnects;
  was_up_ = true;
  constexpr auto told = "connected to {}";
  if (loss_reported_) // as a warning, and so is its end
    log::redis.warn("link-up", told, config_.address);
  else
    log::redis.info("link-up", told, config_.address);
  loss_reported_ = refusal_reported_ = false;
  on_link_(true);
}

bool redis_client::link::has_room() const {
  return up && waiting_.size() < waiting_max && current_->outgoing.size() < outgoing_bytes_max;
}

void redis_client::link::enqueue(const std::vector<std::string>& words, reply_handler done) {
  append_command(current_->outgoing, words);
  waiting_.push_back({std::move(done), now()});
  if (current_->write_posted || !current_->writing.empty())
    return;
  current_->write_posted = true;
  asio::post(
    io, [this, current = current_] { // so that all commands of this turn leave in one write
      current->write_posted = false;
      write(current);
    });
}

void redis_client::link::write(const connection_ptr& current) {
  if (current != current_ || current->outgoing.empty())
    return;
  current->writing.swap(current->outgoing);
  asio::async_write(
    current->socket, asio::buffer(current->writing),
    [this, current](error_code failed, std::size_t) {
      if (current != current_)
        return;
      current->writing.clear();
      if (failed)
        return lose(unreachable(failed.message()));
      write(current);
    });
}

void redis_client::link::read(const connection_ptr& current) {
  current->socket.async_read_some(
    asio::buffer(current->incoming), [this, current](error_code failed, std::size_t count) {
      if (current != current_)
        return;
      if (failed)
        return lose(unreachable(failed.message()));
      on_bytes(current, count);
    });
}

void redis_client::link::on_bytes(const connection_ptr& current, std::size_t count) {
  if (auto fed = current->reader.feed({current->incoming.data(), count}); !fed)
    return lose(std::move(fed).error());
  for (;;) {
    auto reply = current->reader.next();
    if (!reply)
      return lose(std::move(reply).error());
    if (!*reply)
      return read(current);
    if (waiting_.empty())
      return lose({errc::internal, "a reply to nothing"});
    auto done = std::move(waiting_.front().done);
    waiting_.pop_front();
    done(std::move(**reply));
    if (current != current_)
      return;
  }
}

// Ends an attempt that takes too long and a link whose oldest command waits too long; asks a silent
// one whether it is still there.
void redis_client::link::watch(const connection_ptr& current, time_point until) {
  watchdog_.expires_at(until);
  watchdog_.async_wait([this, current](error_code cancelled) {
    if (cancelled || current != current_)
      return;
    if (!up)
      return lose({errc::timeout, "no answer to a new connection"});
    if (waiting_.empty())
      enqueue({"PING"}, [](const result<redis_reply>&) {});
    auto deadline = waiting_.front().sent + config_.timeout;
    if (now() >= deadline)
      return lose({errc::timeout, "no reply in time"});
    watch(current, deadline);
  });
}

void redis_client::link::lose(error why, bool refused_us) {
  error_code ignored;
  current_->socket.close(ignored);
  current_.reset();
  watchdog_.cancel();
  const auto was_usable = std::exchange(up, false);
  metrics_.connected = false;
  report(why, refused_us);
  for (auto& command : std::exchange(waiting_, {}))
    command.done(why);
  if (was_usable)
    on_link_(false);
  if (stopping)
    return;
  if (was_usable && now() - up_since_ > pause_max)
    pause_ = pause_min; // a link that fails as soon as it is up is dialled no faster than one that
                        // refuses
  std::uniform_real_distribution<double> share{0.5, 0.95};
  redial_.expires_after(std::chrono::duration_cast<nanoseconds>(pause_ * share(jitter_)));
  pause_ = std::min(pause_ * 2, std::chrono::milliseconds{pause_max});
  redial_.async_wait([this](error_code cancelled) {
    if (!cancelled && !stopping)
      dial();
  });
}

// Once per outage; and once more should it turn out that the server is there but wants another
// password.
void redis_client::link::report(const error& why, bool refused_us) {
  if (stopping || (refused_us ? refusal_reported_ : loss_reported_))
    return;
  loss_reported_ = true;
  refusal_reported_ = refusal_reported_ || refused_us;
  log::redis.warn(
    "link-lost", "no link to {}: {}; trying again until there is one", config_.address,
    why.context);
}

void redis_client::link::stop() {
  stopping = true;
  {
    std::lock_guard guard{handle_->mutex};
    handle_->target = nullptr;
  }
  redial_.cancel();
  if (current_)
    lose({errc::cancelled, "the Redis client is closing"});
  io.stop();
}

} // namespace llumnix
