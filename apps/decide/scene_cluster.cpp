#include "apps/decide/scene_cluster.hpp"

#include "apps/decide/proto_fields.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/scheduling/chunk_keys.hpp"
#include "runtime/scheduling/policy_registry.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace llumnix {

namespace {

class dispatcher make_dispatcher(const scene_setup& setup) {
  auto made = dispatcher::make(setup.scheduler, setup.profile);
  LLUMNIX_ASSERT(made.has_value());
  return *std::move(made);
}

/// The reservations that a scene names.
reservations reservations_in(const scene& from) {
  reservations reserved;
  for (auto& each : from.instances)
    if (each.reserved)
      (each.reserved == infer_type::prefill ? reserved.prefill : reserved.decode) = each.id();
  return reserved;
}

/// Under what address the store knows an instance; without one it is alone there.
std::string address_of(const scene_instance& instance) {
  auto& address = instance.metadata.ip_kvs;
  return address.empty() ? "instance " + instance.id() : address;
}

prefix_hits look_up(
  const scene& from, const std::vector<std::string>& keys, const scheduler_config& config,
  std::uint32_t prompt_tokens) {
  instances_by_address addresses;
  std::map<std::string_view, std::set<std::string>> holders; // addresses, by key
  for (auto& each : from.instances) {
    auto address = address_of(each);
    addresses[address].push_back(each.id());
    for (auto& key : each.chunks)
      holders[key].insert(address);
  }
  prefix_runs runs{config.kv_chunk_tokens, prompt_tokens};
  for (auto& key : keys) {
    auto& who = holders[key];
    if (!runs.add(std::vector<std::string>(who.begin(), who.end())))
      break;
  }
  return find_hits(
    {.named_by = holder_naming::kv_address, .list = runs.holders()}, prompt_tokens, addresses);
}

bool gives(
  const std::map<instance_id, given_metrics>& given, const instance_id& id,
  std::string_view metric) {
  auto found = given.find(id);
  return found != given.end() && found->second.contains(metric);
}

} // namespace

scene_cluster::scene_cluster(const scene& from, const scene_setup& setup)
  : scene_{from}, setup_{setup}, dispatcher_{make_dispatcher(setup)} {
  std::vector<const scene_instance*> instances; // by id, so that tables grow at their end
  for (auto& each : from.instances)
    instances.push_back(&each);
  std::ranges::sort(
    instances, {}, [](auto* each) -> auto& { return each->id(); });
  for (auto* each : instances)
    add(*each);
  if (from.reservations_given)
    dispatcher_.reserve(reservations_in(from));
  for (auto& [role, id] : from.last)
    dispatcher_.remember(role, id);
  if (from.request)
    for (auto& [role, id] : from.request->session_last)
      dispatcher_.remember_session(role, from.request->session, id);
  if (setup.step_model)
    dispatcher_.set_step_model(*setup.step_model);
  hits_ = find_hits();
}

void scene_cluster::add(const scene_instance& each) {
  auto& config = setup_.scheduler;
  dispatcher_.put(each.metadata, {each.id(), 1});
  if (config.local_account || !config.full_mode)
    for (auto& sent : each.dispatched) {
      auto hit = is_cache_aware(config) ? sent.prefix_hit_tokens : 0;
      dispatcher_.book(
        each.id(), {sent.request_id, sent.stage, sent.num_tokens, sent.num_tokens - hit,
                    sent.priority},
        scene_.now - sent.age_ms, sent.found && config.full_mode);
    }
  // Lite mode places by what was sent alone: statuses are not looked at (spec/cms.md 7).
  if (config.full_mode || scene_.ask != scene_question::place)
    dispatcher_.update(each.status, scene_.now);
  if (!each.status.adapters.empty()) // no part of what lite mode does not look at
    dispatcher_.list_adapters(each.id(), each.status.adapters);
  if (!each.account.empty()) {
    auto account = dispatcher_.account(each.id());
    for (auto& fields : {account_fields(), priority_fields()})
      for (auto& [name, counter] : fields)
        if (auto given = each.account.find(name); given != each.account.end())
          account.*counter = given->second;
    dispatcher_.give_account(each.id(), account);
  }
  if (!each.metrics.empty()) {
    auto& given = given_[each.id()];
    for (auto& [name, value] : each.metrics)
      given[name] = to_float(value);
    dispatcher_.give(each.id(), given);
  }
  dispatcher_.list_requests(each.id(), each.requests);
  dispatcher_.set_state(each.id(), each.state);
}

std::optional<prefix_hits> scene_cluster::find_hits() const {
  auto& config = setup_.scheduler;
  auto& request = scene_.request;
  if (!request || !is_cache_aware(config) || request->prompt_tokens < config.cache_aware_min_tokens)
    return std::nullopt;
  auto prompt_tokens = request->prompt_tokens;
  if (request->hit_tokens) {
    std::vector<prefix_hit> hits;
    for (auto& [id, tokens] : *request->hit_tokens)
      if (tokens > 0)
        hits.push_back({id, std::min(tokens, prompt_tokens)});
    return prefix_hits{true, prompt_tokens, hits};
  }
  if (request->chunk_keys)
    return look_up(scene_, *request->chunk_keys, config, prompt_tokens);
  auto options = make_chunk_key_options(config);
  auto keys = options ? chunk_keys(request->prompt, *options)
                      : result<std::vector<std::string>>{std::move(options).error()};
  if (!keys) // as in production, a placement goes on without
    return std::nullopt;
  return look_up(scene_, *keys, config, prompt_tokens);
}

std::optional<placement_query> scene_cluster::query() const {
  if (!scene_.request)
    return std::nullopt;
  auto& request = *scene_.request;
  placement_query query;
  query.request_id = request.id;
  query.prompt_tokens = request.prompt_tokens;
  query.exclude = request.exclude;
  auto goal = [](std::optional<double> ms) {
    return ms ? std::optional{static_cast<float>(*ms)} : std::nullopt;
  };
  query.wishes.ttft_slo_ms = goal(request.ttft_slo_ms);
  query.wishes.tpot_slo_ms = goal(request.tpot_slo_ms);
  query.wishes.session = request.session;
  query.wishes.adapter = request.adapter;
  query.wishes.priority = request.priority;
  return query;
}

std::vector<std::pair<std::string, float>>
scene_cluster::metrics(const instance_id& id, bool with_request) {
  auto about = with_request ? query() : std::nullopt;
  auto* hits = with_request && hits_ ? &*hits_ : nullptr;
  auto values = dispatcher_.metrics(id, about ? &*about : nullptr, hits, scene_.now);
  auto value = [&](std::string_view name) {
    auto found = std::ranges::find(values, name, &std::pair<std::string, float>::first);
    return found == values.end() ? std::nullopt : std::optional{found->second};
  };
  auto batch = value("decode_batch_size"), decodes = value("all_decodes_tokens_num");
  if (value("predicted_tpot") || !batch || !decodes)
    return values;
  // Decodes of nothing take no time, with or without a profile.
  auto tpot = predicted_tpot(
    setup_.profile, {.decode_batch = *batch,
                     .all_decodes_tokens = *decodes,
                     .prompt_tokens = about ? about->prompt_tokens : 0});
  if (std::isfinite(tpot))
    values.emplace_back("predicted_tpot", tpot);
  return values;
}

float scene_cluster::metric(const instance_id& id, std::string_view name, bool with_request) {
  for (auto& [each, value] : metrics(id, with_request))
    if (each == name)
      return value;
  return 0;
}

std::string_view scene_cluster::missing_profile(const instance_id& id, std::string_view name) {
  bool ttft = name == "predicted_ttft", tpot = name == "predicted_tpot";
  if ((!ttft && !tpot) || gives(given_, id, name))
    return {};
  if (ttft && !scene_.config.ttft)
    return "ttft";
  if (scene_.config.tpot)
    return {};
  auto decode_tokens = metric(id, "all_decodes_tokens_num");
  // Prefills are slowed down by decodes, where there are any; and those of nothing take no time.
  if (ttft)
    return metric(id, "decode_batch_size") >= 1 && decode_tokens >= 1 ? "tpot" : "";
  bool placing = scene_.ask == scene_question::place; // which does not try without any profile
  auto prompt_tokens
    = scene_.request && scene_.ask != scene_question::plan ? scene_.request->prompt_tokens : 0;
  bool work = static_cast<double>(prompt_tokens) + decode_tokens >= 1
              && metric(id, "decode_batch_size") >= 0;
  return work || (placing && !scene_.config.ttft) ? "tpot" : "";
}

candidate_table scene_cluster::candidates(std::vector<metric_column> columns) {
  candidate_table table{std::move(columns), &setup_.profile};
  auto kept
    = setup_.scheduler.adaptive_pd || scene_.reservations_given ? reserved() : reservations{};
  for (auto& [id, known] : dispatcher_.view().instances()) {
    if (auto given = given_.find(id); given != given_.end())
      table.give(id, given->second);
    table.put(known, dispatcher_.account(id));
    table.reserve(id, kept.of(id));
  }
  return table;
}

reservations scene_cluster::reserved() {
  if (scene_.reservations_given)
    return reservations_in(scene_);
  reservations found;
  fill(found, dispatcher_.view(), scene_.now, setup_.scheduler.instance_staleness_s);
  return found;
}

} // namespace llumnix
