#include "runtime/migration/migrate_call.hpp"

#include <algorithm>
#include <cmath>

namespace llumnix {

namespace {

error invalid(std::string what) {
  return {errc::invalid_argument, std::move(what)};
}

const char* amount_name(selection_rule rule) {
  switch (rule) {
    case selection_rule::requests: return "num_reqs";
    case selection_rule::tokens: return "num_tokens";
    case selection_rule::kv_ratio: return "kv_cache_usage_ratio";
  }
  return "";
}

/// Whatever a caller wrote, so that it can be shown.
std::string quoted(const std::string& text) {
  std::string shown = "\"";
  for (unsigned char byte : text)
    shown += byte < ' ' || byte == '"' || byte == 127 ? '?' : static_cast<char>(byte);
  return shown + "\"";
}

std::string joined(const std::vector<instance_metadata>& all) {
  std::string text;
  for (const auto& each : all)
    text.append(text.empty() ? "" : ", ").append(each.instance_id);
  return text;
}

bool is_at(const instance_metadata& x, const migrate_call& call) {
  return x.kvt_port == call.destination_port && x.ip_kvs == call.destination_ip;
}

std::string address_of(const migrate_call& call) {
  return call.destination_ip + ":" + std::to_string(call.destination_port);
}

} // namespace

result<request_selection> selection_of(const migrate_call& call) {
  for (auto [name, text] :
       {std::pair{"src_engine_id", &call.source},
        {"dst_engine_id", &call.destination},
        {"dst_engine_ip", &call.destination_ip},
        {"migration_type", &call.type},
        {"migration_req_policy", &call.order},
        {"trigger_policy", &call.trigger}})
    if (text->size() > call_text_max)
      return invalid(
        std::string{name} + " has " + std::to_string(text->size()) + " bytes; "
        + std::to_string(call_text_max) + " are the most");
  auto rule = parse_selection_rule(call.type);
  if (!rule)
    return invalid(
      "migration_type " + quoted(call.type) + " is none of " + known_selection_rules());
  auto order = parse_selection_order(call.order);
  if (!order)
    return invalid(
      "migration_req_policy " + quoted(call.order) + " is none of " + known_selection_orders());
  if (!call.wanted || call.wanted->of != *rule)
    return invalid("migration_type " + call.type + " wants " + amount_name(*rule));
  if (!std::isfinite(call.wanted->value))
    return invalid(std::string{amount_name(*rule)} + " is no finite number");
  if (call.destination_port < 0 || call.destination_port > 65535)
    return invalid("dst_engine_port " + std::to_string(call.destination_port) + " is no port");
  return request_selection{*rule, *order, call.wanted->value};
}

result<instance_id>
source_of(const migrate_call& call, const std::vector<instance_metadata>& here) {
  if (call.source.empty() && here.size() == 1)
    return here.front().instance_id;
  if (call.source.empty())
    return invalid("src_engine_id is missing; this llumlet speaks for " + joined(here));
  if (std::ranges::find(here, call.source, &instance_metadata::instance_id) == here.end())
    return invalid(
      "src_engine_id " + quoted(call.source) + " is not here; this llumlet speaks for "
      + joined(here));
  return call.source;
}

result<instance_id>
destination_of(const migrate_call& call, const std::vector<instance_metadata>& known) {
  bool has_address = !call.destination_ip.empty() && call.destination_port != 0;
  std::vector<instance_metadata> there;
  if (has_address)
    std::ranges::copy_if(
      known, std::back_inserter(there), [&](const auto& x) { return is_at(x, call); });
  if (call.destination.empty()) {
    if (!has_address)
      return invalid("dst_engine_id is missing, and so is an address");
    if (there.empty())
      return error{errc::not_found, "no instance is known at " + quoted(address_of(call))};
    if (there.size() > 1)
      return invalid("dst_engine_id is missing; at " + address_of(call) + " are " + joined(there));
    return there.front().instance_id;
  }
  auto same = [&](const instance_metadata& x) { return x.instance_id == call.destination; };
  if (!std::ranges::any_of(known, same))
    return error{errc::not_found, "no instance " + quoted(call.destination) + " is known"};
  if (!there.empty() && !std::ranges::any_of(there, same))
    return invalid(
      "dst_engine_id is " + call.destination + ", but at " + address_of(call) + " is "
      + joined(there));
  return call.destination;
}

std::string policy_of(const migrate_call& call) {
  auto policy = call.trigger;
  for (char& byte : policy) {
    bool upper = byte >= 'A' && byte <= 'Z';
    byte = upper ? static_cast<char>(byte - 'A' + 'a') : byte;
    if (static_cast<unsigned char>(byte) < ' ' || byte == 127)
      byte = '?';
  }
  return policy.empty() ? "grpc" : policy;
}

call_reply
reply_of(const instance_id& from, const instance_id& to, const result<moves_begun>& outcome) {
  if (!outcome) {
    auto refused = refusal_of(outcome.error());
    refused.message += "; accepted=0 rejected=0 failed=0";
    return refused;
  }
  const auto& x = *outcome;
  auto chosen = x.accepted + x.rejected + x.failed + x.finished + x.waiting;
  call_reply reply;
  reply.success = x.accepted > 0 || x.merged;
  if (x.accepted > 0)
    reply.message = "migrate requests from " + from + " to " + to;
  else if (x.waiting > 0)
    reply.message = to + " has not answered yet, and what was chosen still may move";
  else if (x.merged)
    reply.message = from + " is being emptied already";
  else if (chosen == 0)
    reply.message = "the engine core of " + from + " cannot find expected requests";
  else if (x.rejected + x.failed == 0)
    reply.message = "what was chosen ended before it could move";
  else
    reply.message = to + " took none of the requests";
  if (!x.reason.empty())
    reply.message += ": " + x.reason;
  if (!reply.success && x.waiting > 0)
    reply.code = call_code::deadline_exceeded;
  auto count = [&](const char* name, std::uint32_t number) {
    reply.message += std::string{name} + std::to_string(number);
  };
  count("; accepted=", x.accepted);
  count(" rejected=", x.rejected);
  count(" failed=", x.failed);
  for (auto [name, number] :
       {std::pair{" finished=", x.finished}, {" waiting=", x.waiting}, {" joined=", x.joined}})
    if (number > 0)
      count(name, number);
  return reply;
}

call_reply refusal_of(const error& why) {
  auto code = call_code::internal;
  switch (why.code) {
    // An instance that is not there, or takes or gives none, accepts nothing.
    case errc::not_found:
    case errc::draining:
    case errc::unreachable:
    case errc::unsupported: code = call_code::ok; break;
    case errc::invalid_argument: code = call_code::invalid_argument; break;
    case errc::queue_full: code = call_code::resource_exhausted; break;
    case errc::timeout: code = call_code::deadline_exceeded; break;
    case errc::cancelled: code = call_code::cancelled; break;
    default: break;
  }
  return {code, false, why.context.empty() ? std::string{to_string(why.code)} : why.context};
}

} // namespace llumnix
