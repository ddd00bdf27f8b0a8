#include "sim/virtual_client.hpp"

namespace llumnix {

void virtual_client::on_update(const stream_update& update) {
  text += update.text;
  tokens.insert(tokens.end(), update.tokens.begin(), update.tokens.end());
  finish = update.finish;
  unread += static_cast<std::uint32_t>(update.tokens.size());
  ++updates;
  arrivals.push_back(time());
}

void virtual_client::on_failure(std::uint32_t, const error& why) {
  failure = why;
}

void virtual_client::flush() {
  if (reads && unread > 0)
    take(std::exchange(unread, 0));
}

} // namespace llumnix
