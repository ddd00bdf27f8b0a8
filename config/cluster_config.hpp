#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// Every knob of the system as plain structs: defaults, units, meaning. Filled by `load_config` and
/// by nobody else; each component is handed its own struct by value.
namespace llumnix {

using std::chrono::milliseconds;

/// This process as a node of the cluster.
struct node_config {
  std::string name = "node";
  std::vector<std::string> roles;     ///< gateway, scheduler, cms, console, llumlet
  std::string listen = "127.0.0.1:0"; ///< where other nodes connect; port 0 picks a free one
  std::string advertise;              ///< HOST:PORT told to other nodes; empty: the listen address
  std::vector<std::string> seeds;     ///< HOST:PORT of nodes to join through
  std::uint64_t incarnation = 0;      ///< life of this node; 0: the start time in milliseconds
  milliseconds heartbeat{100}; ///< between heartbeats on a node link; with TLS at least 250ms
  milliseconds connection_timeout{
    500}; ///< silence after which a node counts as dead; found within timeout + heartbeat
  milliseconds redial_min{
    50}; ///< first pause before dialling a node again; doubles up to redial_max
  milliseconds redial_max{2000};
  std::uint32_t restart_budget
    = 5; ///< restarts of one actor within restart_window before the node gives up
  milliseconds restart_window{60000};
  milliseconds restart_pause{
    100}; ///< before an ended actor is started again; doubles with each restart in the window
  bool insecure_cluster = false; ///< let node links listen off loopback without TLS
  std::string tls_certificate;   ///< PEM file; with key and ca: node links use mutual TLS
  std::string tls_key;           ///< PEM file
  std::string tls_ca;            ///< PEM file: the authority every node's certificate is signed by
  std::uint32_t threads = 2;     ///< actor threads of the process
};

/// The public HTTP listener.
struct http_config {
  std::string listen = "127.0.0.1:8089";
  std::size_t max_header_bytes = 16 * 1024;
  std::size_t max_body_bytes = 64 * 1024 * 1024;
  std::size_t max_bodies_bytes = 1024 * 1024 * 1024; ///< of all bodies held at a time; above it 503
  milliseconds header_timeout{10000};                ///< for a whole request head
  milliseconds body_timeout{30000};                  ///< a body ends in it, or grows by 64 KiB
  milliseconds idle_timeout{300000};                 ///< keep-alive connections without a request
  std::size_t max_connections = 10000;
  std::string key;       ///< bearer key clients must send; empty: none
  bool insecure = false; ///< let it listen off loopback without a key
};

/// The operators' HTTP listener.
struct admin_config {
  std::string listen = "127.0.0.1:8090";
  std::string key; ///< bearer key; required off loopback
};

/// Streams and admission in a process that serves HTTP.
struct gateway_config {
  std::uint32_t io_threads = 1;         ///< I/O loops, each with its own acceptor and stream hub
  std::string model = "modeled";        ///< the model name clients use
  std::size_t max_queue = 512;          ///< requests waiting for an instance; above it 429
  std::size_t max_inflight = 20000;     ///< streams placed or waiting; above it 429
  std::uint32_t max_choices = 16;       ///< of one request (`n`)
  milliseconds wait_for_instance{5000}; ///< a request without an instance waits this long, then 503
  std::uint32_t max_placements = 8;     ///< of one stream: first placement and replays
  std::uint32_t credit_window = 256;    ///< tokens a stream may be ahead of its client
  milliseconds stalled_client{60000}; ///< a client that accepts no byte for this long is cancelled
  milliseconds silence{1000}; ///< a silent owner of a stream is asked whether it still has it
  /// neutral: one instance prefills and decodes. pd_batch: one for each, chosen together.
  /// pd_staged: the second one when the prefill is done.
  std::string serving_mode = "neutral";
  std::size_t recorder_requests = 10000; ///< ended requests whose flight record is kept
  bool forward_scheduler = true;         ///< use the SCHEDULER actor when there is one
  /// URLs `http://HOST:PORT` of engines that run by themselves; empty: engines are llumlets on
  /// nodes. Wants `scheduler.full_mode=false`.
  std::vector<std::string> engines{};
  std::string engine_key{}; ///< bearer key that engines behind HTTP want (vLLM's --api-key)
  milliseconds engine_silence{
    30000}; ///< an engine that says nothing for this long to a request counts as hung; 0: never
  /// Headers of clients that engines behind HTTP get too, lower case; one that ends in '*' stands
  /// for all that begin so.
  std::vector<std::string> forward_headers{"authorization", "traceparent",  "tracestate",
                                           "baggage",       "x-session-id", "x-slo-*"};
  milliseconds engine_check_interval{1000}; ///< between two health checks of an engine
  /// Retries after an engine failed, as a share of the requests of the last ten seconds: 0.2 allows
  /// one retry for every five requests, so that a cluster in trouble is not asked many times over.
  double engine_retries = 0.2;
  std::uint32_t engine_retries_floor
    = 10; ///< retries a second that are allowed however few requests there are
  /// HOST:PORT of a scheduler over HTTP that places what `engines` get (spec/scheduling.md 2);
  /// empty: none. While it cannot be asked the gateway places by itself.
  std::string scheduler{};
  std::string scheduler_token{};     ///< sent to it as `authorization`; empty: nothing
  bool scheduler_tokens = true;      ///< tell it prompts, where they are known as token ids
  milliseconds scheduler_reports{0}; ///< between two reports of how requests came along; 0: none
};

/// Placement. Names and defaults of the reference (spec/scheduling.md 1.3) with our own policy
/// choice.
struct scheduler_config {
  bool full_mode = true; ///< false, "lite": load is only what was sent and has not ended
  std::string policy = "load-balance";
  std::string neutral_load_metric = "all_prefills_tokens_num";
  double neutral_load_threshold = 8192;
  std::string prefill_load_metric = "all_prefills_tokens_num";
  double prefill_load_threshold = 2048;
  std::string decode_load_metric = "kv_cache_usage_ratio_projected";
  double decode_load_threshold = 1.0;
  std::uint32_t dispatch_top_k = 1;
  bool local_account = true; ///< full mode: count what was sent since the last status
  std::uint32_t local_account_staleness_s = 10;
  std::string failover_domain = "instance-unit"; ///< instance, node, instance-unit, node-unit
  std::uint32_t instance_staleness_s = 60;
  std::uint64_t seed = 1;            ///< of random picks (dispatch_top_k above 1, power_of_two)
  std::uint32_t recorded_scenes = 0; ///< last decisions kept whole, for `llumnix why --scene`

  // Beyond the reference (docs/policies.md).
  bool session_affinity = false; ///< a session's requests go where its last one went
  bool power_of_two = false;     ///< the better of two instances drawn at random
  double hysteresis = 0; ///< share of its load by which another must be better than the last choice
  bool lora_affinity = false;  ///< lite: a request prefers instances where its LoRA is active
  bool priority_aware = false; ///< lite: only load of its own priority or above counts for it

  // The slo policy and everything predicted (spec/scheduling.md 7.3, 7.4, 9).
  std::string ttft_profile;             ///< file of measured prefill times; empty: none
  std::string tpot_profile;             ///< file of measured decode step times; empty: none
  double ttft_slo_ms = 6000;            ///< time to first token to stay below
  double tpot_slo_ms = 50;              ///< time per output token to stay below
  double ttft_slo_threshold = 0.85;     ///< share of ttft_slo_ms that a placement may use
  double tpot_slo_threshold = 0.85;     ///< share of tpot_slo_ms that a placement may use
  double tpot_migrate_out_ceil = 0.95;  ///< share of tpot_slo_ms above which requests move away
  double tpot_migrate_out_floor = 0.60; ///< share of tpot_slo_ms below which an instance is emptied
  bool adaptive_pd = false;             ///< instances take the role that load asks for; wants `slo`
  bool predict_progress = false;        ///< count prefill work done since the last status
  std::uint32_t max_num_batched_tokens = 65536; ///< of a step, where progress is predicted
  std::uint32_t predictor_warmup_samples = 20;  ///< steps seen before progress is predicted

  // Cache-aware placement (spec/scheduling.md 8).
  bool cache_aware = false;
  std::uint32_t cache_aware_min_tokens = 1024; ///< shorter prompts are not looked up
  std::string prefill_cache_locality_metric = "cache_aware_all_prefills_tokens_num";
  /// Who knows of prefixes: `own` (what engines tell of their caches) or `mooncake` (a metadata
  /// service of a KV store).
  std::string kv_index = "own";
  /// Where engines behind HTTP publish KV events over ZeroMQ, with {host}, {port} and {rank} of
  /// each: "tcp://{host}:5557"; empty: nowhere.
  std::string kv_events;
  std::string kv_events_replay; ///< where they send again what was missed, likewise
  // Of keys in a KV store:
  std::string kv_hash = "sha256_cbor";             ///< sha256_cbor, sha256_hex, xxhash
  std::uint32_t kv_chunk_tokens = 256;             ///< tokens per key
  bool kv_save_unfull_chunk = false;               ///< the tail has a key too
  std::string kv_iris_prefix = "iris.";            ///< of xxhash keys
  std::string kv_block_prefix = "block.hash.key."; ///< of xxhash keys, after kv_iris_prefix
  std::string kv_hash_seed;                        ///< of sha256_cbor; empty: "0"
  std::string mooncake;               ///< HOST:PORT of the metadata service; empty: none
  std::uint32_t kv_attempts = 5;      ///< of one query
  milliseconds kv_attempt_pause{100}; ///< after an attempt that failed
  milliseconds kv_down{30000};        ///< a service that failed is not asked for this long

  // The HTTP API for gateways of other makes (spec/scheduling.md 2).
  std::string http;           ///< HOST:PORT; empty: none
  std::string http_key;       ///< gateways must send it; empty: none
  bool http_insecure = false; ///< let it listen off loopback without a key
};

/// Plans of moves between instances (spec/rescheduling.md). Names and defaults of the reference,
/// but that neutral instances are balanced too.
struct rescheduler_config {
  milliseconds interval{500}; ///< between two plans
  std::vector<std::string> policies{
    "decode_load", "neutral_load", "prefill_failover", "decode_failover",
    "neutral_failover"}; ///< in order
  std::string decode_load_metric = "kv_cache_usage_ratio_projected";
  double decode_load_threshold = 1.0;
  std::string prefill_load_metric = "kv_cache_usage_ratio_projected";
  std::string neutral_load_metric = "kv_cache_usage_ratio_projected";
  double neutral_load_threshold = 1.0;
  std::string select_rule = "TOKEN"; ///< NUM_REQ, TOKEN, RATIO
  std::string select_order = "SR";   ///< LCR, FCR, LR, SR, FCW, FCWSR
  double select_value = 1024;
  double load_balance_threshold = 0.7;        ///< least difference of load that a move is worth
  std::string load_balance_scope = "cluster"; ///< cluster, unit
  milliseconds lease{3000};                   ///< of the one that leads; the same on every node
};

/// The agent beside an engine.
struct llumlet_config {
  std::uint32_t instances = 1;            ///< instances this node runs
  std::string instance_type = "neutral";  ///< neutral, prefill or decode
  milliseconds status_min_interval{2};    ///< at most one status per instance in this time
  milliseconds status_max_interval{1000}; ///< at least one, also without a change
  /// HOST:PORT of the RPC service for schedulers of other makes and scripts (spec/llumlet.md 8);
  /// empty: none.
  std::string grpc;
  std::string grpc_key; ///< callers must send it; empty: none
};

/// Live migration (spec/migration.md 8.5, 10, 12).
struct migration_config {
  std::uint32_t out_slots = 4;        ///< requests that may leave an instance at a time
  std::uint32_t in_slots = 4;         ///< requests that may arrive at an instance at a time
  std::uint32_t per_link = 4;         ///< requests that may leave it for the same node at a time
  milliseconds cool_down{2000};       ///< a request that has just moved is not moved by load
  std::uint32_t moves_max = 5;        ///< times that a request is moved by load
  std::uint32_t rounds_max = 8;       ///< copies while the request runs on, before it is let be
  std::uint32_t headroom_tokens = 64; ///< room reserved for what is generated meanwhile
  milliseconds offer_timeout{1000};   ///< for the destination's answer
  milliseconds tail_timeout{500};     ///< for the copy while the request is frozen
  milliseconds decide_timeout{500};   ///< frozen without an answer: the stream's owner is asked
  milliseconds lease{5000};           ///< the destination gives up when it hears nothing so long
};

/// How KV moves between engines.
struct transport_config {
  std::string kind = "ucx";           ///< ucx, off: KV is computed anew where requests go
  std::string listen = "127.0.0.1:0"; ///< where peers pull from
  std::string key;                    ///< shared by the cluster; off loopback it must be there
  bool insecure = false;              ///< listen off loopback without a key
  bool checksums = false;             ///< what lands is compared with what was read
  bool same_host = true; ///< between processes of one machine and user, memory is read directly
  std::uint32_t spoil_every = 0; ///< tests only: one in so many pulls lands wrong; 0: none
};

/// The modeled engine (spec/modeled_engine.md).
struct engine_config {
  std::string latency = "a10.llama-7b.tp1.osdi24"; ///< id in latency_models.json
  double speed = 1.0;       ///< step times are divided by it; 0: no waiting at all
  std::uint32_t blocks = 0; ///< KV blocks; 0: what the latency model's entry says
  std::uint32_t block_tokens = 16;
  std::uint32_t kv_bytes_per_token = 2048; ///< at least 16, a multiple of 8
  std::uint32_t max_num_seqs = 256;
  std::uint32_t max_num_batched_tokens = 2048;
  std::uint32_t max_model_len = 0; ///< tokens; 0: blocks x block_tokens
  std::size_t max_waiting = 4096;  ///< requests queued in the engine; above it refused
  bool prefix_cache = true;
  bool poison_freed = false; ///< overwrite blocks when they are freed; turns the prefix cache off
  std::string corrupt;       ///< REQUEST:BLOCK, tests only: spoil that block of that request
};

/// The cluster meta store.
struct cms_config {
  milliseconds metadata_interval{20000}; ///< between rewrites of unchanged metadata
  milliseconds status_interval{40}; ///< at least this between two writes of one instance's status
  std::uint32_t expiry_s = 100;     ///< lifetime of both keys; above both intervals
  /// Between two reads of what others keep in the store: who there is, and how loaded they are. 0:
  /// never.
  milliseconds pull_metadata_interval{10000};
  milliseconds pull_status_interval{50};
};

/// The Redis mirror of the CMS.
struct redis_config {
  std::string address; ///< HOST:PORT; empty: no mirror
  std::string username;
  std::string password;
  milliseconds timeout{1000}; ///< for a connection and for a reply
};

/// Where engines behind HTTP are found, beside `gateway.engines` (spec/discovery.md). Sources can
/// be combined; an address found by several counts once.
struct discovery_config {
  /// Files of engines, one `[OPTION=VALUE;…@]HOST:PORT` a line, read again when they change.
  std::vector<std::string> files{};
  milliseconds files_interval{1000}; ///< between two looks at the files
  std::string redis;                 ///< HOST:PORT with records of the reference; empty: none
  std::string redis_username;
  std::string redis_password;
  milliseconds redis_interval{1000}; ///< between two reads of all records
  std::vector<std::string> etcd{};   ///< HOST:PORT of the members of one etcd; empty: none
  std::string etcd_username;
  std::string etcd_password;
  milliseconds etcd_interval{3600000}; ///< between two full reads beside the watch
  milliseconds timeout{1000};          ///< for a connection and for a reply of Redis or etcd
  milliseconds record_expiry{60000};   ///< a record that was not renewed for this long is dead
  /// `instance_type` of the records that are used: neutral, prefill, decode or all.
  std::string instance_type = "neutral";
  /// Records are believed when they point into these networks (CIDR) or to these names ('.svc'
  /// stands for all that end so); loopback and private networks unless told otherwise.
  std::vector<std::string> networks{"127.0.0.0/8",    "10.0.0.0/8",    "172.16.0.0/12",
                                    "192.168.0.0/16", "100.64.0.0/10", "::1/128",
                                    "fc00::/7"};
};

/// All of it.
struct cluster_config {
  node_config node;
  http_config http;
  admin_config admin;
  gateway_config gateway;
  scheduler_config scheduler;
  rescheduler_config rescheduler;
  llumlet_config llumlet;
  migration_config migration;
  transport_config transport;
  engine_config engine;
  cms_config cms;
  redis_config redis;
  discovery_config discovery;
};

} // namespace llumnix
