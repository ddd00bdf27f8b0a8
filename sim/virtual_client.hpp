#pragma once

#include "runtime/base/time.hpp"
#include "runtime/serving/response_sink.hpp"

#include <functional>
#include <string>
#include <vector>

namespace llumnix {

/// A client of the virtual cluster: keeps what it was sent.
class virtual_client final : public response_sink {
public:
  std::string text;
  std::vector<token_id> tokens;
  finish_reason finish = finish_reason::none;
  error failure{errc::ok, {}};
  std::uint32_t updates = 0;
  std::vector<nanoseconds> arrivals; ///< virtual time of each update

  /// A slow reader takes nothing off our hands until told to.
  bool reads = true;

  bool ended() const { return finish != finish_reason::none || failure.code != errc::ok; }

  void on_update(const stream_update& update) override;
  void on_failure(std::uint32_t choice, const error& why) override;
  void flush() override;

  // Set by the cluster.
  std::uint64_t stream = 0;
  std::uint32_t unread = 0; ///< tokens received and not yet taken
  std::function<void(std::uint32_t)> take;
  std::function<void()> leave; ///< goes away
  std::function<nanoseconds()> time;
};

} // namespace llumnix
