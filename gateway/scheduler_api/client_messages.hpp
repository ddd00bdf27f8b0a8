#pragma once

#include "runtime/base/result.hpp"
#include "runtime/scheduling/remote_scheduler.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The scheduler's HTTP API as a gateway speaks it (spec/gateway.md 10, 19), to the byte.
namespace llumnix::scheduler_api {

/// What every message about one request says of it.
struct asked_request {
  std::string id;
  std::string model;
  std::string gateway_id; ///< empty: none
};

/// The body for `/schedule`. `prompt`: its token ids; empty: they are not told.
std::string render_question(
  const asked_request& request, std::uint32_t prompt_tokens, std::span<const token_id> prompt);

/// An instance as `/schedule` told of it.
struct told_choice {
  std::string id;
  std::string role;    ///< infer_type
  std::string address; ///< HOST:PORT of its endpoint
  std::string text;    ///< the whole object, as it was written
};

/// The one instance of a reply to `/schedule`. `no_instance` where the result is empty;
/// `bad_message` for what is no such reply, or tells of more than one instance or of none that
/// could be dialled.
result<told_choice> read_choice(std::string_view body);

/// The instances that a reply tells of where `read_choice` refuses it, so that what was counted
/// there can be released: their `text` alone, of at most eight. None where it is no reply at all.
std::vector<told_choice> read_bookings(std::string_view body);

/// The body for `/release` of that instance. `began`: the engine had answered.
std::string render_release(const asked_request& request, const told_choice& choice, bool began);

/// Appends an item of the array for `/report`.
void append_progress(
  std::string& items, std::string_view kind, const asked_request& request,
  const told_choice& choice, std::uint64_t tokens);

/// What a gateway says of itself on its keepalive connection.
std::string render_gateway(std::string_view host, std::uint16_t port);

} // namespace llumnix::scheduler_api
