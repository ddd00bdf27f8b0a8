#pragma once

#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::net {

class upstream_connection;

/// One address requests are sent to: where it is, and which connections to it wait for something.
struct upstream_host {
  using clock = std::chrono::steady_clock;

  /// Null unless `address` is of the form HOST:PORT, with a name, a number, or an IPv6 number in
  /// brackets. A number is known for good at once.
  static std::shared_ptr<upstream_host> parse(std::string_view address);
  bool known(clock::time_point now) const { return now < known_until; }
  /// Nothing was reached: a name may stand for something else by now.
  void doubt() {
    if (known_until != clock::time_point::max())
      known_until = {};
  }

  std::string address; ///< as it was given
  std::string name;    ///< the host alone, without brackets
  std::string port;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints; ///< to be tried in this order
  clock::time_point known_until{};                       ///< when the endpoints get stale
  bool resolving = false;                                ///< they are being asked for
  std::vector<upstream_connection*> waiting;             ///< for the endpoints
  std::vector<upstream_connection*> kept; ///< for a request; the one used last at the end
};

} // namespace llumnix::net
