#include "config/knobs.hpp"

#include "config/near_name.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

constexpr double any_number = -std::numeric_limits<double>::infinity();

template <auto Section, auto Member>
knob_field member(cluster_config& config) {
  return &(config.*Section.*Member);
}

template <auto M>
constexpr auto node = member<&cluster_config::node, M>;
template <auto M>
constexpr auto http = member<&cluster_config::http, M>;
template <auto M>
constexpr auto admin = member<&cluster_config::admin, M>;
template <auto M>
constexpr auto gateway = member<&cluster_config::gateway, M>;
template <auto M>
constexpr auto scheduler = member<&cluster_config::scheduler, M>;
template <auto M>
constexpr auto rescheduler = member<&cluster_config::rescheduler, M>;
template <auto M>
constexpr auto llumlet = member<&cluster_config::llumlet, M>;
template <auto M>
constexpr auto migration = member<&cluster_config::migration, M>;
template <auto M>
constexpr auto transport = member<&cluster_config::transport, M>;
template <auto M>
constexpr auto engine = member<&cluster_config::engine, M>;
template <auto M>
constexpr auto cms = member<&cluster_config::cms, M>;
template <auto M>
constexpr auto redis = member<&cluster_config::redis, M>;
template <auto M>
constexpr auto discovery = member<&cluster_config::discovery, M>;

constexpr std::string_view roles[]
  = {"gateway", "scheduler", "rescheduler", "cms", "console", "llumlet"};
constexpr std::string_view instance_types[] = {"neutral", "prefill", "decode"};
constexpr std::string_view serving_modes[] = {"neutral", "pd_batch", "pd_staged"};
constexpr std::string_view discovered_types[] = {"neutral", "prefill", "decode", "all"};
constexpr std::string_view failover_domains[] = {"instance", "node", "instance-unit", "node-unit"};
constexpr std::string_view transport_kinds[] = {"ucx", "off"};
constexpr std::string_view selection_rules[] = {"NUM_REQ", "TOKEN", "RATIO"};
constexpr std::string_view selection_orders[] = {"LCR", "FCR", "LR", "SR", "FCW", "FCWSR", "LPSR"};
constexpr std::string_view balance_scopes[] = {"cluster", "unit"};
constexpr std::string_view kv_indexes[] = {"own", "mooncake"};
constexpr std::string_view kv_hashes[] = {"sha256_cbor", "sha256_hex", "xxhash"};

using enum knob_form;

// clang-format off
constexpr knob table[] = {
  {.path = "node.name", .field = node<&node_config::name>, .doc = "what this process is called in the cluster", .form = name},
  {.path = "node.roles", .field = node<&node_config::roles>, .doc = "what this process does", .choices = roles},
  {.path = "node.listen", .field = node<&node_config::listen>, .doc = "where other nodes connect; port 0 picks a free one", .form = address},
  {.path = "node.advertise", .field = node<&node_config::advertise>, .doc = "address told to other nodes; empty: the listen address", .form = peer_address},
  {.path = "node.seeds", .field = node<&node_config::seeds>, .doc = "nodes to join through", .form = peer_address},
  {.path = "node.incarnation", .field = node<&node_config::incarnation>, .doc = "life of this node; 0: its start time in milliseconds"},
  {.path = "node.heartbeat", .field = node<&node_config::heartbeat>, .doc = "between heartbeats on a node link; with TLS at least 250ms", .minimum = 1},
  {.path = "node.connection_timeout", .field = node<&node_config::connection_timeout>, .doc = "silence after which a node counts as dead", .minimum = 1},
  {.path = "node.redial_min", .field = node<&node_config::redial_min>, .doc = "first pause before dialling a node again; doubles up to node.redial_max", .minimum = 1},
  {.path = "node.redial_max", .field = node<&node_config::redial_max>, .doc = "longest pause before dialling a node again", .minimum = 1},
  {.path = "node.restart_budget", .field = node<&node_config::restart_budget>, .doc = "restarts of one actor within node.restart_window before the node gives up"},
  {.path = "node.restart_window", .field = node<&node_config::restart_window>, .doc = "time over which restarts are counted", .minimum = 1},
  {.path = "node.restart_pause", .field = node<&node_config::restart_pause>, .doc = "before an ended actor is started again"},
  {.path = "node.insecure_cluster", .field = node<&node_config::insecure_cluster>, .doc = "let node links listen off loopback without TLS"},
  {.path = "node.tls_certificate", .field = node<&node_config::tls_certificate>, .doc = "PEM file; with key and ca, node links use mutual TLS"},
  {.path = "node.tls_key", .field = node<&node_config::tls_key>, .doc = "PEM file of the certificate's private key"},
  {.path = "node.tls_ca", .field = node<&node_config::tls_ca>, .doc = "PEM file of the authority that signed every node's certificate"},
  {.path = "node.threads", .field = node<&node_config::threads>, .doc = "actor threads of the process", .minimum = 1, .maximum = 1024},

  {.path = "http.listen", .field = http<&http_config::listen>, .doc = "public HTTP address; port 0 picks a free one", .form = address},
  {.path = "http.max_header_bytes", .field = http<&http_config::max_header_bytes>, .doc = "largest request head", .minimum = 1024, .form = bytes},
  {.path = "http.max_body_bytes", .field = http<&http_config::max_body_bytes>, .doc = "largest request body", .minimum = 1024, .form = bytes},
  {.path = "http.max_bodies_bytes", .field = http<&http_config::max_bodies_bytes>, .doc = "request bodies held at a time, all together; above it 503; engines' whole replies: a quarter of it, above that 502", .minimum = 1024, .form = bytes},
  {.path = "http.header_timeout", .field = http<&http_config::header_timeout>, .doc = "for a whole request head", .minimum = 1},
  {.path = "http.body_timeout", .field = http<&http_config::body_timeout>, .doc = "within it a body ends, or has grown by 64 KiB", .minimum = 1},
  {.path = "http.idle_timeout", .field = http<&http_config::idle_timeout>, .doc = "how long a connection without a request is kept", .minimum = 1},
  {.path = "http.max_connections", .field = http<&http_config::max_connections>, .doc = "open connections of clients", .minimum = 1},
  {.path = "http.key", .field = http<&http_config::key>, .doc = "bearer key clients must send; empty: none", .secret = true},
  {.path = "http.insecure", .field = http<&http_config::insecure>, .doc = "let the public address be off loopback without a key"},

  {.path = "admin.listen", .field = admin<&admin_config::listen>, .doc = "operators' HTTP address; empty: none", .form = optional_address},
  {.path = "admin.key", .field = admin<&admin_config::key>, .doc = "bearer key of operators; required off loopback", .secret = true},

  {.path = "gateway.io_threads", .field = gateway<&gateway_config::io_threads>, .doc = "I/O loops, each with its own acceptor and stream hub", .minimum = 1, .maximum = 256},
  {.path = "gateway.model", .field = gateway<&gateway_config::model>, .doc = "model name clients use"},
  {.path = "gateway.max_queue", .field = gateway<&gateway_config::max_queue>, .doc = "requests waiting for an instance; above it 429"},
  {.path = "gateway.max_inflight", .field = gateway<&gateway_config::max_inflight>, .doc = "streams placed or waiting; above it 429", .minimum = 1},
  {.path = "gateway.max_choices", .field = gateway<&gateway_config::max_choices>, .doc = "choices of one request (its n)", .minimum = 1, .maximum = 1024},
  {.path = "gateway.wait_for_instance", .field = gateway<&gateway_config::wait_for_instance>, .doc = "a request without an instance waits this long, then 503"},
  {.path = "gateway.max_placements", .field = gateway<&gateway_config::max_placements>, .doc = "placements of one stream: the first and its replays", .minimum = 1},
  {.path = "gateway.credit_window", .field = gateway<&gateway_config::credit_window>, .doc = "tokens a stream may be ahead of its client", .minimum = 1},
  {.path = "gateway.stalled_client", .field = gateway<&gateway_config::stalled_client>, .doc = "a client that accepts no byte for this long is cancelled", .minimum = 1},
  {.path = "gateway.silence", .field = gateway<&gateway_config::silence>, .doc = "a silent owner of a stream is asked whether it still has it", .minimum = 1},
  {.path = "gateway.serving_mode", .field = gateway<&gateway_config::serving_mode>, .doc = "who serves a request: one instance (neutral), or one that prefills and one that decodes, chosen together (pd_batch) or the second when the prefill is done (pd_staged)", .choices = serving_modes},
  {.path = "gateway.recorder_requests", .field = gateway<&gateway_config::recorder_requests>, .doc = "ended requests whose flight record is kept"},
  {.path = "gateway.forward_scheduler", .field = gateway<&gateway_config::forward_scheduler>, .doc = "use the SCHEDULER actor when there is one"},
  {.path = "gateway.engines", .field = gateway<&gateway_config::engines>, .doc = "engines that run by themselves, as http://HOST:PORT; empty: llumlets on nodes", .form = engine_url},
  {.path = "gateway.forward_headers", .field = gateway<&gateway_config::forward_headers>, .doc = "headers of clients that engines behind HTTP get too, lower case; NAME* for all that begin so"},
  {.path = "gateway.engine_silence", .field = gateway<&gateway_config::engine_silence>, .doc = "an engine that says nothing for this long to a request counts as hung; 0ms: never"},
  {.path = "gateway.engine_check_interval", .field = gateway<&gateway_config::engine_check_interval>, .doc = "between two health checks of an engine of gateway.engines", .minimum = 10},
  {.path = "gateway.engine_key", .field = gateway<&gateway_config::engine_key>, .doc = "bearer key that engines behind HTTP want (vLLM's and SGLang's --api-key); empty: clients' own are passed on", .secret = true},
  {.path = "gateway.engine_retries", .field = gateway<&gateway_config::engine_retries>, .doc = "retries after an engine failed, as a share of the last ten seconds' requests", .maximum = 1},
  {.path = "gateway.engine_retries_floor", .field = gateway<&gateway_config::engine_retries_floor>, .doc = "retries a second that are allowed however few requests there are"},
  {.path = "gateway.scheduler", .field = gateway<&gateway_config::scheduler>, .doc = "scheduler over HTTP that places what gateway.engines get; empty: none", .form = peer_address},
  {.path = "gateway.scheduler_token", .field = gateway<&gateway_config::scheduler_token>, .doc = "sent to it as authorization; empty: nothing", .secret = true},
  {.path = "gateway.scheduler_tokens", .field = gateway<&gateway_config::scheduler_tokens>, .doc = "tell it prompts, where they are known as token ids"},
  {.path = "gateway.scheduler_reports", .field = gateway<&gateway_config::scheduler_reports>, .doc = "between two reports to it of how requests came along, for one in lite mode; 0ms: none"},

  {.path = "scheduler.full_mode", .field = scheduler<&scheduler_config::full_mode>, .doc = "false (lite): load is only what was sent and has not ended; for gateway.engines"},
  {.path = "scheduler.policy", .field = scheduler<&scheduler_config::policy>, .doc = "placement policy", .form = name},
  {.path = "scheduler.neutral_load_metric", .field = scheduler<&scheduler_config::neutral_load_metric>, .doc = "load of a neutral instance; in lite mode num_requests, or num_tokens for any other name", .form = name},
  {.path = "scheduler.neutral_load_threshold", .field = scheduler<&scheduler_config::neutral_load_threshold>, .doc = "load from which a neutral instance is passed over", .minimum = any_number},
  {.path = "scheduler.prefill_load_metric", .field = scheduler<&scheduler_config::prefill_load_metric>, .doc = "load of a prefill instance; in lite mode num_requests, or num_tokens for any other name", .form = name},
  {.path = "scheduler.prefill_load_threshold", .field = scheduler<&scheduler_config::prefill_load_threshold>, .doc = "load from which a prefill instance is passed over", .minimum = any_number},
  {.path = "scheduler.decode_load_metric", .field = scheduler<&scheduler_config::decode_load_metric>, .doc = "load of a decode instance; in lite mode num_requests, or num_tokens for any other name", .form = name},
  {.path = "scheduler.decode_load_threshold", .field = scheduler<&scheduler_config::decode_load_threshold>, .doc = "load from which a decode instance is passed over", .minimum = any_number},
  {.path = "scheduler.dispatch_top_k", .field = scheduler<&scheduler_config::dispatch_top_k>, .doc = "how many of the best instances one is drawn from", .minimum = 1},
  {.path = "scheduler.local_account", .field = scheduler<&scheduler_config::local_account>, .doc = "full mode: count what was sent since an instance's last status"},
  {.path = "scheduler.local_account_staleness_s", .field = scheduler<&scheduler_config::local_account_staleness_s>, .doc = "full mode: seconds until an unconfirmed dispatch is forgotten"},
  {.path = "scheduler.failover_domain", .field = scheduler<&scheduler_config::failover_domain>, .doc = "full mode: what is avoided together with a failing instance", .choices = failover_domains},
  {.path = "scheduler.instance_staleness_s", .field = scheduler<&scheduler_config::instance_staleness_s>, .doc = "seconds without a status after which an instance gets no work"},
  {.path = "scheduler.seed", .field = scheduler<&scheduler_config::seed>, .doc = "of random picks, with scheduler.dispatch_top_k above 1 or scheduler.power_of_two"},
  {.path = "scheduler.recorded_scenes", .field = scheduler<&scheduler_config::recorded_scenes>, .doc = "last decisions kept whole, for `llumnix why --scene`; each is as large as the cluster", .maximum = 1000},
  {.path = "scheduler.session_affinity", .field = scheduler<&scheduler_config::session_affinity>, .doc = "requests with the same x-session-id go to the same instance as long as it can take them"},
  {.path = "scheduler.power_of_two", .field = scheduler<&scheduler_config::power_of_two>, .doc = "the better of two instances drawn at random, not the best of all"},
  {.path = "scheduler.hysteresis", .field = scheduler<&scheduler_config::hysteresis>, .doc = "share of its load by which another instance must be better than the last choice", .maximum = 1},
  {.path = "scheduler.lora_affinity", .field = scheduler<&scheduler_config::lora_affinity>, .doc = "lite mode: a request prefers instances where the LoRA it names is active"},
  {.path = "scheduler.priority_aware", .field = scheduler<&scheduler_config::priority_aware>, .doc = "lite mode: only load of a request's own priority or above counts for it"},
  {.path = "scheduler.ttft_profile", .field = scheduler<&scheduler_config::ttft_profile>, .doc = "file of measured prefill times, for policy slo and predicted metrics; empty: none"},
  {.path = "scheduler.tpot_profile", .field = scheduler<&scheduler_config::tpot_profile>, .doc = "file of measured decode step times, for the same; empty: none"},
  {.path = "scheduler.ttft_slo_ms", .field = scheduler<&scheduler_config::ttft_slo_ms>, .doc = "milliseconds to the first token to stay below"},
  {.path = "scheduler.tpot_slo_ms", .field = scheduler<&scheduler_config::tpot_slo_ms>, .doc = "milliseconds per output token to stay below"},
  {.path = "scheduler.ttft_slo_threshold", .field = scheduler<&scheduler_config::ttft_slo_threshold>, .doc = "share of scheduler.ttft_slo_ms that a placement may use"},
  {.path = "scheduler.tpot_slo_threshold", .field = scheduler<&scheduler_config::tpot_slo_threshold>, .doc = "share of scheduler.tpot_slo_ms that a placement may use"},
  {.path = "scheduler.tpot_migrate_out_ceil", .field = scheduler<&scheduler_config::tpot_migrate_out_ceil>, .doc = "share of scheduler.tpot_slo_ms above which requests move away, with policy binpacking_mitigation"},
  {.path = "scheduler.tpot_migrate_out_floor", .field = scheduler<&scheduler_config::tpot_migrate_out_floor>, .doc = "share of scheduler.tpot_slo_ms below which an instance is emptied, with policy binpacking_consolidation"},
  {.path = "scheduler.adaptive_pd", .field = scheduler<&scheduler_config::adaptive_pd>, .doc = "policy slo: instances take the role that load asks for"},
  {.path = "scheduler.predict_progress", .field = scheduler<&scheduler_config::predict_progress>, .doc = "full mode: count prefill work done since the last status"},
  {.path = "scheduler.max_num_batched_tokens", .field = scheduler<&scheduler_config::max_num_batched_tokens>, .doc = "tokens of a step, where progress is predicted", .minimum = 1},
  {.path = "scheduler.predictor_warmup_samples", .field = scheduler<&scheduler_config::predictor_warmup_samples>, .doc = "steps seen before progress is predicted"},
  {.path = "scheduler.cache_aware", .field = scheduler<&scheduler_config::cache_aware>, .doc = "prefer instances that hold the beginning of the prompt"},
  {.path = "scheduler.cache_aware_min_tokens", .field = scheduler<&scheduler_config::cache_aware_min_tokens>, .doc = "shorter prompts are not looked up"},
  {.path = "scheduler.prefill_cache_locality_metric", .field = scheduler<&scheduler_config::prefill_cache_locality_metric>, .doc = "what is compared in front of the load, with scheduler.cache_aware", .form = name},
  {.path = "scheduler.kv_index", .field = scheduler<&scheduler_config::kv_index>, .doc = "who knows of prefixes: what engines tell of their caches, or Mooncake's metadata service", .choices = kv_indexes},
  {.path = "scheduler.kv_events", .field = scheduler<&scheduler_config::kv_events>, .doc = "where engines behind HTTP publish KV events over ZeroMQ, as tcp://{host}:5557; {host}, {port} and {rank} are each engine's; empty: nowhere"},
  {.path = "scheduler.kv_events_replay", .field = scheduler<&scheduler_config::kv_events_replay>, .doc = "where they send again what was missed, likewise; empty: nowhere"},
  {.path = "scheduler.mooncake", .field = scheduler<&scheduler_config::mooncake>, .doc = "Mooncake's metadata service, for scheduler.kv_index=mooncake; empty: none", .form = peer_address},
  {.path = "scheduler.kv_attempts", .field = scheduler<&scheduler_config::kv_attempts>, .doc = "attempts of one query of that service", .minimum = 1},
  {.path = "scheduler.kv_attempt_pause", .field = scheduler<&scheduler_config::kv_attempt_pause>, .doc = "after an attempt that failed"},
  {.path = "scheduler.kv_down", .field = scheduler<&scheduler_config::kv_down>, .doc = "a service that failed is not asked for this long"},
  {.path = "scheduler.kv_hash", .field = scheduler<&scheduler_config::kv_hash>, .doc = "of its keys of prompt chunks", .choices = kv_hashes},
  {.path = "scheduler.kv_chunk_tokens", .field = scheduler<&scheduler_config::kv_chunk_tokens>, .doc = "tokens per key", .minimum = 1, .maximum = 1 << 20},
  {.path = "scheduler.kv_save_unfull_chunk", .field = scheduler<&scheduler_config::kv_save_unfull_chunk>, .doc = "the tail of a prompt has a key too"},
  {.path = "scheduler.kv_iris_prefix", .field = scheduler<&scheduler_config::kv_iris_prefix>, .doc = "of xxhash keys"},
  {.path = "scheduler.kv_block_prefix", .field = scheduler<&scheduler_config::kv_block_prefix>, .doc = "of xxhash keys, after scheduler.kv_iris_prefix"},
  {.path = "scheduler.kv_hash_seed", .field = scheduler<&scheduler_config::kv_hash_seed>, .doc = "of sha256_cbor keys, the one of the engines; empty: 0"},
  {.path = "scheduler.http", .field = scheduler<&scheduler_config::http>, .doc = "address of the scheduler's API for gateways of other makes; empty: none", .form = optional_address},
  {.path = "scheduler.http_key", .field = scheduler<&scheduler_config::http_key>, .doc = "key those gateways must send; empty: none", .secret = true},
  {.path = "scheduler.http_insecure", .field = scheduler<&scheduler_config::http_insecure>, .doc = "let that address be off loopback without a key"},

  {.path = "rescheduler.interval", .field = rescheduler<&rescheduler_config::interval>, .doc = "between two plans of moves", .minimum = 10},
  {.path = "rescheduler.policies", .field = rescheduler<&rescheduler_config::policies>, .doc = "what moves requests, in order: decode_load, neutral_load, prefill_failover, decode_failover, neutral_failover, binpacking_mitigation, binpacking_consolidation, decode_balanced, neutral_balanced, decode_steps, neutral_steps, return_decode, aggregate_prefill, ease_decode (docs/migration.md)", .form = name},
  {.path = "rescheduler.decode_load_metric", .field = rescheduler<&rescheduler_config::decode_load_metric>, .doc = "load that decode_load compares", .form = name},
  {.path = "rescheduler.decode_load_threshold", .field = rescheduler<&rescheduler_config::decode_load_threshold>, .doc = "at this load decode instances give, below it they take"},
  {.path = "rescheduler.prefill_load_metric", .field = rescheduler<&rescheduler_config::prefill_load_metric>, .doc = "load that prefill_failover compares", .form = name},
  {.path = "rescheduler.neutral_load_metric", .field = rescheduler<&rescheduler_config::neutral_load_metric>, .doc = "load that neutral_load compares", .form = name},
  {.path = "rescheduler.neutral_load_threshold", .field = rescheduler<&rescheduler_config::neutral_load_threshold>, .doc = "at this load neutral instances give, below it they take"},
  {.path = "rescheduler.select_rule", .field = rescheduler<&rescheduler_config::select_rule>, .doc = "what rescheduler.select_value counts in a move by load", .choices = selection_rules},
  {.path = "rescheduler.select_order", .field = rescheduler<&rescheduler_config::select_order>, .doc = "which requests go first", .choices = selection_orders},
  {.path = "rescheduler.select_value", .field = rescheduler<&rescheduler_config::select_value>, .doc = "how much a move by load takes; a request that is larger goes alone where no smaller one can (not by a metric that counts requests); never more than makes both sides equal, where the metric tells that"},
  {.path = "rescheduler.load_balance_threshold", .field = rescheduler<&rescheduler_config::load_balance_threshold>, .doc = "least difference of load that a move of decode_load or neutral_load is worth, in the unit of their metric; 0 or less: none, as metrics that are better when higher need"},
  {.path = "rescheduler.load_balance_scope", .field = rescheduler<&rescheduler_config::load_balance_scope>, .doc = "whom an instance is compared with", .choices = balance_scopes},
  {.path = "rescheduler.lease", .field = rescheduler<&rescheduler_config::lease>, .doc = "of several reschedulers one leads for so long, and renews at a third of it; another takes over after it; the same on every node", .minimum = 100, .maximum = 600000},
  {.path = "llumlet.instances", .field = llumlet<&llumlet_config::instances>, .doc = "engine instances this node runs", .minimum = 1, .maximum = 1024},
  {.path = "llumlet.instance_type", .field = llumlet<&llumlet_config::instance_type>, .doc = "what its instances are for", .choices = instance_types},
  {.path = "llumlet.status_min_interval", .field = llumlet<&llumlet_config::status_min_interval>, .doc = "at most one status per instance in this time"},
  {.path = "llumlet.status_max_interval", .field = llumlet<&llumlet_config::status_max_interval>, .doc = "at least one status in this time, also without a change", .minimum = 1},
  {.path = "llumlet.grpc", .field = llumlet<&llumlet_config::grpc>, .doc = "gRPC address for schedulers of other makes and scripts (docs/grpc.md); port 0 picks a free one; empty: none", .form = optional_address},
  {.path = "llumlet.grpc_key", .field = llumlet<&llumlet_config::grpc_key>, .doc = "bearer key that its callers must send; empty: none", .secret = true},
  {.path = "migration.out_slots", .field = migration<&migration_config::out_slots>, .doc = "requests that may leave an instance at a time; 0: none", .maximum = 1024},
  {.path = "migration.in_slots", .field = migration<&migration_config::in_slots>, .doc = "requests that may arrive at an instance at a time; 0: none", .maximum = 1024},
  {.path = "migration.per_link", .field = migration<&migration_config::per_link>, .doc = "of migration.out_slots, requests that may leave for the same node at a time", .minimum = 1, .maximum = 1024},
  {.path = "migration.cool_down", .field = migration<&migration_config::cool_down>, .doc = "a request that has just moved, or was tried, is not moved by load again for so long; drains, failovers and moves by hand do not wait"},
  {.path = "migration.moves_max", .field = migration<&migration_config::moves_max>, .doc = "times that one request is moved by load; 0: never", .maximum = 1000},
  {.path = "migration.rounds_max", .field = migration<&migration_config::rounds_max>, .doc = "copies of KV while the request runs on, before it is let be", .minimum = 1, .maximum = 1000},
  {.path = "migration.headroom_tokens", .field = migration<&migration_config::headroom_tokens>, .doc = "room reserved at the destination for what is generated meanwhile", .minimum = 1, .maximum = 1 << 20},
  {.path = "migration.offer_timeout", .field = migration<&migration_config::offer_timeout>, .doc = "for the destination's answer to an offer", .minimum = 1},
  {.path = "migration.tail_timeout", .field = migration<&migration_config::tail_timeout>, .doc = "for the last copy, while the request is frozen", .minimum = 1},
  {.path = "migration.decide_timeout", .field = migration<&migration_config::decide_timeout>, .doc = "a frozen request whose destination is silent for so long is asked back from its stream's owner", .minimum = 1},
  {.path = "migration.lease", .field = migration<&migration_config::lease>, .doc = "a destination that hears nothing of a hand-over for so long gives its blocks back", .minimum = 1},
  {.path = "transport.kind", .field = transport<&transport_config::kind>, .doc = "how KV moves between engines; off: it is computed anew where requests go", .choices = transport_kinds},
  {.path = "transport.listen", .field = transport<&transport_config::listen>, .doc = "where other engines pull KV from; port 0 picks a free one", .form = address},
  {.path = "transport.key", .field = transport<&transport_config::key>, .doc = "engines prove to each other that they know it; needed off loopback", .secret = true},
  {.path = "transport.insecure", .field = transport<&transport_config::insecure>, .doc = "let it listen off loopback without a key"},
  {.path = "transport.checksums", .field = transport<&transport_config::checksums>, .doc = "compare what lands with what was read"},
  {.path = "transport.same_host", .field = transport<&transport_config::same_host>, .doc = "between processes of one machine and user, read memory directly"},
  {.path = "transport.spoil_every", .field = transport<&transport_config::spoil_every>, .doc = "for tests: one in so many pulls of KV lands with a wrong bit; 0: none"},

  {.path = "engine.latency", .field = engine<&engine_config::latency>, .doc = "latency model of the modeled engine: an id in latency_models.json"},
  {.path = "engine.speed", .field = engine<&engine_config::speed>, .doc = "step times are divided by it; 0: no waiting at all"},
  {.path = "engine.blocks", .field = engine<&engine_config::blocks>, .doc = "KV blocks; 0: what the latency model says"},
  {.path = "engine.block_tokens", .field = engine<&engine_config::block_tokens>, .doc = "tokens of one KV block", .minimum = 1, .maximum = 4096},
  {.path = "engine.kv_bytes_per_token", .field = engine<&engine_config::kv_bytes_per_token>, .doc = "KV bytes of one token; a multiple of 8", .minimum = 16, .form = bytes},
  {.path = "engine.max_num_seqs", .field = engine<&engine_config::max_num_seqs>, .doc = "requests that run at once", .minimum = 1},
  {.path = "engine.max_num_batched_tokens", .field = engine<&engine_config::max_num_batched_tokens>, .doc = "tokens of one step", .minimum = 1},
  {.path = "engine.max_model_len", .field = engine<&engine_config::max_model_len>, .doc = "tokens of prompt and output together; 0: blocks x block_tokens"},
  {.path = "engine.max_waiting", .field = engine<&engine_config::max_waiting>, .doc = "requests queued in the engine; above it refused", .minimum = 1},
  {.path = "engine.prefix_cache", .field = engine<&engine_config::prefix_cache>, .doc = "reuse the KV blocks of equal prompt beginnings"},
  {.path = "engine.poison_freed", .field = engine<&engine_config::poison_freed>, .doc = "overwrite blocks when they are freed; turns the prefix cache off"},
  {.path = "engine.corrupt", .field = engine<&engine_config::corrupt>, .doc = "REQUEST:BLOCK, for tests: spoil that block of that request"},

  {.path = "cms.metadata_interval", .field = cms<&cms_config::metadata_interval>, .doc = "between rewrites of unchanged metadata", .minimum = 1},
  {.path = "cms.status_interval", .field = cms<&cms_config::status_interval>, .doc = "least time between two writes of one instance's status", .minimum = 1},
  {.path = "cms.expiry_s", .field = cms<&cms_config::expiry_s>, .doc = "seconds both records live; above both intervals", .minimum = 1},
  {.path = "cms.pull_metadata_interval", .field = cms<&cms_config::pull_metadata_interval>, .doc = "between two reads of which instances others keep in Redis; 0: never"},
  {.path = "cms.pull_status_interval", .field = cms<&cms_config::pull_status_interval>, .doc = "between two reads of those instances' statuses; 0: never"},

  {.path = "redis.address", .field = redis<&redis_config::address>, .doc = "Redis that mirrors the CMS; empty: none", .form = peer_address},
  {.path = "redis.username", .field = redis<&redis_config::username>, .doc = "user of the Redis server; empty: its default user"},
  {.path = "redis.password", .field = redis<&redis_config::password>, .doc = "password of that user", .secret = true},
  {.path = "redis.timeout", .field = redis<&redis_config::timeout>, .doc = "for a connection and for a reply", .minimum = 1},

  {.path = "discovery.files", .field = discovery<&discovery_config::files>, .doc = "files of engines, one HOST:PORT a line; read again when they change"},
  {.path = "discovery.files_interval", .field = discovery<&discovery_config::files_interval>, .doc = "between two looks at the files", .minimum = 10},
  {.path = "discovery.redis", .field = discovery<&discovery_config::redis>, .doc = "Redis with the records of discovery sidecars; empty: none", .form = peer_address},
  {.path = "discovery.redis_username", .field = discovery<&discovery_config::redis_username>, .doc = "user of that Redis; empty: its default user"},
  {.path = "discovery.redis_password", .field = discovery<&discovery_config::redis_password>, .doc = "password of that user", .secret = true},
  {.path = "discovery.redis_interval", .field = discovery<&discovery_config::redis_interval>, .doc = "between two reads of all records in that Redis", .minimum = 10},
  {.path = "discovery.etcd", .field = discovery<&discovery_config::etcd>, .doc = "members of an etcd with the records of discovery sidecars; empty: none", .form = peer_address},
  {.path = "discovery.etcd_username", .field = discovery<&discovery_config::etcd_username>, .doc = "user of that etcd; empty: none"},
  {.path = "discovery.etcd_password", .field = discovery<&discovery_config::etcd_password>, .doc = "password of that user", .secret = true},
  {.path = "discovery.etcd_interval", .field = discovery<&discovery_config::etcd_interval>, .doc = "between two reads of all records in that etcd, beside the watch", .minimum = 100},
  {.path = "discovery.timeout", .field = discovery<&discovery_config::timeout>, .doc = "for a connection to that Redis or etcd and for a reply", .minimum = 1},
  {.path = "discovery.record_expiry", .field = discovery<&discovery_config::record_expiry>, .doc = "a record that was not renewed for this long is dead", .minimum = 1},
  {.path = "discovery.instance_type", .field = discovery<&discovery_config::instance_type>, .doc = "which records are used, by their instance_type", .choices = discovered_types},
  {.path = "discovery.networks", .field = discovery<&discovery_config::networks>, .doc = "where records may point: networks as ADDRESS/BITS, names, '.NAME' for all names that end so"},
};
// clang-format on

std::string_view leaf(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}

} // namespace

std::span<const knob> knobs() {
  return table;
}

const knob* find_knob(std::string_view path) {
  auto found = std::ranges::find(table, path, &knob::path);
  return found == std::end(table) ? nullptr : found;
}

bool is_section(std::string_view name) {
  return std::ranges::any_of(table, [name](const knob& each) {
    return each.path.size() > name.size() && each.path.starts_with(name)
           && each.path[name.size()] == '.';
  });
}

std::string_view nearest_path(std::string_view path) {
  auto own = leaf(path);
  auto section = path.substr(0, path.size() - own.size());
  bool in_section = !section.empty() && is_section(section.substr(0, section.size() - 1));
  // Of a known section only the rest may be misspelt, so its letters allow no more of them to be.
  std::vector<std::string_view> known;
  if (section.empty())
    for (auto& each : table)
      known.push_back(each.path.substr(0, each.path.find('.')));
  for (auto& each : table)
    if (!in_section)
      known.push_back(each.path);
    else if (each.path.starts_with(section))
      known.push_back(each.path.substr(section.size()));
  if (auto near = nearest_name(in_section ? own : path, known); !near.empty())
    return in_section ? find_knob(std::string{section} + std::string{near})->path : near;
  auto same_leaf = std::ranges::find(table, own, [](const knob& k) { return leaf(k.path); });
  return same_leaf == std::end(table) ? std::string_view{} : same_leaf->path;
}

} // namespace llumnix
