#include "apps/decide/scene_writer.hpp"

#include "apps/decide/proto_fields.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

namespace llumnix {

namespace {

using json = nlohmann::ordered_json;

json written(double number) {
  return write_number(number);
}

template <class T>
json written(const T& value) {
  return value;
}

/// Puts a member there unless it has its default.
template <class T>
void put(json& object, std::string_view name, const T& value, const T& otherwise = {}) {
  if (!(value == otherwise))
    object[std::string{name}] = written(value);
}

void put_part(json& object, std::string_view name, json part) {
  if (!part.empty())
    object[std::string{name}] = std::move(part);
}

json write_config(const scene_config& config) {
  auto points = [](const std::vector<profile_point>& from, const char* row, const char* column) {
    auto list = json::array();
    for (auto& point : from) {
      json entry{{row, point.row}, {"p50", point.ms}};
      if (column != nullptr)
        entry[column] = point.column;
      list.push_back(std::move(entry));
    }
    return list;
  };
  auto object = json::object();
  put_part(object, "flags", config.flags);
  put_part(object, "set", config.settings);
  if (config.hash_seed)
    object["env"]["GO_HASH_SEED"] = *config.hash_seed;
  if (config.ttft)
    object["profiles"]["ttft"] = points(*config.ttft, "tokens_num", nullptr);
  if (config.tpot)
    object["profiles"]["tpot"] = points(*config.tpot, "batch_size", "tokens_per_request");
  if (auto& model = config.step_model)
    object["step_model"] = {{"a", model->a}, {"b", model->b}, {"c", model->c}};
  if (config.step_samples)
    object["step_model"]["samples"] = *config.step_samples;
  return object;
}

/// Those fields that differ from a record as it is when nothing was said.
template <class Record>
json write_fields(
  std::span<const proto_field<Record>> fields, const Record& record, const Record& untold) {
  auto object = json::object();
  for (auto& field : fields)
    std::visit(
      [&](auto member) { put(object, field.name, record.*member, untold.*member); }, field.member);
  return object;
}

json write_dispatch(const scene_dispatch& dispatch) {
  json object{{"request_id", dispatch.request_id}, {"infer_type", to_string(dispatch.stage)}};
  put(object, "num_tokens", dispatch.num_tokens);
  put(object, "prefix_hit_tokens", dispatch.prefix_hit_tokens);
  put(object, "age_ms", dispatch.age_ms);
  put(object, "found", dispatch.found);
  put(object, "priority", dispatch.priority);
  return object;
}

json write_account(const scene_account& account) {
  auto object = json::object();
  for (auto& [name, counter] : account)
    object[name] = counter;
  return object;
}

json write_listed(const std::vector<listed_request>& requests) {
  auto list = json::array();
  for (auto& request : requests) {
    json object{{"id", request.id}};
    put(object, "len", request.tokens);
    put(object, "out", request.output_tokens);
    if (request.high_priority)
      object["priority"] = "high";
    put(object, "migrating", request.migrating);
    list.push_back(std::move(object));
  }
  return list;
}

json write_status(const scene_instance& instance, const scene_instance& untold) {
  auto status = write_fields(status_fields(), instance.status, untold.status);
  status["timestamp_ms"] = instance.status.timestamp_ms;
  if (instance.names_out_slots)
    status["num_available_migrate_out_slots"] = instance.status.num_available_migrate_out_slots;
  return status;
}

json write_instance(const scene_instance& instance, bool reservations_given) {
  static const scene_instance untold;
  json object{{"id", instance.id()}};
  if (instance.state != untold.state)
    object["state"] = to_string(instance.state);
  put_part(object, "metadata", write_fields(metadata_fields(), instance.metadata, untold.metadata));
  object["status"] = write_status(instance, untold);
  for (auto& dispatch : instance.dispatched)
    object["dispatched"].push_back(write_dispatch(dispatch));
  put_part(object, "account", write_account(instance.account));
  for (auto& [name, value] : instance.metrics)
    object["metrics"][name] = write_number(value);
  if (reservations_given)
    object["reserved"] = instance.reserved ? to_string(*instance.reserved) : std::string_view{};
  put(object, "chunks", instance.chunks);
  put(object, "adapters", instance.status.adapters);
  if (auto& running = instance.requests.running)
    object["running"] = write_listed(*running);
  if (auto& waiting = instance.requests.waiting)
    object["waiting"] = write_listed(*waiting);
  return object;
}

json write_request(const scene_request& request) {
  auto object = json::object();
  put(object, "id", request.id);
  put(object, "model", request.model);
  put(object, "gateway_id", request.gateway_id);
  put(object, "scheduling_mode", request.scheduling_mode);
  put(object, "scheduling_stage", request.scheduling_stage);
  put(object, "prompt_num_tokens", request.prompt_tokens);
  put(object, "prompt_token_ids", request.prompt);
  if (request.ttft_slo_ms)
    object["ttft_slo_ms"] = write_number(*request.ttft_slo_ms);
  if (request.tpot_slo_ms)
    object["tpot_slo_ms"] = write_number(*request.tpot_slo_ms);
  if (request.hit_tokens) {
    auto& hits = object["prefix_hit_tokens"] = json::object();
    for (auto& [id, tokens] : *request.hit_tokens)
      hits[id] = tokens;
  }
  if (request.chunk_keys)
    object["chunk_keys"] = *request.chunk_keys;
  put(object, "session", request.session);
  for (auto& [role, id] : request.session_last)
    object["session_last"][std::string{to_string(role)}] = id;
  put(object, "priority", request.priority);
  put(object, "adapter", request.adapter);
  put(object, "exclude", request.exclude);
  return object;
}

void put_blocks(json& object, const scene& what) {
  if (auto& choose = what.choose) {
    auto& block = object["choose"] = {{"instance", choose->instance}};
    if (choose->rule)
      block["rule"] = *choose->rule;
    if (choose->order)
      block["order"] = *choose->order;
    if (choose->value)
      block["value"] = *choose->value;
  }
  if (auto& scale = what.scale)
    object["scale"] = {
      {"low", write_number(scale->low)},
      {"high", write_number(scale->high)},
      {"min", scale->min},
      {"max", scale->max}};
  if (auto& predict = what.predict) {
    auto& block = object["predict"] = json::object();
    if (predict->prefill)
      block["prefill"] = *predict->prefill;
    if (predict->decode)
      block["decode"] = *predict->decode;
    if (predict->step)
      block["step"] = *predict->step;
  }
}

} // namespace

json write_number(double number) {
  if (std::isinf(number))
    return number > 0 ? "inf" : "-inf";
  return number;
}

json write_scene(const scene& what) {
  auto object = json::object();
  if (what.name)
    object["name"] = *what.name;
  put(object, "now_ms", what.now);
  if (what.seed)
    object["seed"] = *what.seed;
  put_part(object, "config", write_config(what.config));
  for (auto& instance : what.instances)
    object["instances"].push_back(write_instance(instance, what.reservations_given));
  for (auto& [role, id] : what.last)
    object["last"][std::string{to_string(role)}] = id;
  if (what.request)
    object["request"] = write_request(*what.request);
  if (what.ask != scene_question::place)
    object["ask"] = to_string(what.ask);
  put_blocks(object, what);
  return object;
}

} // namespace llumnix
