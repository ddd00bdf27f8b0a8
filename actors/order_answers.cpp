#include "actors/order_answers.hpp"

#include <nlohmann/json.hpp>

namespace llumnix {

using nlohmann::json;

ordered_msg document(int status, const json& content) {
  return {status, content.dump(-1, ' ', false, json::error_handler_t::replace)};
}

ordered_msg refusal(int status, const char* code, const std::string& message) {
  return document(status, {{"error", {{"code", code}, {"message", message}}}});
}

} // namespace llumnix
