#include "integrations/vllm/engine_question.hpp"

#include <utility>

namespace llumnix {
namespace {

constexpr std::size_t metrics_bytes_max = 4 * 1024 * 1024;
constexpr std::size_t answer_bytes_max = 1024 * 1024;

} // namespace

std::string_view path_of(topic about) {
  switch (about) {
    case topic::health: return "/health";
    case topic::metrics: return "/metrics";
    case topic::models: return "/v1/models";
    case topic::version: return "/version";
    case topic::aborts: return "/inference/v1/abort_requests";
    case topic::tokens: return "/inference/v1/generate";
  }
  return {};
}

net::upstream_request ask_engine(
  topic about, std::string address, std::chrono::milliseconds patience, const std::string& key) {
  net::upstream_request request;
  request.address = std::move(address);
  request.method = "GET";
  request.target = path_of(about);
  request.silence = patience;
  request.max_body_bytes = about == topic::metrics ? metrics_bytes_max : answer_bytes_max;
  request.headers = {{"accept", about == topic::metrics ? "text/plain" : "application/json"}};
  if (!key.empty())
    request.headers.emplace_back("authorization", "Bearer " + key);
  if (about == topic::aborts || about == topic::tokens) { // of nothing: only whether it can
    request.method = "POST";
    request.headers.emplace_back("content-type", "application/json");
    request.body = about == topic::aborts ? R"({"request_ids":[]})" : "{}";
  }
  return request;
}

} // namespace llumnix
