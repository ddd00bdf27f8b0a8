#include "apps/node_metrics.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <dirent.h>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <sys/resource.h>
#include <unistd.h>

namespace llumnix {

namespace {

/// A label's value as it stands between quotes.
std::string escaped(std::string_view value) {
  std::string text;
  for (char c : value) {
    if (c == '"' || c == '\\' || c == '\n')
      text += '\\';
    text += c == '\n' ? 'n' : c;
  }
  return text;
}

class exposition {
public:
  void describe(const char* name, const char* type, const char* help) {
    fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  }
  void add_of(const char* name, const std::string& source, double value) {
    fmt::format_to(
      std::back_inserter(text_), "{}{{source=\"{}\"}} {}\n", name, escaped(source), value);
  }
  void counter(const char* name, const char* help, double value) {
    add(name, "counter", help, value);
  }
  void counter(const char* name, const char* help, const std::atomic<std::uint64_t>& value) {
    counter(name, help, static_cast<double>(value.load(std::memory_order_relaxed)));
  }
  void gauge(const char* name, const char* help, double value) { add(name, "gauge", help, value); }
  void gauge(const char* name, const char* help, const std::atomic<std::uint64_t>& value) {
    gauge(name, help, static_cast<double>(value.load(std::memory_order_relaxed)));
  }
  void labelled(std::string_view name, std::string_view labels, double value) {
    fmt::format_to(std::back_inserter(text_), "{}{{{}}} {}\n", name, labels, value);
  }
  /// Nothing where nothing was observed. `labels` without braces; its family is described already.
  void histogram(const char* name, std::string_view labels, const loop_histogram& observed) {
    histogram(name, labels, {&observed});
  }
  /// The same of several of the same buckets, as one.
  void histogram(
    const char* name, std::string_view labels, std::initializer_list<const loop_histogram*> all) {
    auto bounds = (*all.begin())->bounds();
    std::vector<std::uint64_t> below(bounds.size() + 1); // of each bucket, and of those before
    double sum = 0;
    for (const auto* each : all) {
      sum += each->sum();
      std::uint64_t count = 0;
      for (std::size_t i = 0; i < below.size(); ++i)
        below[i] += count += each->count(i);
    }
    auto total = below.back();
    if (total == 0)
      return;
    auto out = std::back_inserter(text_);
    std::string_view comma = labels.empty() ? "" : ",";
    for (std::size_t i = 0; i < bounds.size(); ++i)
      fmt::format_to(
        out, "{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, bounds[i], below[i]);
    fmt::format_to(out, "{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma, total);
    auto braced = labels.empty() ? std::string{} : fmt::format("{{{}}}", labels);
    fmt::format_to(out, "{0}_sum{1} {2}\n{0}_count{1} {3}\n", name, braced, sum, total);
  }
  std::string take() && { return std::move(text_); }

private:
  void add(const char* name, const char* type, const char* help, double value) {
    describe(name, type, help);
    fmt::format_to(std::back_inserter(text_), "{} {}\n", name, value);
  }

  std::string text_;
};

double resident_bytes() {
  std::ifstream statm{"/proc/self/statm"};
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double open_files() {
  auto* directory = ::opendir("/proc/self/fd");
  if (!directory)
    return 0;
  double count = 0;
  while (::readdir(directory))
    ++count;
  ::closedir(directory);
  return count - 3; // ".", ".." and the directory itself
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& x) {
    return static_cast<double>(x.tv_sec) + static_cast<double>(x.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void add_predictions(const node_counters& x, exposition& out) {
  constexpr auto name = "llumnix_prediction_error_milliseconds";
  out.describe(
    name, "histogram",
    "How far predicted times were off: late, it took longer; early, it took less.");
  out.histogram(name, R"(kind="ttft",side="late")", x.ttft_error.late);
  out.histogram(name, R"(kind="ttft",side="early")", x.ttft_error.early);
  out.histogram(name, R"(kind="tpot",side="late")", x.tpot_error.late);
  out.histogram(name, R"(kind="tpot",side="early")", x.tpot_error.early);
}

void add_moves(const node_counters& x, exposition& out) {
  out.gauge("llumnix_moves_departing", "Requests on their way to another instance.", x.departing);
  out.gauge("llumnix_moves_arriving", "Requests on their way here.", x.arriving);
  out.counter("llumnix_moves_out_total", "Requests that moved to another instance.", x.moves_out);
  out.counter("llumnix_moves_in_total", "Requests that moved here.", x.moves_in);
  out.counter(
    "llumnix_moves_refused_total", "Moves that the destination did not take.", x.moves_refused);
  out.counter(
    "llumnix_moves_failed_total", "Moves given up after a part was done; the request ran on.",
    x.moves_failed);
  out.counter(
    "llumnix_moves_spoiled_total",
    "Moves from here whose KV came wrong, as the transport or the engine there found; it was "
    "computed there.",
    x.moves_spoiled);
  out.counter(
    "llumnix_stale_orders_total", "Orders refused: their rescheduler leads no more.",
    x.orders_stale);
  out.gauge("llumnix_rescheduler_leader", "1 while this node's rescheduler leads.", x.leads);
  out.gauge(
    "llumnix_rescheduler_term", "Term under which it leads; 0 while it does not.", x.leader_term);
  out.counter("llumnix_rescheduler_orders_total", "Orders it gave to instances.", x.move_orders);
  out.counter(
    "llumnix_rescheduler_empty_orders_total",
    "Orders for which no request was small enough, or none might move yet.", x.move_orders_empty);
}

void add_mirror(const redis_metrics& x, exposition& out) {
  out.gauge(
    "llumnix_redis_connected", "1 while the Redis that mirrors the CMS answers.",
    x.connected ? 1 : 0);
  out.counter("llumnix_redis_writes_total", "Commands the Redis server confirmed.", x.writes);
  out.counter("llumnix_redis_failures_total", "Commands refused or lost with a link.", x.failures);
  out.counter("llumnix_redis_reconnects_total", "Times a lost link came back.", x.reconnects);
  out.gauge("llumnix_redis_pending", "Changes the Redis server has not confirmed.", x.pending);
  out.gauge(
    "llumnix_cms_store_readable", "1 while what others keep in Redis can be read.",
    x.readable ? 1 : 0);
  out.counter(
    "llumnix_cms_readings_total", "Readings of what others keep in Redis, by kind of record.",
    x.readings);
  out.counter("llumnix_cms_reading_failures_total", "Readings that failed.", x.reading_failures);
  out.counter("llumnix_cms_odd_records_total", "Records left out of readings.", x.odd_records);
  constexpr auto metadata = "scheduler_cms_refresh_metadata_duration_milliseconds";
  out.describe(metadata, "histogram", "A reading of all metadata in Redis, answered or not.");
  out.histogram(metadata, {}, x.metadata_ms);
  constexpr auto statuses = "scheduler_cms_refresh_status_duration_milliseconds";
  out.describe(statuses, "histogram", "A reading of others' statuses in Redis, answered or not.");
  out.histogram(statuses, {}, x.statuses_ms);
}

} // namespace

std::string
node_metrics_text(const node_counters& x, const redis_metrics* mirror, double uptime_s) {
  exposition out;
  out.counter(
    "llumnix_placements_total", "Requests sent to an instance, replays included.", x.placements);
  out.counter(
    "llumnix_placements_by_view_total",
    "Requests placed by a gateway's own view because there was no scheduler.",
    x.placements_by_view);
  out.counter(
    "llumnix_placements_by_remote_total",
    "Requests placed by another scheduler over HTTP (gateway.scheduler).", x.placements_by_remote);
  out.counter(
    "llumnix_placements_with_hits_total",
    "Requests sent to an instance that had some of the prompt cached.", x.placements_with_hits);
  out.counter(
    "llumnix_hit_tokens_total", "Prompt tokens cached where their requests were sent.",
    x.hit_tokens);
  out.gauge(
    "llumnix_prefix_index_blocks", "KV blocks of engines that the prefix index knows.",
    x.prefix_blocks);
  out.counter(
    "llumnix_prefix_index_evicted_total", "Blocks the prefix index forgot to make room.",
    x.prefix_evicted);
  out.counter(
    "llumnix_prefix_index_gaps_total",
    "Times that all an engine had said became void, as something was missing.", x.prefix_gaps);
  out.counter(
    "llumnix_decode_handovers_total",
    "Requests that were prefilled at one instance and went to another to decode.", x.handovers);
  out.counter(
    "llumnix_decode_handover_failures_total",
    "Times that an instance did not take a request to decode; another is asked then.",
    x.handovers_failed);
  out.counter(
    "llumnix_decodes_at_prefill_total",
    "Requests that decode where they were prefilled, as no decode instance took them.",
    x.decodes_at_prefill);
  out.counter("llumnix_replays_total", "Streams placed again after a loss.", x.replays);
  out.counter(
    "llumnix_unplaceable_total", "Requests that found no instance in time.", x.unplaceable);
  out.counter("llumnix_rejected_full_total", "Requests answered with 429.", x.rejected_full);
  out.gauge("gateway_pending_requests", "Requests that wait for an instance.", x.waiting);
  out.gauge("llumnix_streams_open", "Streams of this gateway's clients.", x.inflight);
  out.counter("llumnix_peers_lost_total", "Node lives that ended while linked.", x.peers_lost);
  out.counter("llumnix_statuses_total", "Instance statuses taken into the view.", x.statuses);
  out.counter("llumnix_actor_restarts_total", "Actors started again after a crash.", x.restarts);
  add_moves(x, out);
  add_predictions(x, out);
  if (mirror)
    add_mirror(*mirror, out);
  out.gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes());
  out.counter("process_cpu_seconds_total", "User and system CPU time.", cpu_seconds());
  out.gauge("process_open_fds", "Open file descriptors.", open_files());
  out.gauge("llumnix_node_uptime_seconds", "Seconds since the process began.", uptime_s);
  return std::move(out).take();
}

std::string kv_transport_metrics_text(const kv_transport_counters& x) {
  exposition out;
  out.counter("llumnix_kv_transport_jobs_total", "Pulls that were asked for here.", x.jobs);
  out.counter("llumnix_kv_transport_failed_total", "Pulls that failed.", x.failed);
  out.counter("llumnix_kv_transport_cancelled_total", "Pulls that were given up.", x.cancelled);
  out.counter("llumnix_kv_transport_in_bytes_total", "KV bytes that landed here.", x.bytes_in);
  out.counter(
    "llumnix_kv_transport_direct_bytes_total",
    "Of those that landed: read out of another process by ourselves.", x.bytes_direct);
  out.counter("llumnix_kv_transport_out_bytes_total", "KV bytes read from here.", x.bytes_out);
  out.counter(
    "llumnix_kv_transport_bad_checksums_total", "Stretches that came with other bytes than left.",
    x.bad_checksums);
  out.counter(
    "llumnix_kv_transport_refused_total", "Requests for KV that nobody may read (any more).",
    x.refused);
  return std::move(out).take();
}

std::string llumlet_calls_metrics_text(const llumlet_server_counters& x) {
  exposition out;
  constexpr auto calls = "llumnix_llumlet_calls_total";
  out.describe(calls, "counter", "Calls of the llumlets' RPC service.");
  out.labelled(calls, R"(method="Migrate")", static_cast<double>(x.migrate_calls));
  out.labelled(calls, R"(method="Abort")", static_cast<double>(x.abort_calls));
  constexpr auto ended = "llumnix_llumlet_calls_ended_total";
  out.describe(ended, "counter", "The same, and those nobody serves, by gRPC's code at their end.");
  for (std::size_t code = 0; code < x.ended.size(); ++code)
    if (x.ended[code] > 0)
      out.labelled(ended, fmt::format(R"(code="{}")", code), static_cast<double>(x.ended[code]));
  out.gauge("llumnix_llumlet_calls_open", "Calls under way.", static_cast<double>(x.open));
  return std::move(out).take();
}

std::string kv_store_metrics_text(const mooncake::client_counters& counters) {
  exposition out;
  out.gauge(
    "llumnix_kv_store_up", "1 unless the KV store's metadata service is known to be down.",
    counters.up ? 1 : 0);
  out.counter(
    "llumnix_kv_store_queries_total", "Prompts that the KV store's metadata service answered for.",
    counters.answered);
  out.counter(
    "llumnix_kv_store_failures_total", "Prompts that it did not answer for in time.",
    counters.failed);
  out.counter(
    "llumnix_kv_store_skipped_total",
    "Prompts that it was not asked for: it is down, or asked too much.", counters.skipped);
  return std::move(out).take();
}

std::string kv_events_metrics_text(const event_index_counters& x) {
  exposition out;
  out.gauge("llumnix_kv_events_engines", "Engines whose KV events are listened to.", x.engines);
  out.gauge("llumnix_kv_events_blocks", "KV blocks that they are known to have.", x.blocks);
  out.counter(
    "llumnix_kv_events_batches_total", "Messages of theirs that were understood.", x.batches);
  out.counter(
    "llumnix_kv_events_malformed_total", "Messages of theirs that were not understood.",
    x.malformed);
  out.counter(
    "llumnix_kv_events_lost_total",
    "Times that all an engine had said became void, as something was missing.", x.lost);
  out.counter("llumnix_kv_events_evicted_total", "Blocks forgotten to make room.", x.evicted);
  return std::move(out).take();
}

std::string remote_metrics_text(const scheduler_api::client_counters& counters) {
  exposition out;
  out.gauge(
    "llumnix_remote_scheduler_ready", "1 while gateway.scheduler is asked for placements.",
    counters.ready ? 1 : 0);
  out.counter(
    "llumnix_remote_scheduler_placed_total", "Questions that it answered with an engine.",
    counters.placed);
  out.counter(
    "llumnix_remote_scheduler_busy_total", "Questions that it had no engine for at that time.",
    counters.busy);
  out.counter(
    "llumnix_remote_scheduler_failures_total", "Questions without an answer that helps.",
    counters.failed);
  out.counter(
    "llumnix_remote_scheduler_release_failures_total",
    "Ends of requests that it could not be told of.", counters.releases_failed);
  return std::move(out).take();
}

namespace {

constexpr std::size_t series_max = 1000; // of one name

/// What the gauges of `instance_gauge_names` say, in that order: as dashboards know them.
constexpr std::array<const char*, instance_gauge_names.size()> gauge_texts{
  "GPU tokens currently used per instance",
  "Waiting requests per instance",
  "Loading requests per instance",
  "Running requests per instance",
  "Scheduler waiting-to-decode requests per instance",
  "Scheduler running-to-decode requests per instance",
  "Hybrid scheduler waiting-to-decode requests per instance",
  "Uncomputed tokens across all waiting prefill requests per instance",
  "Uncomputed tokens for scheduler running prefills per instance",
  "Unallocated tokens for scheduler running prefills per instance",
  "Unallocated tokens for hybrid scheduler waiting decodes per instance",
  "Hybrid scheduler waiting-to-decode tokens per instance",
  "Scheduler waiting-to-decode tokens per instance",
  "Scheduler running-to-decode tokens per instance",
  "Tokens for loading requests per instance",
  "Inflight dispatch requests per instance",
  "Inflight dispatch prefill requests per instance",
  "Inflight dispatch decode requests per instance",
  "Uncomputed tokens for inflight dispatch prefill requests per instance",
  "Tokens for inflight dispatch decode requests per instance",
  "Projected KV cache usage ratio per instance",
  "Decode batch size per instance",
  "Total tokens for all prefill requests per instance",
  "Total tokens for all decode requests per instance"};

void add_gauges(const std::vector<instance_gauges>& instances, exposition& out) {
  if (instances.empty())
    return;
  auto shown = std::min(instances.size(), series_max);
  std::vector<std::string> labels;
  for (std::size_t at = 0; at < shown; ++at)
    labels.push_back(fmt::format(
      R"(instance_id="{}",infer_type="{}")", escaped(instances[at].instance),
      escaped(instances[at].role)));
  for (std::size_t i = 0; i < instance_gauge_names.size(); ++i) {
    auto name = fmt::format("instance_cms_{}", instance_gauge_names[i]);
    out.describe(name.c_str(), "gauge", gauge_texts[i]);
    for (std::size_t at = 0; at < shown; ++at)
      out.labelled(name, labels[at], instances[at].values[i]);
    if (instances.size() > shown)
      out.labelled(
        name, R"(instance_id="_overflow",infer_type="_overflow")", instances.back().values[i]);
  }
}

struct request_family {
  const char* name;
  const char* text;
  std::uint64_t (*of)(const request_gauges&);
};
constexpr std::array request_families{
  request_family{
    "instance_lrs_total_tokens", "Total token count on a backend endpoint",
    [](const auto& x) { return x.tokens; }},
  request_family{
    "instance_lrs_waiting_tokens", "Tokens waiting to be processed on a backend endpoint",
    [](const auto& x) { return x.waiting_tokens; }},
  request_family{
    "instance_lrs_running_tokens", "Tokens on a backend endpoint that do not wait",
    [](const auto& x) { return x.tokens - x.waiting_tokens; }},
  request_family{
    "instance_lrs_total_requests", "Total requests on a backend endpoint",
    [](const auto& x) { return x.requests; }},
  request_family{
    "instance_lrs_waiting_requests", "Requests waiting on a backend endpoint",
    [](const auto& x) { return x.waiting_requests; }},
  request_family{
    "instance_lrs_running_requests", "Requests on a backend endpoint that do not wait",
    [](const auto& x) { return x.requests - x.waiting_requests; }}};

/// What was sent to instances and has not ended; those wait that a gateway said have no token yet.
/// By address, as the reference has it: those that share one are summed up.
void add_requests(
  const std::vector<request_gauges>& instances,
  const std::function<std::string(const instance_id&)>& model_of, exposition& out) {
  std::map<std::string, request_gauges> series; // by labels
  for (const auto& each : instances) {
    auto labels = fmt::format(
      R"(model="{}",instance_id="{}",infer_type="{}")", escaped(model_of(each.instance)),
      escaped(each.address), escaped(each.role));
    if (series.size() >= series_max && !series.contains(labels))
      labels = R"(model="_overflow",instance_id="_overflow",infer_type="_overflow")";
    auto& sum = series[std::move(labels)];
    sum.tokens += each.tokens;
    sum.waiting_tokens += each.waiting_tokens;
    sum.requests += each.requests;
    sum.waiting_requests += each.waiting_requests;
  }
  if (series.empty())
    return;
  for (const auto& [name, text, of] : request_families) {
    out.describe(name, "gauge", text);
    for (const auto& [labels, sum] : series)
      out.labelled(name, labels, static_cast<double>(of(sum)));
  }
}

struct chosen_family {
  const char* name;
  loop_histogram chosen_loads::*observed;
};
constexpr std::array chosen_families{
  chosen_family{"selected_instance_kv_cache_usage_ratio_projected", &chosen_loads::kv_usage},
  chosen_family{"selected_instance_decode_batch_size", &chosen_loads::decode_batch},
  chosen_family{"selected_instance_all_prefills_tokens_num", &chosen_loads::prefill_tokens},
  chosen_family{"selected_instance_all_decodes_tokens_num", &chosen_loads::decode_tokens},
  chosen_family{"selected_instance_predicted_ttft", &chosen_loads::predicted_ttft},
  chosen_family{"selected_instance_predicted_tpot", &chosen_loads::predicted_tpot}};

} // namespace

std::string scheduler_metrics_text(
  const scheduler_probes& probes, const std::function<std::string(const instance_id&)>& model_of) {
  exposition out;
  add_gauges(probes.instances.all(), out);
  add_requests(probes.requests.all(), model_of, out);
  for (auto [name, observed] : chosen_families) {
    out.describe(name, "histogram", "Of the instances that were chosen, the request included.");
    out.histogram(name, R"(infer_type="prefill")", probes.prefill.*observed);
    out.histogram(name, R"(infer_type="decode")", probes.decode.*observed);
  }
  return std::move(out).take();
}

std::string prefix_metrics_text(const prefix_probes& ours, const prefix_probes& others) {
  exposition out;
  auto add = [&](const char* name, const char* help, loop_histogram prefix_probes::*observed) {
    out.describe(name, "histogram", help);
    out.histogram(name, {}, {&(ours.*observed), &(others.*observed)});
  };
  add(
    "request_query_prefix_cache_hit_duration_milliseconds",
    "Question to an index of prefixes, answered or not.", &prefix_probes::query_ms);
  add(
    "request_calc_prefix_cache_hit_duration_milliseconds",
    "From what is known of prefixes to the hits of each instance.", &prefix_probes::match_ms);
  add(
    "request_prefix_cache_hit_percent", "Of a prompt, cached where it was sent.",
    &prefix_probes::hit_percent);
  add(
    "request_max_prefix_cache_hit_percent", "Of a prompt, cached at the instance that has most.",
    &prefix_probes::best_percent);
  return std::move(out).take();
}

std::string discovery_metrics_text(const std::vector<discovery_health>& sources, double now_s) {
  exposition out;
  constexpr auto instances = "discovery_instances";
  out.describe(instances, "gauge", "Engines in the last answer of a source.");
  for (const auto& each : sources)
    out.add_of(instances, each.source, static_cast<double>(each.engines));
  constexpr auto errors = "discovery_errors_total";
  out.describe(errors, "counter", "Times that a source, or a record of it, could not be read.");
  for (const auto& each : sources)
    out.add_of(errors, each.source, static_cast<double>(each.errors));
  constexpr auto success = "discovery_last_success_timestamp_seconds";
  out.describe(success, "gauge", "When a source last answered, in Unix time; 0: not yet.");
  for (const auto& each : sources)
    out.add_of(success, each.source, each.answered_s_ago < 0 ? 0 : now_s - each.answered_s_ago);
  return std::move(out).take();
}

} // namespace llumnix
