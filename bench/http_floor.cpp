// What an HTTP server of this house costs with nothing behind it: one loop, one prebuilt 200. Point
// wrk at it, and at nginx with `return 200`, on the same machine; compare requests per second and
// CPU per request.
#include "net/http_server.hpp"

#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>

namespace {

using namespace llumnix;

std::uint64_t served = 0; // read after the loop has ended

class floor_handler final : public net::http_handler {
public:
  void on_request(std::shared_ptr<net::exchange> client, net::http_request&&) override {
    ++served;
    client->reply(ok_);
  }
  net::http_reply error_reply(int status, std::string_view message) override {
    return {status, {{"content-type", "text/plain"}}, std::string{message}};
  }

private:
  net::http_reply ok_{200, {{"content-type", "text/plain"}}, "ok\n"};
};

} // namespace

// usage: bench_http_floor [HOST:PORT]; ends on SIGINT or SIGTERM and prints its CPU time per
// request.
int main(int argc, char** argv) {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGINT);
  sigaddset(&ending, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr); // inherited by the loop's thread
  net::http_server_options options;
  if (argc > 1)
    options.listen = argv[1];
  auto server = net::http_server::make(options);
  if (!server) {
    std::fprintf(stderr, "%s\n", to_string(server.error()).c_str());
    return 1;
  }
  (*server)->start([](std::uint32_t) { return std::make_unique<floor_handler>(); });
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ending, &signal);
  (*server)->stop();
  auto cpu_us = static_cast<double>(std::clock()) * 1e6 / CLOCKS_PER_SEC;
  std::printf(
    "%llu requests, %.2f us CPU each\n", static_cast<unsigned long long>(served),
    served == 0 ? 0.0 : cpu_us / static_cast<double>(served));
}
