#include "gateway/scheduler_api/scheduling_request.hpp"

#include "gateway/scheduler_api/json_members.hpp"
#include "net/http_message.hpp"

#include <algorithm>
#include <limits>

namespace llumnix::scheduler_api {

namespace {

using relay::json_cursor;

constexpr auto too_many = "a list too long";

/// Checks an array of token ids and leaves it as it is.
void read_tokens(json_cursor& at, std::string_view body, std::string_view& into) {
  into = {};
  if (skip_null(at))
    return;
  at.peek();
  auto from = at.offset();
  if (!at.enter_array())
    return;
  while (at.next_element())
    at.read_unsigned(std::numeric_limits<token_id>::max());
  if (!at.failed())
    into = body.substr(from, at.offset() - from);
}

/// Checks what nobody needs.
template <class Type>
bool check(json_cursor& at) {
  Type ignored{};
  read(at, ignored);
  return true;
}

void read_endpoint(json_cursor& at) {
  read_object(at, [&](std::string_view name) {
    if (net::equal_ignoring_case(name, "host"))
      return check<std::string>(at);
    return net::equal_ignoring_case(name, "port") && check<std::int64_t>(at);
  });
}

request_place read_place(json_cursor& at) {
  request_place place;
  read_object(at, [&](std::string_view name) {
    auto is = [&](std::string_view field) { return net::equal_ignoring_case(name, field); };
    if (is("infer_type"))
      return read(at, place.store), true;
    if (is("id"))
      return read(at, place.instance), true;
    if (is("endpoint"))
      return read_endpoint(at), true;
    if (is("model") || is("aux_ip"))
      return check<std::string>(at);
    if (is("version") || is("aux_port") || is("dp_rank") || is("dp_size"))
      return check<std::int64_t>(at);
    return false;
  });
  return place;
}

void read_result(json_cursor& at, std::vector<request_place>& into) {
  into.clear();
  if (skip_null(at) || !at.enter_array())
    return;
  while (at.next_element())
    if (into.size() < places_max)
      into.push_back(read_place(at));
    else
      at.fail(too_many);
}

request_progress read_progress(json_cursor& at) {
  request_progress news;
  std::string kind, model;
  read_object(at, [&](std::string_view name) {
    auto is = [&](std::string_view field) { return net::equal_ignoring_case(name, field); };
    if (is("kind"))
      return read(at, kind), true;
    if (is("id"))
      return read(at, news.request), true;
    if (is("model"))
      return read(at, model), true;
    if (is("infer_type"))
      return read(at, news.at.store), true;
    if (is("instance_id"))
      return read(at, news.at.instance), true;
    if (is("gateway_id"))
      return read(at, news.gateway), true;
    return is("num_tokens") && (read(at, news.tokens), true);
  });
  news.prefill_done = kind == "prefill_done";
  return news;
}

} // namespace

std::optional<scheduling_request> read_scheduling_request(std::string_view body) {
  scheduling_request x;
  json_cursor at{body};
  read_object(at, [&](std::string_view name) {
    auto is = [&](std::string_view field) { return net::equal_ignoring_case(name, field); };
    if (is("id"))
      return read(at, x.id), true;
    if (is("model"))
      return read(at, x.model), true;
    if (is("gateway_id"))
      return read(at, x.gateway_id), true;
    if (is("scheduling_mode"))
      return read(at, x.mode), true;
    if (is("scheduling_stage"))
      return read(at, x.stage), true;
    if (is("prompt_num_tokens"))
      return read(at, x.prompt_num_tokens), true;
    if (is("prompt_token_ids"))
      return read_tokens(at, body, x.token_ids), true;
    return is("scheduling_result") && (read_result(at, x.result), true);
  });
  if (!at.finished() || std::max(x.id.size(), x.gateway_id.size()) > id_bytes_max)
    return std::nullopt;
  return x;
}

std::optional<std::vector<request_progress>> read_report(std::string_view body) {
  std::vector<request_progress> news;
  json_cursor at{body};
  if (skip_null(at) || !at.enter_array())
    return at.finished() ? std::optional{news} : std::nullopt;
  while (at.next_element())
    if (news.size() < news_max)
      news.push_back(read_progress(at));
    else
      at.fail(too_many);
  if (!at.finished())
    return std::nullopt;
  return news;
}

std::optional<std::string> read_gateway_id(std::string_view text) {
  std::string host;
  std::int64_t port = 0;
  json_cursor at{text};
  read_object(at, [&](std::string_view name) {
    if (net::equal_ignoring_case(name, "host"))
      return read(at, host), true;
    return net::equal_ignoring_case(name, "port") && (read(at, port), true);
  });
  auto plain = [](unsigned char c) { return c > 0x20 && c < 0x7f; }; // it is logged
  if (
    !at.finished() || host.empty() || host.size() > id_bytes_max
    || !std::ranges::all_of(host, plain) || port < 0 || port > 65535)
    return std::nullopt;
  return host + ":" + std::to_string(port);
}

placement_query to_query(const scheduling_request& request) {
  constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
  placement_query query;
  query.request_id = request.id;
  query.by = reach::http;
  query.prompt_tokens
    = static_cast<std::uint32_t>(std::clamp<std::int64_t>(request.prompt_num_tokens, 0, most));
  auto mode = parse_serving_mode(request.mode);
  query.mode = mode.value_or(serving_mode::pd_staged);
  query.stage = infer_type::neutral;
  if (mode == serving_mode::pd_staged)
    query.stage = parse_infer_type(request.stage).value_or(infer_type::neutral);
  return query;
}

} // namespace llumnix::scheduler_api
