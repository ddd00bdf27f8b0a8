#include "integrations/redis/redis_client.hpp"

#include "integrations/redis/redis_link.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <charconv>
#include <utility>

namespace llumnix {

namespace {

namespace asio = boost::asio;

struct host_and_port {
  std::string host;
  std::string port;
};

result<host_and_port> split_address(const std::string& address) {
  auto colon = address.rfind(':');
  auto host = colon == std::string::npos ? std::string{} : address.substr(0, colon);
  auto port = colon == std::string::npos ? std::string{} : address.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2); // an IPv6 address
  std::uint16_t number = 0;
  auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || failed != std::errc{} || end != port.data() + port.size() || number == 0)
    return {errc::invalid_argument, "redis.address: '" + address + "' is not HOST:PORT"};
  return host_and_port{std::move(host), std::move(port)};
}

} // namespace

result<std::unique_ptr<redis_client>> redis_client::make(
  const redis_config& config, redis_metrics& metrics, std::function<void(bool up)> on_link) {
  auto where = split_address(config.address);
  if (!where)
    return std::move(where).error();
  if (config.timeout <= std::chrono::milliseconds{0})
    return error{errc::invalid_argument, "redis.timeout must be above 0"};
  return std::unique_ptr<redis_client>{new redis_client{
    std::make_unique<link>(config, where->host, where->port, metrics, std::move(on_link))}};
}

redis_client::redis_client(std::unique_ptr<link> made) : link_{std::move(made)} {
  thread_ = std::thread{[link = link_.get()] {
    auto until_stopped = asio::make_work_guard(link->io);
    link->io.run();
  }};
}

redis_client::~redis_client() {
  asio::post(link_->io, [link = link_.get()] { link->stop(); });
  thread_.join();
}

void redis_client::start() {
  post([link = link_.get()] { link->dial(); });
}

void redis_client::post(task what) {
  asio::post(link_->io, std::move(what));
}

void redis_client::run_at(time_point when, task what) {
  post([link = link_.get(), when, what = std::move(what)]() mutable {
    auto timer = std::make_shared<asio::steady_timer>(link->io, when);
    timer->async_wait([timer, what = std::move(what)](boost::system::error_code cancelled) {
      if (!cancelled)
        what();
    });
  });
}

bool redis_client::up() const {
  return link_->up;
}

bool redis_client::has_room() const {
  return link_->has_room();
}

void redis_client::send(const std::vector<std::string>& words, reply_handler done) {
  if (!link_->up)
    return done(error{errc::unreachable, "no link to the Redis server"});
  if (!link_->has_room())
    return done(error{errc::queue_full, "too many commands wait for the Redis server"});
  link_->enqueue(words, std::move(done));
}

} // namespace llumnix
