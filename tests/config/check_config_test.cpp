#include "config/load_config.hpp"

#include <doctest/doctest.h>

namespace llumnix {

TEST_CASE("the defaults are right") {
  CHECK(check(cluster_config{}).empty());
}

TEST_CASE("what must hold for one knob and between knobs is checked") {
  struct row {
    std::vector<const char*> settings;
    std::vector<std::string> paths; ///< of the problems
  };
  std::vector<row> rows{
    {{"engine.speed=0"}, {}},
    {{"engine.speed=-1"}, {"engine.speed"}},
    {{"node.threads=0"}, {"node.threads"}},
    {{"gateway.io_threads=1000"}, {"gateway.io_threads"}},
    {{"redis.timeout=0ms"}, {"redis.timeout"}},
    {{"engine.kv_bytes_per_token=20"}, {"engine.kv_bytes_per_token"}},
    {{"engine.kv_bytes_per_token=8"}, {"engine.kv_bytes_per_token"}},
    {{"node.name="}, {"node.name"}},
    {{"node.name=a b"}, {"node.name"}},
    {{"node.roles=gateway,boss"}, {"node.roles"}},
    {{"node.roles=cms,cms"}, {"node.roles"}},
    {{"llumlet.instance_type=prefil"}, {"llumlet.instance_type"}},
    {{"scheduler.failover_domain=node-unit"}, {}},
    {{"scheduler.failover_domain=rack"}, {"scheduler.failover_domain"}},
    {{"node.listen=here"}, {"node.listen"}},
    {{"node.listen="}, {"node.listen"}},
    {{"node.seeds=127.0.0.1:0"}, {"node.seeds"}},
    {{"node.seeds=10.0.0.1:7,nowhere"}, {"node.seeds"}},
    {{"redis.address=127.0.0.1:6379"}, {}},
    {{"redis.address=127.0.0.1"}, {"redis.address"}},
    {{"node.heartbeat=500ms"}, {"node.heartbeat"}},
    {{"node.redial_min=3s"}, {"node.redial_min"}},
    {{"node.tls_key=k.pem"}, {"node.tls_certificate", "node.tls_ca"}},
    {{"node.listen=0.0.0.0:7000"}, {"node.listen"}},
    {{"node.listen=0.0.0.0:7000", "node.insecure_cluster=true"}, {}},
    {{"node.listen=0.0.0.0:7000", "node.tls_key=k", "node.tls_certificate=c", "node.tls_ca=a"}, {}},
    {{"http.listen=0.0.0.0:80"}, {"http.listen"}},
    {{"http.listen=0.0.0.0:80", "http.key=k"}, {}},
    {{"http.listen=0.0.0.0:80", "http.insecure=true"}, {}},
    {{"scheduler.http=127.0.0.1:0"}, {}},
    {{"scheduler.http="}, {}},
    {{"scheduler.http=0.0.0.0:8002"}, {"scheduler.http"}},
    {{"scheduler.http=0.0.0.0:8002", "scheduler.http_key=k"}, {}},
    {{"scheduler.http=0.0.0.0:8002", "scheduler.http_insecure=true"}, {}},
    {{"llumlet.grpc=127.0.0.1:0"}, {}},
    {{"llumlet.grpc=nowhere"}, {"llumlet.grpc"}},
    {{"llumlet.grpc=0.0.0.0:9000"}, {"llumlet.grpc"}},
    {{"llumlet.grpc=0.0.0.0:9000", "llumlet.grpc_key=k"}, {}},
    {{"llumlet.grpc=0.0.0.0:9000", "node.insecure_cluster=true"}, {}},
    {{"llumlet.grpc_key=a b"}, {"llumlet.grpc_key"}},
    {{"admin.listen=10.0.0.1:8090"}, {"admin.listen"}},
    {{"admin.listen=10.0.0.1:8090", "admin.key=k"}, {}},
    {{"admin.listen="}, {}},
    {{"admin.listen=127.0.0.1:8089"}, {"admin.listen"}},
    {{"http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"}, {}},
    {{"llumlet.status_min_interval=2s"}, {"llumlet.status_min_interval"}},
    {{"cms.expiry_s=20"}, {"cms.metadata_interval"}},
    {{"cms.status_interval=100s"}, {"cms.status_interval"}},
    {{"engine.corrupt=r1:12"}, {}},
    {{"engine.corrupt=a:b:12"}, {}},
    {{"engine.corrupt=r1"}, {"engine.corrupt"}},
    {{"engine.corrupt=:1"}, {"engine.corrupt"}},
    {{"engine.corrupt=r1:x"}, {"engine.corrupt"}},
    {{"engine.max_model_len=1000"}, {}},
    {{"engine.max_model_len=1000", "engine.blocks=62"}, {"engine.max_model_len"}},
    {{"engine.max_model_len=1000", "engine.blocks=63"}, {}},
    {{"gateway.engines=http://a:1,http://b:1/", "scheduler.full_mode=false"}, {}},
    {{"gateway.engines=http://a:1"}, {"gateway.engines"}},
    {{"gateway.engines=a:1", "scheduler.full_mode=false"}, {"gateway.engines"}},
    {{"gateway.engines=http://a:1,http://A:01/", "scheduler.full_mode=false"}, {"gateway.engines"}},
    {{"scheduler.full_mode=false"}, {}},
    {{"scheduler.ttft_profile=t", "scheduler.policy=load-balance"}, {}},
    {{"scheduler.policy=slo"}, {"scheduler.ttft_profile", "scheduler.tpot_profile"}},
    {{"scheduler.policy=slo", "scheduler.ttft_profile=t"}, {"scheduler.tpot_profile"}},
    {{"scheduler.policy=slo", "scheduler.ttft_profile=t", "scheduler.tpot_profile=p"}, {}},
    {{"scheduler.policy=slo", "scheduler.ttft_profile=t", "scheduler.tpot_profile=p",
      "scheduler.adaptive_pd=true"},
     {}},
    {{"scheduler.policy=slo", "scheduler.ttft_profile=t", "scheduler.tpot_profile=p",
      "scheduler.adaptive_pd=true", "scheduler.tpot_migrate_out_floor=0.96"},
     {"scheduler.tpot_migrate_out_floor"}},
    {{"scheduler.tpot_migrate_out_floor=0.96"}, {}}, // nobody asks
    {{"scheduler.adaptive_pd=true"}, {"scheduler.adaptive_pd"}},
    {{"scheduler.power_of_two=true", "scheduler.session_affinity=true"}, {}},
    {{"scheduler.power_of_two=true", "scheduler.dispatch_top_k=2"}, {"scheduler.power_of_two"}},
    {{"scheduler.hysteresis=0.1", "scheduler.session_affinity=true"}, {}},
    {{"scheduler.hysteresis=0.1", "scheduler.dispatch_top_k=2"}, {"scheduler.hysteresis"}},
    {{"scheduler.hysteresis=0.1", "scheduler.power_of_two=true"}, {"scheduler.hysteresis"}},
    {{"scheduler.cache_aware=true", "scheduler.predict_progress=true"}, {}},
    {{"scheduler.cache_aware=true", "scheduler.predict_progress=true", "scheduler.full_mode=false"},
     {"scheduler.predict_progress"}},
    {{"scheduler.cache_aware=true", "scheduler.full_mode=false", "gateway.engines=http://a:1"},
     {"scheduler.kv_events"}},
    {{"scheduler.cache_aware=true", "scheduler.full_mode=false", "gateway.engines=http://a:1",
      "scheduler.kv_events=tcp://{host}:5557"},
     {}},
    {{"scheduler.kv_events=tcp://{host}:5557"}, {"scheduler.kv_events", "scheduler.kv_events"}},
    {{"scheduler.kv_events=tcp://{host}:5557", "scheduler.policy=cache-aware"},
     {"scheduler.kv_events"}}, // nobody publishes
    {{"scheduler.kv_events=tcp://{host}:5557", "scheduler.full_mode=false",
      "gateway.engines=http://a:1"},
     {"scheduler.kv_events"}}, // nobody asks
    {{"scheduler.kv_events=tcp://{host}:5557", "scheduler.policy=cache-aware",
      "scheduler.full_mode=false", "discovery.files=f", "scheduler.kv_index=mooncake",
      "scheduler.mooncake=s:1"},
     {"scheduler.kv_events"}}, // another one is asked
    {{"scheduler.kv_events=tcp://{host}:5557", "scheduler.policy=cache-aware",
      "scheduler.full_mode=false", "discovery.files=f",
      "scheduler.kv_events_replay=tcp://{host}:5558"},
     {}},
    {{"scheduler.kv_events_replay=tcp://{host}:5558"}, {"scheduler.kv_events_replay"}},
    {{"scheduler.priority_aware=true"}, {"scheduler.priority_aware"}},
    {{"scheduler.lora_affinity=true"}, {"scheduler.lora_affinity"}},
    {{"scheduler.lora_affinity=true", "scheduler.policy=cache-aware", "scheduler.full_mode=false"},
     {}},
    {{"scheduler.lora_affinity=true", "scheduler.priority_aware=true", "scheduler.policy=flood",
      "scheduler.full_mode=false"},
     {"scheduler.lora_affinity", "scheduler.priority_aware"}},
    {{"scheduler.lora_affinity=true", "scheduler.policy=round-robin", "scheduler.full_mode=false"},
     {"scheduler.lora_affinity"}},
    {{"scheduler.lora_affinity=true", "scheduler.policy=slo", "scheduler.ttft_profile=t",
      "scheduler.tpot_profile=p"},
     {"scheduler.lora_affinity", "scheduler.lora_affinity"}}, // nor in full mode
    {{"scheduler.priority_aware=true", "scheduler.policy=cache-aware", "scheduler.full_mode=false"},
     {"scheduler.priority_aware"}},
    {{"scheduler.priority_aware=true", "scheduler.cache_aware=true", "scheduler.full_mode=false"},
     {"scheduler.priority_aware"}},
    {{"scheduler.priority_aware=true", "scheduler.full_mode=false", "scheduler.lora_affinity=true"},
     {}},
    {{"scheduler.kv_hash=md5"}, {"scheduler.kv_hash"}},
    {{"scheduler.kv_index=v6d"}, {"scheduler.kv_index"}},
    {{"scheduler.kv_index=mooncake"}, {}},
    {{"scheduler.kv_index=mooncake", "scheduler.policy=cache-aware"}, {"scheduler.mooncake"}},
    {{"scheduler.kv_index=mooncake", "scheduler.cache_aware=true", "scheduler.mooncake=s:1"}, {}},
    {{"scheduler.mooncake=s:0"}, {"scheduler.mooncake"}},
    {{"scheduler.kv_attempts=0"}, {"scheduler.kv_attempts"}},
    {{"gateway.scheduler=s:1"}, {"gateway.scheduler"}},
    {{"gateway.scheduler=s:1", "gateway.engines=http://a:1", "scheduler.full_mode=false"}, {}},
    {{"scheduler.kv_chunk_tokens=0"}, {"scheduler.kv_chunk_tokens"}},
    {{"scheduler.max_num_batched_tokens=0"}, {"scheduler.max_num_batched_tokens"}},
    {{"scheduler.predictor_warmup_samples=0"}, {}},
    {{"scheduler.ttft_slo_ms=-1"}, {"scheduler.ttft_slo_ms"}},
    {{"scheduler.prefill_cache_locality_metric="}, {"scheduler.prefill_cache_locality_metric"}},
    {{"http.max_bodies_bytes=1KiB"}, {}},
    {{"http.max_bodies_bytes=1000"}, {"http.max_bodies_bytes"}},
    {{"gateway.engine_silence=0ms"}, {}},
    {{"discovery.files=/etc/engines", "scheduler.full_mode=false"}, {}},
    {{"discovery.files=/etc/engines"}, {"discovery.files"}},
    {{"discovery.files=a,b,a", "scheduler.full_mode=false"}, {"discovery.files"}},
    {{"discovery.redis=redis:6379", "scheduler.full_mode=false"}, {}},
    {{"discovery.redis=redis:6379"}, {"discovery.redis"}},
    {{"discovery.redis=redis", "scheduler.full_mode=false"}, {"discovery.redis"}},
    {{"discovery.redis=redis:0", "scheduler.full_mode=false"}, {"discovery.redis"}},
    {{"discovery.redis=redis:1", "discovery.redis_interval=1m", "scheduler.full_mode=false"},
     {"discovery.redis_interval"}},
    {{"discovery.redis_interval=1m"}, {}}, // nobody reads
    {{"discovery.redis=redis:1", "discovery.networks=", "scheduler.full_mode=false"},
     {"discovery.networks"}},
    {{"discovery.networks="}, {}},
    {{"discovery.etcd=a:1,b:1", "scheduler.full_mode=false"}, {}},
    {{"discovery.etcd=a:1,b:1"}, {"discovery.etcd"}},
    {{"discovery.etcd=a:1,a:1", "scheduler.full_mode=false"}, {"discovery.etcd"}},
    {{"discovery.etcd=a", "scheduler.full_mode=false"}, {"discovery.etcd"}},
    {{"discovery.files=f", "discovery.redis=r:1", "gateway.engines=http://a:1"},
     {"gateway.engines", "discovery.files", "discovery.redis"}},
    {{"discovery.instance_type=all"}, {}},
    {{"discovery.instance_type=al"}, {"discovery.instance_type"}},
    {{"discovery.timeout=0ms"}, {"discovery.timeout"}},
    {{"discovery.record_expiry=0ms"}, {"discovery.record_expiry"}},
    {{"discovery.files_interval=1ms"}, {"discovery.files_interval"}},
    {{"gateway.engine_check_interval=0ms"}, {"gateway.engine_check_interval"}},
    {{"gateway.engine_check_interval=60s"}, {}},
    {{"gateway.engine_check_interval=60s", "gateway.engines=http://a:1",
      "scheduler.full_mode=false"},
     {"gateway.engine_check_interval"}},
    {{"gateway.engine_retries=0"}, {}},
    {{"gateway.engine_retries=1.1"}, {"gateway.engine_retries"}},
    {{"gateway.engine_retries=-0.1"}, {"gateway.engine_retries"}},
    {{"gateway.engine_retries_floor=0"}, {}},
    {{"gateway.engine_key=sk-1_a.B~"}, {}},
    {{"gateway.engine_key=a b"}, {"gateway.engine_key"}},
    {{"engine.speed=-1", "http.listen=x", "node.threads=0"},
     {"node.threads", "http.listen", "engine.speed"}},
  };
  for (auto& each : rows) {
    CAPTURE(each.settings.front());
    cluster_config config;
    for (auto setting : each.settings)
      REQUIRE(apply_setting(setting, config).empty());
    std::vector<std::string> paths;
    for (auto& problem : check(config))
      paths.push_back(problem.path);
    CHECK(paths == each.paths);
  }
}

TEST_CASE("a value out of range is named with its bound, in its own unit") {
  cluster_config config;
  config.engine.speed = -1;
  config.gateway.io_threads = 257;
  config.redis.timeout = milliseconds{0};
  config.llumlet.instance_type = "prefil";
  std::vector<std::string> messages;
  for (auto& problem : check(config))
    messages.push_back(problem.message);
  CHECK(
    messages
    == std::vector<std::string>{
      "257 is above 256", "prefil is none of neutral, prefill, decode; did you mean prefill?",
      "-1 is below 0", "0ms is below 1ms"});
}

TEST_CASE("what is wrong with the engines behind HTTP is said with the way out") {
  using row = std::pair<std::vector<std::string>, std::string>;
  for (auto& [engines, message] : {
         row{{"127.0.0.1:8000"}, "127.0.0.1:8000 is no URL; write http://HOST:PORT"},
         row{{"https://a:443"}, "https://a:443 is not http; write http://HOST:PORT"},
         row{{"http://"}, "http:// has no host; write http://HOST:PORT"},
         row{{"http://:80"}, "http://:80 has no host; write http://HOST:PORT"},
         row{{"http://a b:80"}, "http://a b:80 has no address; write http://HOST:PORT"},
         row{{"http://u@a:80"}, "http://u@a:80 has no address; write http://HOST:PORT"},
         row{{"http://a%20b:80"}, "http://a%20b:80 has no host; write http://HOST:PORT"},
         row{{"http://a"}, "http://a has no port; write http://HOST:PORT"},
         row{{"http://[::1]"}, "http://[::1] has no port; write http://HOST:PORT"},
         row{{"http://a:65536"}, "http://a:65536 has no address; write http://HOST:PORT"},
         row{{"http://a:0"}, "http://a:0 has port 0, which nobody can dial"},
         row{
           {"http://a:1/v1"},
           "http://a:1/v1 has a path; the gateway adds the paths itself; write http://HOST:PORT"},
         row{
           {"http://a:1?x"},
           "http://a:1?x has a path; the gateway adds the paths itself; write http://HOST:PORT"},
         row{
           {"http://a:1//"},
           "http://a:1// has a path; the gateway adds the paths itself; write http://HOST:PORT"},
         row{{"http://a:1", "http://b:1", "http://A:1/"}, "http://A:1/ is listed twice"},
         row{
           {"http://127.0.0.1:1", "http://localhost:2", "http://localhost:1"},
           "http://localhost:1 is the same place as 127.0.0.1:1"},
       }) {
    CAPTURE(engines.back());
    cluster_config config;
    config.gateway.engines = engines;
    config.scheduler.full_mode = false;
    auto problems = check(config);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].path == "gateway.engines");
    CHECK(problems[0].message == message);
  }
  cluster_config config;
  config.gateway.engines = {"http://a:1"};
  auto problems = check(config);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].message.ends_with("; set scheduler.full_mode=false"));
}

} // namespace llumnix
