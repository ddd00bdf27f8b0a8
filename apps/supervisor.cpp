#include "apps/supervisor.hpp"

#include "apps/admin_client.hpp"
#include "apps/cli_common.hpp"
#include "apps/exit_codes.hpp"
#include "apps/redis_child.hpp"
#include "config/notation.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <poll.h>
#include <sys/wait.h>
#include <utility>

namespace llumnix {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

constexpr auto start_patience = 20s;  // until a node announces itself
constexpr auto ready_patience = 30s;  // until all engines are ready
constexpr auto redis_patience = 5s;   // until Redis answers
constexpr auto link_patience = 500ms; // until the head has a link to it, and engines answer it
constexpr auto engine_patience = 2s;  // for an engine whose gateway has gone
constexpr auto head_patience = 3s;    // beyond the drain
constexpr auto look_again = 15ms;     // between two looks at a starting cluster
constexpr int redis_attempts = 3;     // a free port may be taken in between

time_point now() {
  return std::chrono::steady_clock::now();
}

} // namespace

supervisor::supervisor(up_plan plan, up_report& report) : plan_{std::move(plan)}, report_{report} {
  auto add = [this](kind what, std::string name, std::string type = {}) {
    children_.push_back(
      {.what = what,
       .name = std::move(name),
       .instance_type = std::move(type),
       .budget = restart_budget{plan_.limits}});
  };
  if (plan_.spawn_redis)
    add(kind::redis, "redis");
  add(kind::head, "head");
  auto add_engines = [&](std::uint32_t count, const std::string& name, const std::string& type) {
    for (std::uint32_t i = 0; i < count; ++i)
      add(kind::engine, name + std::to_string(i), type);
  };
  add_engines(plan_.engines, "engine-", "");
  add_engines(plan_.prefill, "prefill-", "prefill");
  add_engines(plan_.decode, "decode-", "decode");
}

int supervisor::run() {
  report_.starting(plan_.own_engines(), plan_.remote_engines, plan_.finds_engines);
  auto end = start();
  if (end == wait_end::too_late)
    fail(exit_code::failed, "the cluster is not ready after a long wait: " + last_look_);
  if (end == wait_end::reached) {
    phase_ = phase::running;
    report_.ready(cluster());
    auto deadline = plan_.run_for ? now() + *plan_.run_for : time_point::max();
    until([] { return false; }, deadline, 1h);
  }
  return stop();
}

supervisor::wait_end supervisor::start() {
  for (auto part : {&supervisor::start_redis, &supervisor::start_head, &supervisor::start_engines})
    if (auto end = (this->*part)(); end != wait_end::reached)
      return end;
  return wait_end::reached;
}

supervisor::wait_end supervisor::start_redis() {
  if (!plan_.spawn_redis)
    return wait_end::reached;
  auto& redis = children_.front();
  for (int attempt = 0; attempt < redis_attempts; ++attempt) {
    auto port = free_loopback_port();
    plan_.redis = "127.0.0.1:" + std::to_string(port);
    launch(redis);
    last_look_ = "redis-server does not answer";
    auto end = until(
      [&] { return !redis.process.running() || redis_answers(port); }, now() + redis_patience,
      look_again);
    redis.up = redis.process.running() && end == wait_end::reached;
    if (redis.up || end != wait_end::reached)
      return end;
  }
  fail(
    exit_code::failed,
    "redis-server ends as soon as it is started; try `redis-server --port 0` by hand");
  return wait_end::failed;
}

supervisor::wait_end supervisor::start_head() {
  launch(head());
  last_look_ = "head has not announced itself";
  return until([this] { return head().up; }, now() + start_patience, 1s);
}

supervisor::wait_end supervisor::start_engines() {
  for (auto& each : children_)
    if (each.what == kind::engine)
      launch(each);
  auto end = until([this] { return instances_ready(); }, now() + ready_patience, look_again);
  if (end != wait_end::reached)
    return end;
  // The cluster serves without them, so this is only for a true report.
  auto known = [this] {
    return (plan_.redis.empty() || redis_linked())
           && (plan_.remote_engines == 0
               || (answering_engines() == plan_.remote_engines && !served_model().empty()));
  };
  end = until(known, now() + link_patience, look_again);
  return end == wait_end::too_late ? wait_end::reached : end;
}

bool supervisor::instances_ready() {
  for (auto& each : children_)
    if (each.what != kind::redis && !each.up) {
      last_look_ = each.name + " has not announced itself";
      return false;
    }
  auto document
    = admin_get({dialable(head().ready.admin), plan_.admin_key}, "/admin/v1/cluster", 500ms);
  if (!document) {
    last_look_ = to_string(document.error());
    return false;
  }
  bool remote = plan_.remote_engines > 0; // somebody else starts them, perhaps later
  auto is_ready = [&](const std::string& id) {
    auto instances = document->value("instances", admin_document::array());
    return std::ranges::any_of(instances, [&](const admin_document& each) {
      return each.value("id", "") == id && (remote || each.value("state", "") == "ready");
    });
  };
  for (auto& each : children_)
    for (auto& id : each.ready.instances)
      if (!is_ready(id)) {
        last_look_ = "instance " + id + " is not ready";
        return false;
      }
  return true;
}

bool supervisor::redis_linked() {
  auto metrics = admin_text({dialable(head().ready.admin), plan_.admin_key}, "/metrics", 500ms);
  return metrics && metrics->find("\nllumnix_redis_connected 1\n") != std::string::npos;
}

/// Of those behind HTTP that were named at the start.
std::size_t supervisor::answering_engines() {
  auto document
    = admin_get({dialable(head().ready.admin), plan_.admin_key}, "/admin/v1/cluster", 500ms);
  if (!document || !document->is_object())
    return 0;
  auto instances = document->value("instances", admin_document::array());
  const auto& named = head().ready.instances;
  return static_cast<std::size_t>(std::ranges::count_if(instances, [&](const auto& each) {
    return each.value("state", "") == "ready" && each.value("schedulable", false)
           && std::ranges::find(named, each.value("id", "")) != named.end();
  }));
}

/// The first of the models that engines behind HTTP serve; empty while none has told any.
std::string supervisor::served_model() {
  auto list = admin_get({dialable(head().ready.http), plan_.http_key}, "/v1/models", 500ms);
  if (!list || !list->is_object())
    return {};
  auto data = list->value("data", admin_document::array());
  return data.empty() || !data.front().is_object() ? std::string{} : data.front().value("id", "");
}

int supervisor::stop() {
  phase_ = phase::stopping;
  for (auto& each : children_)
    each.restart_at.reset();
  if (!failure_)
    report_.stopping(plan_.drain);
  // The head goes first: it takes no new requests, and its running ones need the engines until they
  // end.
  bool orderly = stop_group(kind::head, plan_.drain + head_patience)
                 && stop_group(kind::engine, engine_patience)
                 && stop_group(kind::redis, engine_patience);
  if (!orderly) {
    kill_all();
    return exit_code::interrupted;
  }
  report_.stopped();
  return failure_.value_or(report_.all_written() ? exit_code::done : exit_code::failed);
}

/// False when a second signal came in between.
bool supervisor::stop_group(kind what, milliseconds patience) {
  for (auto& each : children_)
    if (each.what == what)
      each.process.signal(SIGTERM);
  auto deadline = now() + patience;
  while (running(what) && now() < deadline && stops_asked_ < 2)
    step(std::chrono::ceil<milliseconds>(deadline - now()));
  if (stops_asked_ >= 2)
    return false;
  for (auto& each : children_)
    if (each.what == what)
      each.process.signal(SIGKILL);
  while (running(what))
    step(100ms);
  return true;
}

void supervisor::kill_all() {
  for (auto& each : children_)
    each.process.signal(SIGKILL);
  for (auto what : {kind::head, kind::engine, kind::redis})
    while (running(what))
      step(100ms);
}

void supervisor::launch(child& which) {
  ++which.incarnation;
  which.up = false;
  which.restart_at.reset();
  which.start_deadline = now() + start_patience;
  auto started = child_process::start(command_of(which));
  if (!started)
    return fail(exit_code::failed, which.name + ": " + to_string(started.error()));
  which.process = std::move(*started);
}

child_command supervisor::command_of(const child& which) const {
  if (which.what == kind::redis) {
    std::string host;
    std::uint16_t port = 0;
    split_address(plan_.redis, host, port);
    return redis_command(find_program("redis-server"), port);
  }
  // A head that comes back is found where it was.
  auto again = [&](const std::string& earlier, const std::string& first) {
    return earlier.empty() ? first : earlier;
  };
  auto& head = *std::ranges::find(children_, kind::head, &child::what);
  auto& arguments = plan_.node_arguments;
  child_command command{
    .program = "/proc/self/exe",
    .arguments = {"llumnix", "serve", "--name", which.name},
    .announces = true,
    .inherited_fd = plan_.settings.fd()};
  auto add = [&](std::vector<std::string> more) {
    std::ranges::move(more, std::back_inserter(command.arguments));
  };
  add(arguments);
  if (!plan_.redis.empty())
    add({"--set", "redis.address=" + plan_.redis});
  if (which.what == kind::head)
    add(
      {"--roles",
       plan_.own_engines() == 0 ? "gateway,cms,console"
       : plan_.reschedules      ? "gateway,scheduler,rescheduler,cms,console"
                                : "gateway,scheduler,cms,console",
       "--listen", again(which.ready.listen, "127.0.0.1:0"), "--http",
       again(which.ready.http, plan_.http), "--admin", again(which.ready.admin, plan_.admin),
       "--drain", format_duration(plan_.drain)});
  else
    add(
      {"--roles", "llumlet", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--seeds",
       dialable(head.ready.listen), "--drain", format_duration(plan_.drain)});
  if (!which.instance_type.empty())
    add({"--set", "llumlet.instance_type=" + which.instance_type});
  add({"--incarnation", std::to_string(which.incarnation)});
  return command;
}

void supervisor::on_announcement(child& which, const std::string& line) {
  auto said = nlohmann::json::parse(line, nullptr, false);
  if (!said.is_object())
    return fail(exit_code::failed, which.name + " announced itself with something that is no JSON");
  which.ready = {
    .listen = said.value("listen", ""),
    .http = said.value("http", ""),
    .admin = said.value("admin", ""),
    .scheduler = said.value("scheduler", ""),
    .grpc = said.value("grpc", ""),
    .roles = said.value("roles", std::vector<std::string>{}),
    .instances = said.value("instances", std::vector<std::string>{})};
  which.up = true;
  if (which.incarnation == 1)
    report_.node_started(facts_of(which));
  else
    report_.node_restarted(facts_of(which));
}

void supervisor::on_exit(child& which, pid_t pid, int wait_status) {
  bool was_up = std::exchange(which.up, false);
  if (
    phase_ == phase::stopping
    || (which.what == kind::redis && phase_ == phase::starting && !was_up))
    return;
  auto reason = describe_exit(wait_status);
  bool misconfigured = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == exit_code::usage;
  if (phase_ == phase::starting && !was_up && misconfigured) {
    failure_ = exit_code::usage; // the node itself has said what is wrong, and the way out
    return;
  }
  if (phase_ == phase::starting && !was_up && which.what == kind::head)
    return fail(exit_code::failed, which.name + " ended before it was ready: " + reason);
  report_.node_down(which.name, pid, reason);
  auto pause = which.budget.spend(now());
  if (!pause && which.what == kind::engine && phase_ != phase::starting) {
    // One engine that keeps ending is no reason to take the others away from their clients.
    pause = plan_.limits.window / 2;
    std::fprintf(
      stderr, "llumnix up: %s ended more than %u times within %s; the next try is in %s\n",
      which.name.c_str(), plan_.limits.restarts, format_duration(plan_.limits.window).c_str(),
      format_duration(*pause).c_str());
  }
  if (!pause)
    return fail(
      exit_code::failed, which.name + " was restarted " + std::to_string(plan_.limits.restarts)
                           + " times within " + format_duration(plan_.limits.window)
                           + " and ended again; giving up");
  which.restart_at = now() + *pause;
}

void supervisor::fail(int code, const std::string& sentence) {
  if (failure_)
    return;
  failure_ = code;
  std::fprintf(stderr, "llumnix up: %s\n", sentence.c_str());
}

void supervisor::step(milliseconds longest) {
  std::vector<pollfd> watched{{signals_.fd(), POLLIN, 0}};
  auto wake = now() + std::clamp<milliseconds>(longest, 0ms, 1h);
  for (auto& each : children_) {
    if (each.process.announcement_fd() >= 0)
      watched.push_back({each.process.announcement_fd(), POLLIN, 0});
    if (each.restart_at)
      wake = std::min(wake, *each.restart_at);
    if (each.process.running() && !each.up)
      wake = std::min(wake, each.start_deadline);
  }
  auto wait = std::max<milliseconds>(std::chrono::ceil<milliseconds>(wake - now()), 0ms);
  ::poll(watched.data(), watched.size(), static_cast<int>(wait.count()));
  stops_asked_ += signals_.take();
  for (auto& each : children_) {
    if (auto line = each.process.read_announcement())
      on_announcement(each, *line);
    auto pid = each.process.pid();
    if (auto status = each.process.reap())
      on_exit(each, pid, *status);
    if (each.restart_at && now() >= *each.restart_at)
      launch(each);
    if (
      each.what != kind::redis && each.process.running() && !each.up
      && now() >= each.start_deadline)
      each.process.signal(SIGKILL);
  }
}

supervisor::wait_end
supervisor::until(const std::function<bool()>& reached, time_point deadline, milliseconds pause) {
  while (true) {
    if (failure_)
      return wait_end::failed;
    if (stops_asked_ > 0)
      return wait_end::stop_asked;
    if (reached())
      return wait_end::reached;
    if (now() >= deadline)
      return wait_end::too_late;
    step(
      deadline == time_point::max()
        ? pause
        : std::min(pause, std::chrono::ceil<milliseconds>(deadline - now())));
  }
}

supervisor::child& supervisor::head() {
  return *std::ranges::find(children_, kind::head, &child::what);
}

bool supervisor::running(kind what) const {
  return std::ranges::any_of(
    children_, [what](const child& each) { return each.what == what && each.process.running(); });
}

node_facts supervisor::facts_of(const child& which) const {
  return {
    .name = which.name,
    .pid = which.process.pid(),
    .incarnation = which.incarnation,
    .roles = which.ready.roles,
    .instances = which.ready.instances,
    .admin = dialable(which.ready.admin),
    .grpc = which.ready.grpc};
}

cluster_facts supervisor::cluster() {
  bool linked = plan_.redis.empty() || redis_linked();
  cluster_facts facts{
    .http = dialable(head().ready.http),
    .admin = dialable(head().ready.admin),
    .redis = plan_.redis,
    .model = plan_.model,
    .key_wanted = !plan_.http_key.empty(),
    .redis_linked = linked,
    .remote_engines = plan_.remote_engines,
    .answering_engines = 0,
    .served_model = {},
    .nodes = {}};
  if (facts.model.empty()) {
    facts.answering_engines = answering_engines();
    facts.served_model = served_model();
  }
  for (auto& each : children_)
    if (each.what != kind::redis)
      facts.nodes.push_back(facts_of(each));
  return facts;
}

} // namespace llumnix
