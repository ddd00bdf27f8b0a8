#include "net/http_server.hpp"

#include "net/http_loop.hpp"
#include "net/loop_upstream.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace llumnix::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

class loops_server final : public http_server {
public:
  ~loops_server() override { stop(); }

  /// Fails with the reason alone.
  result<void> bind(const http_server_options& options);

  std::string address() const override { return address_; }
  std::uint32_t loops() const override { return static_cast<std::uint32_t>(loops_.size()); }
  executor& loop(std::uint32_t i) override { return *loops_.at(i); }
  std::unique_ptr<upstream_pool>
  make_upstream(std::uint32_t loop, const upstream_options& options) override {
    return std::make_unique<loop_upstream>(*loops_.at(loop), options);
  }
  void start(std::function<std::unique_ptr<http_handler>(std::uint32_t)> make_handler) override;
  void drain() override;
  std::size_t open_exchanges() const override;
  std::size_t body_bytes() const override { return bodies_->taken(); }
  void stop() override;

private:
  std::atomic<std::size_t> connections_{0};
  std::shared_ptr<body_budget> bodies_;
  std::string address_;
  std::vector<std::unique_ptr<http_loop>> loops_;
  std::vector<std::thread> threads_;
};

// "HOST:PORT" as an address; the host may be a name or an IPv6 address in brackets.
result<tcp::endpoint> resolve(std::string_view listen) {
  auto colon = listen.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == listen.size())
    return {errc::invalid_argument, "not of the form HOST:PORT"};
  auto host = listen.substr(0, colon);
  auto port = listen.substr(colon + 1);
  auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (
    port.size() > 5 || !std::all_of(port.begin(), port.end(), digit)
    || std::stoul(std::string{port}) > 65535)
    return {errc::invalid_argument, "the port is not a number from 0 to 65535"};
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  asio::io_context io;
  error_code ec;
  auto found = tcp::resolver{io}.resolve(host, port, tcp::resolver::passive, ec);
  if (ec || found.empty())
    return {errc::invalid_argument, "the host is unknown"};
  return found.begin()->endpoint();
}

// The loops share one port, and with that alone two servers could share it unnoticed, each getting
// half of the clients. So somebody who does not want to share asks first.
result<void> check_free(const tcp::endpoint& where) {
  asio::io_context io;
  tcp::acceptor probe{io};
  error_code ec;
  probe.open(where.protocol(), ec);
  if (!ec)
    probe.set_option(tcp::acceptor::reuse_address{true}, ec);
  if (!ec)
    probe.bind(where, ec);
  if (ec == asio::error::address_in_use)
    return {errc::unreachable, "address already in use"};
  if (ec)
    return {errc::unreachable, ec.message()};
  return {};
}

result<void> loops_server::bind(const http_server_options& options) {
  auto where = resolve(options.listen);
  if (!where)
    return std::move(where).error();
  if (auto free = check_free(*where); !free)
    return free;
  auto endpoint = *where;
  bodies_ = std::make_shared<body_budget>(options.max_bodies_bytes);
  for (std::uint32_t i = 0; i < std::max(options.loops, 1U); ++i) {
    loops_.push_back(std::make_unique<http_loop>(options, connections_, *bodies_));
    auto bound = loops_.back()->listen(endpoint);
    if (!bound)
      return std::move(bound).error();
    endpoint = *bound; // the port the first was given is that of all
  }
  auto host = endpoint.address().to_string();
  if (endpoint.address().is_v6())
    host = "[" + host + "]";
  address_ = host + ":" + std::to_string(endpoint.port());
  return {};
}

void loops_server::start(std::function<std::unique_ptr<http_handler>(std::uint32_t)> make_handler) {
  for (std::uint32_t i = 0; i < loops(); ++i)
    loops_[i]->set_handler(make_handler(i));
  for (auto& loop : loops_)
    threads_.emplace_back([&serving = *loop] { serving.run(); });
}

void loops_server::drain() {
  for (auto& loop : loops_)
    loop->post([&draining = *loop] { draining.drain(); });
}

std::size_t loops_server::open_exchanges() const {
  std::size_t open = 0;
  for (const auto& loop : loops_)
    open += loop->open_exchanges();
  return open;
}

void loops_server::stop() {
  for (auto& loop : loops_)
    loop->end();
  for (auto& thread : threads_)
    thread.join();
  threads_.clear();
  for (auto& loop : loops_)
    loop->close_all();
}

} // namespace

result<std::unique_ptr<http_server>> http_server::make(const http_server_options& options) {
  auto server = std::make_unique<loops_server>();
  if (auto bound = server->bind(options); !bound)
    return std::move(bound).error().while_doing(options.listen);
  return std::unique_ptr<http_server>{std::move(server)};
}

} // namespace llumnix::net
