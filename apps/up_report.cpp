#include "apps/up_report.hpp"

#include "apps/cli_common.hpp"
#include "apps/exit_codes.hpp"
#include "apps/text_table.hpp"
#include "config/notation.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cerrno>

namespace llumnix {

namespace {

using json = nlohmann::ordered_json;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (auto& word : words)
    text += (text.empty() ? "" : ", ") + word;
  return text;
}

json with_grpc(json event, const node_facts& node) {
  if (!node.grpc.empty())
    event["grpc"] = node.grpc;
  return event;
}

class json_report final : public up_report {
public:
  void starting(std::uint32_t, std::uint32_t, bool) override {}
  void node_started(const node_facts& node) override {
    emit(with_grpc(
      {{"event", "node_started"}, {"node", node.name}, {"pid", node.pid}, {"roles", node.roles}},
      node));
  }
  void ready(const cluster_facts& cluster) override {
    auto nodes = json::array();
    for (auto& node : cluster.nodes)
      nodes.push_back(with_grpc(
        {{"node", node.name},
         {"pid", node.pid},
         {"roles", node.roles},
         {"instances", node.instances},
         {"admin", "http://" + node.admin}},
         node));
    emit(
      {{"event", "ready"},
       {"http", "http://" + cluster.http},
       {"admin", "http://" + cluster.admin},
       {"redis", cluster.redis.empty() ? json(nullptr) : json(cluster.redis)},
       {"model", cluster.model.empty() ? json(nullptr) : json(cluster.model)},
       {"nodes", std::move(nodes)}});
  }
  void node_down(const std::string& node, pid_t pid, const std::string& reason) override {
    emit({{"event", "node_down"}, {"node", node}, {"pid", pid}, {"reason", reason}});
  }
  void node_restarted(const node_facts& node) override {
    emit(with_grpc(
      {{"event", "node_restarted"},
       {"node", node.name},
       {"pid", node.pid},
       {"incarnation", node.incarnation},
       {"admin", "http://" + node.admin}},
       node));
  }
  void stopping(std::chrono::milliseconds) override {}
  void stopped() override { emit({{"event", "stopped"}}); }

private:
  void emit(const json& event) { print(event.dump() + "\n"); }
};

class human_report final : public up_report {
public:
  void starting(std::uint32_t engines, std::uint32_t remote, bool finds_more) override {
    begun_ = std::chrono::steady_clock::now();
    auto counted = [](std::uint32_t count) {
      return fmt::format("{} engine{}", count, count == 1 ? "" : "s");
    };
    if (remote > 0)
      print(fmt::format(
        "Starting a head in front of {} behind HTTP{}\n", counted(remote),
        finds_more ? " and those that it finds" : ""));
    else if (finds_more)
      print("Starting a head in front of the engines behind HTTP that it finds\n");
    else
      print(fmt::format("Starting a head and {}\n", counted(engines)));
  }
  void node_started(const node_facts& node) override {
    auto grpc = node.grpc.empty() ? "" : "  gRPC " + node.grpc;
    print(fmt::format("  {:<10} pid {:<8} {}{}\n", node.name, node.pid, joined(node.roles), grpc));
  }
  void ready(const cluster_facts& cluster) override;
  void node_down(const std::string& node, pid_t pid, const std::string& reason) override {
    print(
      painted(fmt::format("{} (pid {}) is down: {}", node, pid, reason), tint::red, colours_)
      + "\n");
  }
  void node_restarted(const node_facts& node) override {
    auto line
      = fmt::format("{} is back: pid {}, incarnation {}", node.name, node.pid, node.incarnation);
    print(painted(line, tint::green, colours_) + "\n");
  }
  void stopping(std::chrono::milliseconds drain) override {
    stopping_ = true;
    print(fmt::format(
      "Stopping: running requests get up to {}; press Ctrl-C again to stop at once\n",
      format_duration(drain)));
  }
  void stopped() override {
    if (stopping_) // else it failed, and that was the last word
      print("Stopped\n");
  }

private:
  bool colours_ = colour_allowed(stdout);
  bool stopping_ = false;
  std::chrono::steady_clock::time_point begun_;
};

void human_report::ready(const cluster_facts& cluster) {
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
  auto self = std::string{program_invocation_name};
  auto at = cluster.admin == "127.0.0.1:8090" ? "" : " --admin " + cluster.admin;
  auto key = cluster.key_wanted ? " -H \"Authorization: Bearer $KEY\"" : "";
  auto model = cluster.model.empty() ? cluster.served_model : cluster.model;
  auto body = json{
    {"model", model.empty() ? "MODEL" : model},
    {"stream", true},
    {"messages", {{{"role", "user"}, {"content", "Tell me about actors"}}}}};
  pid_t victim = -1;
  for (auto& node : cluster.nodes)
    if (std::ranges::find(node.roles, "llumlet") != node.roles.end())
      victim = node.pid;
  std::string text;
  text
    += painted(fmt::format("Ready after {:.2f} s", took.count()), tint::green, colours_) + "\n\n";
  text += fmt::format(
    "  OpenAI API   http://{}   {}\n", cluster.http,
    model.empty() ? "models: see /v1/models" : "model " + model);
  text += fmt::format("  operators    http://{}\n", cluster.admin);
  if (cluster.answering_engines < cluster.remote_engines)
    text += painted(
      fmt::format(
        "  engines      {} of {} answer{} yet; the others are asked again and again\n",
        cluster.answering_engines, cluster.remote_engines, cluster.remote_engines == 1 ? "s" : ""),
      tint::yellow, colours_);
  if (!cluster.redis.empty())
    text += fmt::format(
      "  Redis        {}{}\n", cluster.redis,
      cluster.redis_linked ? "" : "   (not reachable yet; it is tried again until it is)");
  text += fmt::format(
    "\nA streamed chat completion:\n"
    "  curl -N http://{}/v1/chat/completions -H 'Content-Type: application/json'{} \\\n    -d "
    "'{}'\n",
    cluster.http, key, body.dump());
  text += "\nSee more, in another terminal:\n";
  text += fmt::format("  {} status{}\n", self, at);
  text += fmt::format("  {} requests{}\n", self, at);
  text += fmt::format("  {} why REQUEST{}\n", self, at);
  text += fmt::format("  {} load {}--help\n", self, victim > 0 ? "--verify " : "");
  if (victim > 0)
    text += fmt::format("  kill -9 {:<20}  an engine dies; its requests go on elsewhere\n", victim);
  text += "\nCtrl-C stops the cluster\n";
  print(text);
}

} // namespace

void up_report::print(const std::string& text) {
  all_written_ = all_written_ && write_out(text) == exit_code::done;
}

std::unique_ptr<up_report> make_json_report() {
  return std::make_unique<json_report>();
}

std::unique_ptr<up_report> make_human_report() {
  return std::make_unique<human_report>();
}

} // namespace llumnix
