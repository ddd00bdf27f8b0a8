#include "integrations/discovery/pod_record.hpp"

#include "discovery.pb.h"
#include "integrations/discovery/host_text.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <set>
#include <simdjson.h>
#include <utility>

namespace llumnix {
namespace {

constexpr std::size_t pod_name_bytes_max = 253;
constexpr std::size_t model_bytes_max = 512;
constexpr std::size_t problems_max = 8; // of one pod; there may be a thousand

/// What keeps the instance from being an engine; empty if nothing does. Fills `engine` otherwise.
std::string read_instance(const pod_instance& instance, discovered_engine& engine) {
  if (!is_role(instance.instance_type))
    return "instance_type '" + printable(instance.instance_type)
           + "' is none of neutral, prefill and decode";
  const auto size = std::max(instance.dp_size, 1); // zero: not told
  if (
    instance.dp_size < 0 || size > static_cast<std::int32_t>(pod_instances_max)
    || instance.dp_rank < 0 || instance.dp_rank >= size)
    return fmt::format("rank {} of {} is no rank", instance.dp_rank, instance.dp_size);
  engine.address = join_host_port(instance.entrypoint_ip, instance.entrypoint_port);
  if (engine.address.empty())
    return fmt::format(
      "rank {}: nobody can dial '{}' port {}", instance.dp_rank, printable(instance.entrypoint_ip),
      instance.entrypoint_port);
  const bool has_kv = !instance.kv_transfer_ip.empty() && instance.kv_transfer_port != 0;
  if (has_kv)
    engine.kv_address = join_host_port(instance.kv_transfer_ip, instance.kv_transfer_port);
  if (has_kv && engine.kv_address.empty())
    return fmt::format(
      "rank {}: nobody can dial '{}' port {} for KV", instance.dp_rank,
      printable(instance.kv_transfer_ip), instance.kv_transfer_port);
  if (!is_model_name(instance.model))
    return fmt::format("rank {}: the model's name is too long or no text", instance.dp_rank);
  engine.role = instance.instance_type;
  engine.model = instance.model;
  engine.dp_rank = static_cast<std::uint32_t>(instance.dp_rank);
  engine.dp_size = static_cast<std::uint32_t>(size);
  engine.version = instance.version;
  return {};
}

bool parse(google::protobuf::MessageLite& message, std::string_view bytes) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

} // namespace

std::string encode(const pod_record& record) {
  discovery_wire::PodDiscoveryInfo message;
  message.set_pod_name(record.pod_name);
  message.set_timestamp_ms(record.timestamp_ms);
  for (const auto& each : record.instances) {
    discovery_wire::InstanceDiscoveryInfo instance;
    instance.set_instance_type(each.instance_type);
    instance.set_entrypoint_ip(each.entrypoint_ip);
    instance.set_entrypoint_port(each.entrypoint_port);
    instance.set_kv_transfer_ip(each.kv_transfer_ip);
    instance.set_kv_transfer_port(each.kv_transfer_port);
    instance.set_dp_rank(each.dp_rank);
    instance.set_dp_size(each.dp_size);
    instance.set_model(each.model);
    instance.set_version(each.version);
    message.add_instances(instance.SerializeAsString());
  }
  return message.SerializeAsString();
}

result<pod_record> decode_pod_record(std::string_view bytes) {
  if (bytes.size() > record_bytes_max)
    return {errc::too_long, fmt::format("the record has {} bytes", bytes.size())};
  discovery_wire::PodDiscoveryInfo message;
  if (!parse(message, bytes))
    return {errc::bad_message, "not a PodDiscoveryInfo record"};
  pod_record record;
  record.pod_name = std::move(*message.mutable_pod_name());
  record.timestamp_ms = message.timestamp_ms();
  for (auto& text : *message.mutable_instances()) {
    discovery_wire::InstanceDiscoveryInfo instance;
    if (record.instances.size() == pod_instances_max || !parse(instance, text)) {
      ++record.unreadable;
      continue;
    }
    auto& made = record.instances.emplace_back();
    made.instance_type = std::move(*instance.mutable_instance_type());
    made.entrypoint_ip = std::move(*instance.mutable_entrypoint_ip());
    made.entrypoint_port = instance.entrypoint_port();
    made.kv_transfer_ip = std::move(*instance.mutable_kv_transfer_ip());
    made.kv_transfer_port = instance.kv_transfer_port();
    made.dp_rank = instance.dp_rank();
    made.dp_size = instance.dp_size();
    made.model = std::move(*instance.mutable_model());
    made.version = instance.version();
  }
  return record;
}

bool is_role(std::string_view text) {
  return text == "neutral" || text == "prefill" || text == "decode";
}

bool is_model_name(std::string_view text) {
  auto shows = [](char c) { return static_cast<unsigned char>(c) >= ' ' && c != 0x7f; };
  return text.size() <= model_bytes_max && std::all_of(text.begin(), text.end(), shows)
         && simdjson::validate_utf8(text);
}

bool is_pod_name(std::string_view name) {
  auto fits = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || std::string_view{"._-:@"}.find(c) != std::string_view::npos;
  };
  return !name.empty() && name.size() <= pod_name_bytes_max
         && std::all_of(name.begin(), name.end(), fits);
}

pod_engines engines_of(std::string_view pod, const pod_record& record) {
  pod_engines found;
  if (!is_pod_name(pod)) {
    found.problems.push_back("its key names no pod");
    return found;
  }
  if (record.pod_name != pod)
    found.problems.push_back(
      "calls itself '" + printable(record.pod_name) + "'; goes by the name of its key");
  if (record.unreadable > 0)
    found.problems.push_back(fmt::format("{} instances cannot be read", record.unreadable));
  std::set<std::uint32_t> ranks;
  for (const auto& instance : record.instances) {
    discovered_engine engine;
    auto wrong = read_instance(instance, engine);
    if (wrong.empty() && !ranks.insert(engine.dp_rank).second)
      wrong = fmt::format("rank {} is there twice", engine.dp_rank);
    if (!wrong.empty()) {
      if (found.problems.size() < problems_max)
        found.problems.push_back(std::move(wrong));
      continue;
    }
    engine.id = fmt::format("{}_dp{}", pod, engine.dp_rank);
    found.engines.push_back(std::move(engine));
  }
  return found;
}

} // namespace llumnix
