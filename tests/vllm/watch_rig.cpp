#include "watch_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix::testing {

void manual_loop::run_posted() {
  while (!posted.empty()) {
    auto work = std::move(posted.front());
    posted.pop_front();
    work();
  }
}

scripted_engine make_vllm(const std::string& version, const std::string& model) {
  scripted_engine engine;
  engine.answers["/health"] = {};
  engine.answers["/version"] = {200, "{\"version\":\"" + version + "\"}"};
  engine.answers["/v1/models"] = {
    200, "{\"object\":\"list\",\"data\":[{\"id\":\"" + model
           + "\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\"root\":\"" + model
           + "\",\"parent\":null,\"max_model_len\":4096,\"permission\":[]}]}"};
  engine.answers["/metrics"] = {
    200, "# TYPE vllm:num_requests_running gauge\n"
         "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 3.0\n"
         "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 2.0\n"
         "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.25\n"
         "vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"100\"} 1.0\n"};
  for (const auto* path : {"/inference/v1/abort_requests", "/inference/v1/generate"})
    engine.answers[path] = {403, "{\"error\":{}}"};
  return engine;
}

struct scripted_pool::call final : net::upstream_call {
  call(scripted_pool& pool, net::upstream_watcher& watcher) : pool{pool}, watcher{watcher} {
    pool.open_.push_back(this);
  }
  ~call() override { std::erase(pool.open_, this); }
  void hold() override {}
  void resume() override {}

  scripted_pool& pool;
  net::upstream_watcher& watcher;
  std::string address;
  time_point due;
  std::optional<scripted_answer> answer; // nothing: silence for ever
  bool delivering = false;
};

std::unique_ptr<net::upstream_call>
scripted_pool::send(net::upstream_request request, net::upstream_watcher& watcher) {
  auto made = std::make_unique<call>(*this, watcher);
  made->address = request.address;
  const auto& engine = engines[request.address];
  if (engine.now == scripted_engine::mood::absent) {
    made->answer = scripted_answer{.status = 0, .body = {}, .end = errc::unreachable};
  } else if (engine.now == scripted_engine::mood::up) {
    auto found = engine.answers.find(request.target);
    made->answer = found == engine.answers.end() ? scripted_answer{404, "{}"} : found->second;
    if (made->answer->body.size() > request.max_body_bytes) {
      made->answer->body.resize(request.max_body_bytes);
      made->answer->end = errc::too_long;
    }
    if (made->answer->after > request.silence && request.silence.count() > 0) {
      made->answer->after = request.silence;
      made->answer->end = errc::timeout;
    }
  }
  made->due = loop_.time + (made->answer ? made->answer->after : 0ms);
  auto same = std::count_if(
    open_.begin(), open_.end(), [&](const call* each) { return each->address == made->address; });
  most_open = std::max(most_open, static_cast<std::size_t>(same));
  questions.push_back(
    {request.method, request.target, request.address, request.body, request.headers, loop_.time});
  return made;
}

void scripted_pool::deliver() {
  auto is_due = [&](const call* each) {
    return each->answer && !each->delivering && each->due <= loop_.time;
  };
  for (;;) {
    auto found = std::find_if(open_.begin(), open_.end(), is_due);
    if (found == open_.end())
      return;
    auto* due = *found;
    due->delivering = true;
    const auto& answer = *due->answer;
    if (answer.end != errc::unreachable && answer.end != errc::timeout) {
      net::http_reply head;
      head.status = answer.status;
      due->watcher.on_head(head);
      for (std::size_t at = 0; at < answer.body.size(); at += 1000)
        due->watcher.on_body(std::string_view{answer.body}.substr(at, 1000));
      due->watcher.on_pause();
    }
    due->watcher.on_end({answer.end, {}});
    // Nothing may end a call from within its own callbacks.
    REQUIRE(std::find(open_.begin(), open_.end(), due) != open_.end());
  }
}

watch_rig::watch_rig(engine_watch_options options, std::vector<std::string> ids) {
  watch = std::make_unique<engine_watch>(pool, loop, options, [this](const engine_report& report) {
    reports.push_back(report);
    told_at.push_back(loop.time);
  });
  for (const auto& id : ids) {
    engine(id) = make_vllm();
    watch->add(id, id);
  }
}

void watch_rig::pass(std::chrono::milliseconds time) {
  pass_until([] { return false; }, time);
}

bool watch_rig::pass_until(const std::function<bool()>& done, std::chrono::milliseconds limit) {
  for (auto end = loop.time + limit; loop.time < end;) {
    watch->tick();
    do {
      loop.run_posted();
      pool.deliver();
    } while (!loop.posted.empty());
    if (done())
      return true;
    loop.time += 100ms;
  }
  return false;
}

const engine_report& watch_rig::last(const std::string& id) const {
  auto found = std::find_if(
    reports.rbegin(), reports.rend(), [&](const engine_report& each) { return each.id == id; });
  REQUIRE(found != reports.rend());
  return *found;
}

std::string watch_rig::paths() {
  std::string all;
  for (; seen < pool.questions.size(); ++seen)
    all += (all.empty() ? "" : " ") + pool.questions[seen].target;
  return all;
}

std::size_t watch_rig::count(const std::string& target) const {
  return static_cast<std::size_t>(std::count_if(
    pool.questions.begin(), pool.questions.end(),
    [&](const asked& each) { return each.target == target; }));
}

} // namespace llumnix::testing
