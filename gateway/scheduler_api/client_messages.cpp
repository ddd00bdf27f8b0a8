#include "gateway/scheduler_api/client_messages.hpp"

#include "config/load_config.hpp"
#include "gateway/openai/json_text.hpp"
#include "gateway/scheduler_api/json_members.hpp"
#include "gateway/scheduler_api/scheduling_reply.hpp"
#include "net/http_message.hpp"

namespace llumnix::scheduler_api {

namespace {

using relay::json_cursor;

constexpr std::size_t choice_bytes_max = 64 * 1024; // of an instance; it is kept

void append_text(std::string& out, std::string_view name, std::string_view value) {
  out.append(out.back() == '{' ? "\"" : ",\"").append(name).append("\":");
  append_go_string(out, value);
}

void append_identity(std::string& out, const asked_request& request, std::string_view stage) {
  append_text(out, "id", request.id);
  append_text(out, "model", request.model);
  if (!request.gateway_id.empty())
    append_text(out, "gateway_id", request.gateway_id);
  append_text(out, "scheduling_mode", "neutral");
  append_text(out, "scheduling_stage", stage);
}

std::string address_of(const std::string& host, std::uint64_t port) {
  bool bare_ipv6 = host.find(':') != host.npos && !host.starts_with('[');
  return (bare_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

void read_instance(json_cursor& at, std::string_view body, told_choice& into) {
  at.peek();
  auto from = at.offset();
  std::string host;
  std::uint64_t port = 0;
  read_object(at, [&](std::string_view name) {
    if (name == "id")
      return read(at, into.id), true;
    if (name == "infer_type")
      return read(at, into.role), true;
    if (name != "endpoint")
      return false;
    read_object(at, [&](std::string_view part) {
      if (part == "host")
        return read(at, host), true;
      return part == "port" && (port = at.read_unsigned(65535), true);
    });
    return true;
  });
  if (at.failed())
    return;
  into.text = body.substr(from, at.offset() - from);
  into.address = address_of(host, port);
}

/// Calls `each` at every instance that a reply tells of.
template <class Each>
void read_results(json_cursor& at, Each each) {
  read_object(at, [&](std::string_view name) {
    if (name != "scheduling_result" || at.peek() != '[')
      return false;
    at.enter_array();
    while (at.next_element())
      each();
    return true;
  });
}

} // namespace

std::string render_question(
  const asked_request& request, std::uint32_t prompt_tokens, std::span<const token_id> prompt) {
  std::string out{"{"};
  append_identity(out, request, "prefill");
  if (prompt_tokens != 0) {
    out += ",\"prompt_num_tokens\":";
    openai::append_number(out, std::uint64_t{prompt_tokens});
  }
  out += ",\"prompt_token_ids\":";
  if (prompt.empty())
    return out += "null}";
  for (const auto& id : prompt) {
    out += &id == &prompt.front() ? '[' : ',';
    openai::append_number(out, std::uint64_t{id});
  }
  return out += "]}";
}

result<told_choice> read_choice(std::string_view body) {
  std::vector<told_choice> told;
  json_cursor at{body};
  read_results(at, [&] {
    if (told.empty())
      read_instance(at, body, told.emplace_back());
    else
      at.fail("more than one instance");
  });
  if (!at.finished())
    return error{errc::bad_message, "the scheduler's answer: " + std::string{at.problem()}};
  if (told.empty())
    return error{errc::no_instance, "no instance in the scheduler's answer"};
  auto& choice = told.front();
  std::string host;
  std::uint16_t port = 0;
  if (
    !split_address(choice.address, host, port) || port == 0
    || choice.text.size() > choice_bytes_max)
    return error{errc::bad_message, "the scheduler's answer names no engine's address"};
  return std::move(choice);
}

std::vector<told_choice> read_bookings(std::string_view body) {
  constexpr std::size_t bookings_max = 8; // a role has one each; each costs a message
  std::vector<told_choice> told;
  json_cursor at{body};
  read_results(at, [&] {
    auto text = at.skip();
    bool usable = text.starts_with('{') && text.size() <= choice_bytes_max;
    if (usable && told.size() < bookings_max)
      told.emplace_back().text = text;
  });
  return at.finished() ? told : std::vector<told_choice>{};
}

std::string render_release(const asked_request& request, const told_choice& choice, bool began) {
  std::string out{"{"};
  append_identity(out, request, began ? "decode" : "prefill");
  return out.append(",\"prompt_token_ids\":null,\"scheduling_result\":[")
    .append(choice.text)
    .append("]}");
}

void append_progress(
  std::string& items, std::string_view kind, const asked_request& request,
  const told_choice& choice, std::uint64_t tokens) {
  items += items.empty() ? "{" : ",{";
  append_text(items, "kind", kind);
  append_text(items, "id", request.id);
  append_text(items, "model", request.model);
  append_text(items, "infer_type", choice.role);
  append_text(items, "instance_id", choice.id);
  append_text(items, "gateway_id", request.gateway_id);
  items += ",\"num_tokens\":";
  openai::append_number(items, tokens);
  items += '}';
}

std::string render_gateway(std::string_view host, std::uint16_t port) {
  std::string out{"{"};
  append_text(out, "host", host);
  out += ",\"port\":";
  openai::append_number(out, std::uint64_t{port});
  return out += '}';
}

} // namespace llumnix::scheduler_api
