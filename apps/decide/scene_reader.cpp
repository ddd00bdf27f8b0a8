#include "apps/decide/scene_reader.hpp"

#include "apps/decide/json_part.hpp"
#include "apps/decide/proto_fields.hpp"
#include "runtime/scheduling/load_metrics.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_set>
#include <utility>

namespace llumnix {

namespace {

/// Times in milliseconds, either way: their differences fit 64 bits.
constexpr std::int64_t time_max = std::int64_t{1} << 61;
constexpr std::int64_t count_max = std::numeric_limits<std::int32_t>::max();

template <class T>
void read_count(json_object& from, std::string_view name, T& into) {
  from.read_by(name, [&](const json_part& at) {
    if (auto count = read_whole(at, 0, count_max))
      into = static_cast<T>(*count);
  });
}

void read_time(json_object& from, std::string_view name, std::int64_t& into) {
  from.read_by(name, [&](const json_part& at) {
    if (auto time = read_whole(at, -time_max, time_max))
      into = *time;
  });
}

void read_finite(json_object& from, std::string_view name, double& into) {
  from.read_by(name, [&](const json_part& at) { read_finite(at, into); });
}

/// Reads each item of a list by `read(const json_part&, T&)`.
template <class T, class Read>
void read_items_into(const json_part& at, std::vector<T>& into, Read read) {
  read_items(at, [&](const json_part& item) { read(item, into.emplace_back()); });
}

void read_role(const json_part& at, infer_type& into) {
  if (auto role = read_word(at, {"neutral", "prefill", "decode"}))
    into = static_cast<infer_type>(*role);
}

// ---- config

/// One of the times of a profile, and where on its grid it stands.
void read_point(const json_part& at, profile_point& into, bool decode) {
  auto measured = [&](json_object& from, std::string_view name, double& number) {
    if (!from.read_by(name, [&](const json_part& part) {
          read_finite(part, number);
          if (number < 0)
            part.fail("is below 0");
        }))
      at.fail_within(name, "is missing");
  };
  json_object from{at};
  measured(from, decode ? "batch_size" : "tokens_num", into.row);
  if (decode)
    measured(from, "tokens_per_request", into.column);
  measured(from, "p50", into.ms);
  for (auto unused : {"mean", "std", "min", "max", "p95", "p99"})
    from.read_by(unused, [](const json_part& part) {
      double number = 0;
      read_part(part, number);
    });
  from.find("raw_data");
  from.close();
}

void read_profile(
  json_object& from, std::string_view name, bool decode,
  std::optional<std::vector<profile_point>>& into) {
  from.read_by(name, [&](const json_part& at) {
    into.emplace();
    read_items(at, [&](const json_part& item) { read_point(item, into->emplace_back(), decode); });
    if (into->empty())
      at.fail("holds no measured times");
  });
}

void read_coefficients(const json_part& at, step_coefficients& into) {
  json_object from{at};
  for (auto [name, number] : {std::pair{"a", &into.a}, {"b", &into.b}, {"c", &into.c}})
    read_finite(from, name, *number);
  from.close();
}

void read_step_model(const json_part& at, scene_config& into) {
  if (!at.value().is_object() || !at.value().contains("samples"))
    return read_coefficients(at, into.step_model.emplace());
  if (at.value().size() > 1)
    return at.fail("has samples beside a, b and c; give either");
  json_object from{at};
  from.read_by("samples", [&](const json_part& samples) {
    into.step_samples.emplace();
    read_items(samples, [&](const json_part& sample) {
      auto& [tokens, ms] = into.step_samples->emplace_back();
      read_pair(
        sample, [&](const json_part& part) { read_finite(part, tokens); },
        [&](const json_part& part) { read_finite(part, ms); });
    });
  });
}

void read_config(const json_part& at, scene_config& into) {
  auto object = [](nlohmann::json& to) {
    return [&to](const json_part& part) {
      if (!part.value().is_object())
        part.fail("is not an object");
      to = part.value();
    };
  };
  json_object from{at};
  from.read_by("flags", object(into.flags));
  from.read_by("set", object(into.settings));
  from.read_by("env", [&](const json_part& environment) {
    json_object names{environment};
    names.read("GO_HASH_SEED", into.hash_seed);
    names.close();
  });
  from.read_by("profiles", [&](const json_part& part) {
    json_object profiles{part};
    read_profile(profiles, "ttft", false, into.ttft);
    read_profile(profiles, "tpot", true, into.tpot);
    profiles.close();
  });
  from.read_by("step_model", [&](const json_part& part) { read_step_model(part, into); });
  from.close();
}

// ---- instances

/// Reads the fields of a record; those named in `special` are left to the caller.
template <class Record>
void read_fields(json_object& from, std::span<const proto_field<Record>> fields, Record& into) {
  for (auto& field : fields)
    std::visit([&](auto member) { from.read(field.name, into.*member); }, field.member);
}

void read_metadata(const json_part& at, instance_metadata& into) {
  json_object from{at};
  std::string id; // the one beside the record holds, as a store's key does
  from.read("instance_id", id);
  read_fields(from, metadata_fields(), into);
  from.read_by("instance_type", [](const json_part& type) {
    infer_type role{};
    read_role(type, role);
  });
  from.close();
}

void read_status(const json_part& at, scene_instance& into, bool& dated) {
  json_object from{at};
  std::string id;
  from.read("instance_id", id);
  read_fields(from, status_fields(), into.status);
  dated = from.find("timestamp_ms") != nullptr;
  read_time(from, "timestamp_ms", into.status.timestamp_ms);
  into.names_out_slots = from.find("num_available_migrate_out_slots") != nullptr;
  from.close();
}

void read_dispatch(const json_part& at, scene_dispatch& into) {
  json_object from{at};
  from.need("request_id", into.request_id);
  from.read_by("infer_type", [&](const json_part& role) { read_role(role, into.stage); });
  read_count(from, "num_tokens", into.num_tokens);
  read_count(from, "prefix_hit_tokens", into.prefix_hit_tokens);
  read_time(from, "age_ms", into.age_ms);
  from.read("found", into.found);
  from.read("priority", into.priority);
  if (into.prefix_hit_tokens > into.num_tokens)
    at.fail_within(
      "prefix_hit_tokens",
      std::to_string(into.prefix_hit_tokens) + " is above num_tokens, "
        + std::to_string(into.num_tokens));
  from.close();
}

void read_account(const json_part& at, scene_account& into) {
  json_object from{at};
  for (auto& fields : {account_fields(), priority_fields()})
    for (auto& field : fields)
      from.read_by(field.name, [&](const json_part& counter) {
        read_part(counter, into[std::string{field.name}]);
      });
  from.close();
}

void read_metrics(const json_part& at, scene_instance& into) {
  std::vector<std::string_view> known;
  for (auto& metric : load_metrics())
    known.push_back(metric.name);
  known.push_back(backlog_ttft_name);
  read_members(at, [&](const std::string& name, const json_part& member) {
    if (std::ranges::find(known, name) == known.end())
      return member.fail("there is no such metric" + suggestion(name, known));
    read_part(member, into.metrics[name]);
  });
}

void read_listed(const json_part& at, listed_request& into) {
  json_object from{at};
  from.need("id", into.id);
  read_count(from, "len", into.tokens);
  read_count(from, "out", into.output_tokens);
  from.read_by("priority", [&](const json_part& priority) {
    into.high_priority = read_word(priority, {"normal", "high"}) == 1;
  });
  from.read("migrating", into.migrating);
  from.close();
}

/// When the status was written.
void date(const json_part& at, std::int64_t age_ms, unix_ms now, scene_instance& into) {
  auto written = now - age_ms;
  if (written < -time_max || written > time_max)
    return at.fail_within("status_age_ms", "leads to a time out of range");
  into.status.timestamp_ms = written;
}

void read_instance(const json_part& at, scene& whole) {
  auto& into = whole.instances.emplace_back();
  json_object from{at};
  from.need("id", into.metadata.instance_id);
  if (from.find("id") != nullptr && into.id().empty())
    at.fail_within("id", "is empty");
  from.read_by("state", [&](const json_part& state) {
    if (auto word = read_word(state, {"ready", "draining", "lost", "stopped"}))
      into.state = static_cast<instance_state>(*word);
  });
  from.read_by("metadata", [&](const json_part& part) { read_metadata(part, into.metadata); });
  bool dated = false;
  from.read_by("status", [&](const json_part& part) { read_status(part, into, dated); });
  into.status.instance_id = into.id();
  std::int64_t age_ms = 0;
  read_time(from, "status_age_ms", age_ms);
  if (!dated)
    date(at, age_ms, whole.now, into);
  from.read_by("dispatched", [&](const json_part& part) {
    read_items_into(part, into.dispatched, read_dispatch);
  });
  from.read_by("account", [&](const json_part& part) { read_account(part, into.account); });
  from.read_by("metrics", [&](const json_part& part) { read_metrics(part, into); });
  from.read_by("reserved", [&](const json_part& part) {
    whole.reservations_given = true;
    if (auto word = read_word(part, {"", "prefill", "decode"}); word && *word > 0)
      into.reserved = *word == 1 ? infer_type::prefill : infer_type::decode;
  });
  from.read("chunks", into.chunks);
  if (auto& adapters = into.status.adapters; from.read("adapters", adapters)) {
    std::ranges::sort(adapters);
    adapters.erase(std::ranges::unique(adapters).begin(), adapters.end());
  }
  from.read_by("running", [&](const json_part& part) {
    read_items_into(part, into.requests.running.emplace(), read_listed);
  });
  from.read_by("waiting", [&](const json_part& part) {
    read_items_into(part, into.requests.waiting.emplace(), read_listed);
  });
  from.close();
}

/// What instances may have but once.
void check_instances(const json_part& at, const scene& whole) {
  std::unordered_set<std::string_view> ids;
  std::array<bool, 3> reserved{};
  for (std::size_t i = 0; i < whole.instances.size(); ++i) {
    auto& each = whole.instances[i];
    json_part here{at.value()[i], at, i};
    if (!ids.insert(each.id()).second)
      here.fail_within("id", in_quotes(each.id()) + " stands twice");
    if (!each.reserved)
      continue;
    auto& taken = reserved[static_cast<std::size_t>(*each.reserved)];
    if (std::exchange(taken, true))
      here.fail_within(
        "reserved", "another instance is reserved for " + std::string{to_string(*each.reserved)});
  }
}

// ---- the request and the question

bool has_instance(const scene& whole, std::string_view id) {
  return std::ranges::any_of(
    whole.instances, [id](const scene_instance& each) { return each.id() == id; });
}

/// To look many up in.
std::unordered_set<std::string_view> ids_of(const scene& whole) {
  std::unordered_set<std::string_view> ids;
  for (auto& each : whole.instances)
    ids.insert(each.id());
  return ids;
}

void fail_unknown(const json_part& at, const scene& whole, std::string_view id) {
  std::vector<std::string_view> known;
  for (auto& each : whole.instances)
    known.push_back(each.id());
  at.fail("there is no instance " + in_quotes(id) + suggestion(id, known));
}

/// Milliseconds that a request may set itself.
void read_goal(json_object& from, std::string_view name, std::optional<double>& into) {
  from.read_by(name, [&](const json_part& at) {
    read_finite(at, into.emplace());
    if (!at.failed() && !(*into > 0 && *into <= 1e9 && static_cast<float>(*into) > 0))
      at.fail("is not above 0 and up to 1e9");
  });
}

/// The id of an instance of the scene.
void read_known(const json_part& at, const scene& whole, instance_id& into) {
  read_part(at, into);
  if (!at.failed() && !has_instance(whole, into))
    fail_unknown(at, whole, into);
}

/// Calls `read(role, const json_part&)` for each role that is named.
template <class Read>
void read_roles(const json_part& at, Read read) {
  json_object from{at};
  for (auto role : all_roles)
    from.read_by(to_string(role), [&](const json_part& part) { read(role, part); });
  from.close();
}

/// What our own gateways ask of a placement beside a SchedulingRequest.
void read_wishes(const json_part& at, json_object& from, scene& whole) {
  auto& into = *whole.request;
  read_goal(from, "ttft_slo_ms", into.ttft_slo_ms);
  read_goal(from, "tpot_slo_ms", into.tpot_slo_ms);
  from.read("session", into.session);
  from.read_by("session_last", [&](const json_part& part) {
    read_roles(part, [&](infer_type role, const json_part& id) {
      read_known(id, whole, into.session_last[role]);
    });
  });
  if (!into.session_last.empty() && into.session.empty())
    at.fail_within("session_last", "wants a session beside it");
  from.read("priority", into.priority);
  from.read("adapter", into.adapter);
  from.read_by("exclude", [&](const json_part& ids) {
    auto known = ids_of(whole);
    read_items_into(ids, into.exclude, [&](const json_part& at, instance_id& id) {
      read_part(at, id);
      if (!at.failed() && !known.contains(id))
        fail_unknown(at, whole, id);
    });
  });
}

void read_request(const json_part& at, scene& whole) {
  auto& into = whole.request.emplace();
  json_object from{at};
  from.read("id", into.id);
  from.read("model", into.model);
  from.read("gateway_id", into.gateway_id);
  from.read("scheduling_mode", into.scheduling_mode);
  from.read("scheduling_stage", into.scheduling_stage);
  read_count(from, "prompt_num_tokens", into.prompt_tokens);
  from.read_by("prompt_token_ids", [&](const json_part& tokens) {
    if (!tokens.value().is_null())
      read_part(tokens, into.prompt);
  });
  read_wishes(at, from, whole);
  from.read_by("scheduling_result", [](const json_part& result) { // not looked at
    if (!result.value().is_array())
      result.fail("is not a list");
  });
  from.read_by("prefix_hit_tokens", [&](const json_part& hits) {
    into.hit_tokens.emplace();
    auto known = ids_of(whole);
    read_members(hits, [&](const std::string& id, const json_part& tokens) {
      if (!known.contains(id))
        return fail_unknown(tokens, whole, id);
      if (auto count = read_whole(tokens, 0, count_max))
        into.hit_tokens->emplace(id, static_cast<std::uint32_t>(*count));
    });
  });
  if (from.read("chunk_keys", into.chunk_keys) && into.hit_tokens)
    at.fail_within("chunk_keys", "stands beside prefix_hit_tokens; give either");
  from.close();
}

void read_choice(const json_part& at, scene& whole) {
  auto& into = whole.choose.emplace();
  json_object from{at};
  from.need("instance", into.instance);
  from.read_by("instance", [&](const json_part& id) {
    if (!id.failed() && !has_instance(whole, into.instance))
      fail_unknown(id, whole, into.instance);
  });
  from.read_by("rule", [&](const json_part& rule) {
    if (read_word(rule, {"NUM_REQ", "TOKEN", "RATIO"}))
      read_part(rule, into.rule);
  });
  from.read("order", into.order);
  from.read_by("value", [&](const json_part& value) { read_finite(value, into.value.emplace()); });
  from.close();
}

void read_scale(const json_part& at, scene_scale& into) {
  json_object from{at};
  from.need("low", into.low);
  from.need("high", into.high);
  from.need("min", into.min);
  from.need("max", into.max);
  from.close();
}

void read_predict(const json_part& at, scene_predict& into) {
  json_object from{at};
  from.read_by("prefill", [&](const json_part& sizes) {
    read_items_into(sizes, into.prefill.emplace(), [](const json_part& size, double& tokens) {
      read_finite(size, tokens);
    });
  });
  from.read("decode", into.decode);
  from.read("step", into.step);
  from.close();
}

/// Reads the block that the question takes, and wants no other.
void read_blocks(const json_part& at, json_object& from, scene& whole) {
  auto block = [&](scene_question question, auto how) {
    auto name = to_string(question);
    auto* given = from.find(name);
    if (given == nullptr && whole.ask == question)
      at.fail_within(name, "is missing; ask \"" + std::string{name} + "\" wants it");
    if (given != nullptr && whole.ask != question)
      at.fail_within(name, "belongs to another ask than " + in_quotes(to_string(whole.ask)));
    if (given != nullptr && whole.ask == question)
      how(json_part{*given, at, name});
  };
  block(scene_question::choose, [&](const json_part& part) { read_choice(part, whole); });
  block(
    scene_question::scale, [&](const json_part& part) { read_scale(part, whole.scale.emplace()); });
  block(scene_question::predict, [&](const json_part& part) {
    read_predict(part, whole.predict.emplace());
  });
}

void read_document(const json_part& at, scene& into) {
  json_object from{at};
  from.read("name", into.name);
  read_time(from, "now_ms", into.now);
  from.read("seed", into.seed);
  from.read_by("config", [&](const json_part& part) { read_config(part, into.config); });
  from.read_by("instances", [&](const json_part& list) {
    read_items(list, [&](const json_part& each) { read_instance(each, into); });
    if (!list.failed())
      check_instances(list, into);
  });
  from.read_by("last", [&](const json_part& part) {
    read_roles(part, [&](infer_type role, const json_part& id) { read_part(id, into.last[role]); });
  });
  from.read_by("request", [&](const json_part& part) { read_request(part, into); });
  from.read_by("ask", [&](const json_part& part) {
    if (
      auto word = read_word(
        part,
        {"place", "plan", "choose", "metrics", "predict", "reserve", "keys", "scale", "config"}))
      into.ask = static_cast<scene_question>(*word);
  });
  read_blocks(at, from, into);
  from.close();
}

} // namespace

scene_read read_scene(std::string_view text) {
  scene_read read;
  auto document = parse_scene_text(text, read.problem);
  if (read.problem)
    return read;
  if (!document.is_object()) {
    read.problem = {"", "a scene is one JSON object"};
    return read;
  }
  read_document(json_part{document, read.problem}, read.value);
  return read;
}

} // namespace llumnix
