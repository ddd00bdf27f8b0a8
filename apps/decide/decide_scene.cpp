#include "apps/decide/decide_scene.hpp"

#include "apps/decide/json_part.hpp"
#include "apps/decide/scene_cluster.hpp"
#include "apps/decide/scene_reader.hpp"
#include "apps/decide/scene_setup.hpp"
#include "runtime/scheduling/chunk_keys.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace llumnix {

namespace {

scene_answer failed(std::string path, std::string message) {
  return {{}, scene_error{std::move(path), std::move(message)}, {}, {}};
}

scene_answer answer(decltype(scene_answer::what) what, std::string reason) {
  return {{}, std::move(what), std::move(reason), {}};
}

std::string counted(std::size_t number, std::string_view what) {
  return fmt::format("{} {}{}", number, what, number == 1 ? "" : "s");
}

/// Says that a value was compared that nothing was given for; none if all were there. `candidates`
/// are of a report.
template <class Candidates>
std::optional<scene_answer> unpredictable(scene_cluster& cluster, const Candidates& candidates) {
  for (auto& candidate : candidates)
    for (auto& [metric, value] : candidate.metrics)
      if (auto table = cluster.missing_profile(candidate.instance, metric); !table.empty())
        return failed(
          fmt::format("config.profiles.{}", table),
          fmt::format("is missing, and {} of {} is asked for", metric, candidate.instance));
  return std::nullopt;
}

/// What a store says of the prompt that no decision looks at, for a warning; nothing if all is
/// looked at, or nothing is said.
std::optional<std::string> unused_hits(const scene& about, const scheduler_config& config) {
  if (!about.request || !(about.request->hit_tokens || about.request->chunk_keys))
    return std::nullopt;
  auto path = about.request->hit_tokens ? "request.prefix_hit_tokens" : "request.chunk_keys";
  auto tokens = about.request->prompt_tokens;
  if (!is_cache_aware(config))
    return fmt::format("{} is passed over: enable-cache-aware-scheduling is off", path);
  if (tokens < config.cache_aware_min_tokens)
    return fmt::format(
      "{} is passed over: {} of the prompt are fewer than cache-aware-scheduling-min-tokens, {}",
      path, counted(tokens, "token"), config.cache_aware_min_tokens);
  return std::nullopt;
}

// ---- place

/// The query, or why no role is tried.
std::variant<placement_query, std::string>
read_mode(const scene_request& request, const scene_cluster& cluster) {
  auto mode = parse_serving_mode(request.scheduling_mode);
  if (!mode)
    return fmt::format(
      "scheduling_mode {} is none of neutral, pd_batch, pd_staged",
      in_quotes(request.scheduling_mode));
  auto query = *cluster.query();
  query.mode = *mode;
  auto stage = parse_infer_type(request.scheduling_stage);
  if (mode == serving_mode::pd_staged) {
    if (!stage || stage == infer_type::neutral)
      return fmt::format(
        "scheduling_stage {} is neither prefill nor decode", in_quotes(request.scheduling_stage));
    query.stage = *stage;
  }
  return query;
}

std::string reason_of(const scheduled& decided) {
  std::string text;
  for (auto& stage : decided.stages)
    text += fmt::format(
      "{}{}: {}", text.empty() ? "" : "; ", to_string(stage.stage),
      sentence(stage.reasons, stage.instance));
  return text;
}

scene_answer refuse(std::string why) {
  return answer(placed_answer{}, std::move(why));
}

scene_answer place(const scene& about, scene_cluster& cluster) {
  if (!about.request)
    return failed("request", "is missing; ask \"place\" wants it");
  auto read = read_mode(*about.request, cluster);
  if (auto* why = std::get_if<std::string>(&read))
    return refuse(*why);
  auto& query = std::get<placement_query>(read);
  auto& hits = cluster.hits();
  auto decided
    = cluster.dispatcher().schedule(query, hits ? &*hits : nullptr, about.now, explain::in_full);
  if (decided.stages.empty())
    return refuse(decided.note);
  placed_answer made;
  made.placed = decided.placed;
  for (auto& stage : decided.stages) {
    if (auto failure = unpredictable(cluster, stage.report->candidates))
      return *failure;
    if (made.placed)
      made.placement.emplace_back(stage.stage, stage.instance);
    made.stages.push_back(*stage.report);
  }
  return answer(std::move(made), reason_of(decided));
}

// ---- plan

/// Where the flag stands that our own knob, "rescheduler.NAME" or "scheduler.NAME", came from.
std::string flag_of(std::string_view knob) {
  constexpr std::pair<std::string_view, std::string_view> flags[]{
    {"rescheduler.policies", "rescheduling-policies"},
    {"rescheduler.decode_load_metric", "rescheduling-decode-load-metric"},
    {"rescheduler.prefill_load_metric", "rescheduling-prefill-load-metric"},
    {"rescheduler.neutral_load_metric", "rescheduling-neutral-load-metric"},
    {"rescheduler.select_rule", "rescheduling-req-select-rule"},
    {"rescheduler.select_order", "rescheduling-req-select-order"},
    {"rescheduler.select_value", "rescheduling-req-select-value"},
    {"rescheduler.load_balance_scope", "rescheduling-load-balance-scope"},
    {"scheduler.full_mode", "enable-full-mode-scheduling"}};
  for (auto& [name, flag] : flags)
    if (name == knob)
      return fmt::format("config.flags.{}", flag);
  return "config";
}

std::string reason_of(const move_plan& plan) {
  if (plan.moves.empty())
    return fmt::format("none of the {} policies wants a move", plan.reports.size());
  std::string text;
  for (auto& move : plan.moves)
    text += fmt::format(
      "{}{} moves requests from {} to {}", text.empty() ? "" : "; ", move.policy, move.from,
      move.to);
  return text;
}

scene_answer plan(const scene& about, const scene_setup& setup, scene_cluster& cluster) {
  auto policies = make_move_policies(setup.rescheduler, setup.scheduler);
  if (!policies) {
    auto& text = policies.error().context;
    auto colon = text.find(": ");
    return failed(
      flag_of(std::string_view{text}.substr(0, colon)),
      colon == text.npos ? text : text.substr(colon + 2));
  }
  auto table = cluster.candidates(policies->metrics);
  auto made = plan_moves(*policies, table, about.now, plan_detail::reports);
  for (auto& report : made.reports)
    if (auto failure = unpredictable(cluster, report.candidates))
      return *failure;
  auto reason = reason_of(made);
  return answer(std::move(made), std::move(reason));
}

// ---- the other questions

scene_answer choose(const scene& about, const scene_setup& setup) {
  auto& asked = *about.choose;
  auto& instance = *std::ranges::find(about.instances, asked.instance, &scene_instance::id);
  request_selection wanted;
  auto rule = asked.rule.value_or(setup.rescheduler.select_rule);
  auto order = asked.order.value_or(setup.rescheduler.select_order);
  wanted.rule = parse_selection_rule(rule).value_or(selection_rule::tokens);
  // Engines take an order that they do not know as this one.
  wanted.order = parse_selection_order(order).value_or(selection_order::earliest_running);
  wanted.value = asked.value.value_or(setup.rescheduler.select_value);
  std::optional<std::int64_t> free_slots;
  if (instance.names_out_slots)
    free_slots = instance.status.num_available_migrate_out_slots;
  auto chosen
    = select_requests(wanted, instance.requests, instance.status.num_total_gpu_tokens, free_slots);
  if (!chosen && chosen.error().code == errc::queue_full)
    return answer(chosen_answer{true, {}}, chosen.error().context);
  if (!chosen)
    return failed("choose.value", chosen.error().context);
  auto reason = fmt::format(
    "{} of {} by {} {:g} in order {}", counted(chosen->size(), "request"), asked.instance, rule,
    wanted.value, to_string(wanted.order));
  return answer(chosen_answer{false, *std::move(chosen)}, std::move(reason));
}

scene_answer metrics(const scene& about, scene_cluster& cluster) {
  computed_answer made;
  for (auto& [id, known] : cluster.dispatcher().view().instances()) {
    auto& load = made.instances.emplace_back();
    load.instance = id;
    load.account = cluster.dispatcher().account(id);
    for (auto& [name, value] : cluster.metrics(id))
      if (cluster.missing_profile(id, name).empty())
        load.metrics.emplace_back(name, value);
  }
  auto reason = "the load of " + counted(made.instances.size(), "instance");
  if (about.request)
    reason += fmt::format(", for a request of {}", counted(about.request->prompt_tokens, "token"));
  return answer(std::move(made), std::move(reason));
}

scene_answer predict(const scene& about, const scene_setup& setup) {
  auto& asked = *about.predict;
  predicted_answer made;
  made.step_model = setup.step_model;
  std::size_t known = 0, all = 0;
  auto times = [&](auto& sizes, auto& into, auto time_of) {
    if (!sizes)
      return;
    into.emplace();
    for (auto& size : *sizes) {
      into->push_back(time_of(size));
      known += into->back().has_value();
      ++all;
    }
  };
  times(asked.prefill, made.prefill, [&](double tokens) { return setup.profile.piece_ms(tokens); });
  times(asked.decode, made.decode, [&](auto& step) {
    return setup.profile.decode_step_ms(step.first, step.second);
  });
  times(asked.step, made.step, [&](std::int64_t tokens) {
    return setup.step_model ? setup.step_model->step_ms(tokens) : std::nullopt;
  });
  return answer(std::move(made), fmt::format("{} of {} can be predicted", known, all));
}

scene_answer reserve(scene_cluster& cluster) {
  auto reserved = cluster.reserved();
  auto name = [](const instance_id& id) { return id.empty() ? std::string{"nobody"} : id; };
  auto reason = fmt::format(
    "{} is kept for prefill, {} for decode", name(reserved.prefill), name(reserved.decode));
  return answer(std::move(reserved), std::move(reason));
}

scene_answer keys(const scene& about, const scene_setup& setup) {
  auto options = make_chunk_key_options(setup.scheduler);
  if (!options)
    return failed("config.flags.kvs-chunk-size", options.error().context);
  auto request = about.request.value_or(scene_request{});
  auto made = chunk_keys(request.prompt, *options);
  if (!made)
    return failed("request.prompt_token_ids", made.error().context);
  auto reason = fmt::format(
    "{} of up to {}, hashed with {}", counted(made->size(), "chunk"),
    counted(options->chunk_tokens, "token"), setup.scheduler.kv_hash);
  return answer(keyed_answer{*std::move(made)}, std::move(reason));
}

scene_answer scale(const scene& about, scene_cluster& cluster) {
  std::vector<scalable_instance> instances;
  for (auto& [id, known] : cluster.dispatcher().view().instances()) {
    auto& each = instances.emplace_back();
    each.id = id;
    each.freeness = cluster.metric(id, "freeness", false);
    each.running_requests = known.requests && known.requests->running
                              ? static_cast<std::int32_t>(known.requests->running->size())
                              : known.status.num_running_requests;
    each.state = known.state;
  }
  auto& band = *about.scale;
  auto decided = scale(instances, {band.low, band.high, band.min, band.max});
  if (!decided)
    return failed("scale", decided.error().context);
  auto reason = decided->reason;
  return answer(*std::move(decided), std::move(reason));
}

scene_answer answer_to(const scene& about, const scene_setup& setup) {
  if (about.ask == scene_question::config)
    return answer(
      configured_answer{setup.flags}, fmt::format("{} apply", counted(setup.flags.size(), "flag")));
  if (about.ask == scene_question::keys)
    return keys(about, setup);
  if (about.ask == scene_question::predict)
    return predict(about, setup);
  if (about.ask == scene_question::choose)
    return choose(about, setup);
  scene_cluster cluster{about, setup};
  switch (about.ask) {
    case scene_question::plan: return plan(about, setup, cluster);
    case scene_question::metrics: return metrics(about, cluster);
    case scene_question::reserve: return reserve(cluster);
    case scene_question::scale: return scale(about, cluster);
    default: return place(about, cluster);
  }
}

} // namespace

scene_answer decide(const scene& about) {
  auto setup = set_up(about);
  scene_answer made;
  if (auto* problem = std::get_if<config_problem>(&setup)) {
    made.what = *problem;
  } else {
    auto& good = std::get<scene_setup>(setup);
    made = answer_to(about, good);
    made.warnings = std::move(good.warnings);
    if (about.ask == scene_question::place || about.ask == scene_question::metrics)
      if (auto unused = unused_hits(about, good.scheduler))
        made.warnings.push_back(*std::move(unused));
  }
  made.name = about.name;
  return made;
}

scene_answer decide(std::string_view text) {
  auto read = read_scene(text);
  if (!read.problem)
    return decide(read.value);
  scene_answer made;
  made.name = std::move(read.value.name);
  made.what = *std::move(read.problem);
  return made;
}

} // namespace llumnix
