#include "gateway/openai/api_error.hpp"

#include "gateway/openai/json_text.hpp"

namespace llumnix::openai {
namespace {

std::string_view code_of(errc code) {
  switch (code) {
    case errc::invalid_argument: return "invalid_value";
    case errc::too_long: return "context_length_exceeded";
    case errc::not_found: return "not_found";
    case errc::queue_full: return "queue_full";
    case errc::no_instance:
    case errc::out_of_blocks:
    case errc::stale:
    case errc::unreachable: return "no_available_worker";
    case errc::draining: return "draining";
    case errc::cancelled: return "cancelled";
    case errc::timeout: return "timeout";
    case errc::unsupported: return "unsupported";
    case errc::disconnected:
    case errc::bad_message: return "upstream_error";
    case errc::ok:
    case errc::internal: break;
  }
  return "internal_error";
}

} // namespace

std::string_view error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 408:
    case 504: return "timeout_error";
    case 429: return "rate_limit_error";
    case 502: return "upstream_error";
    case 503: return "service_unavailable";
    default: break;
  }
  return status < 500 || status == 501 ? "invalid_request_error" : "internal_error";
}

api_error to_api_error(const error& failure) {
  return {
    .status = http_status(failure.code),
    .code = std::string{code_of(failure.code)},
    .message = failure.context.empty() ? std::string{to_string(failure.code)} : failure.context,
    .param = {}};
}

std::string render_error(const api_error& failure) {
  std::string out = R"({"error":{"message":)";
  append_quoted(out, failure.message);
  out += R"(,"type":)";
  append_quoted(out, error_type(failure.status));
  for (auto [name, value] :
       {std::pair{R"(,"param":)", &failure.param}, {R"(,"code":)", &failure.code}}) {
    out += name;
    if (value->empty())
      out += "null";
    else
      append_quoted(out, *value);
  }
  out += "}}";
  return out;
}

net::http_reply error_reply(const api_error& failure, std::string_view request_id) {
  net::http_reply reply{
    failure.status,
    {{"content-type", "application/json"}, {"x-request-id", std::string{request_id}}},
    render_error(failure)};
  if (failure.status == 429 || failure.status == 503)
    reply.headers.emplace_back("retry-after", "1");
  return reply;
}

} // namespace llumnix::openai
