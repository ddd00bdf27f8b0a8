#include "runtime/base/log.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <memory>

namespace llumnix::log {

namespace {

std::atomic<level> threshold{level::info};
bool as_json = false;
std::string node_name;

spdlog::logger& sink() {
  static auto instance = [] {
    auto made = std::make_shared<spdlog::logger>(
      "llumnix", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::trace);
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(level at) {
  switch (at) {
    case level::debug: return spdlog::level::debug;
    case level::info: return spdlog::level::info;
    case level::warn: return spdlog::level::warn;
    case level::error: return spdlog::level::err;
    case level::off: break;
  }
  return spdlog::level::off;
}

} // namespace

void configure(const options& how) {
  threshold = how.threshold;
  as_json = how.json;
  node_name = how.node;
  if (as_json)
    sink().set_pattern("%v");
}

bool enabled(level at) {
  return at >= threshold.load(std::memory_order_relaxed);
}

void write(level at, std::string_view area, std::string_view event, std::string_view sentence) {
  if (!as_json) {
    sink().log(
      to_spdlog(at), "{}{}{} {}: {}", node_name, node_name.empty() ? "" : " ", area, event,
      sentence);
    return;
  }
  using namespace std::chrono;
  auto now = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  static constexpr const char* names[] = {"debug", "info", "warn", "error", "off"};
  nlohmann::json line{{"at_ms", now},      {"level", names[static_cast<int>(at)]},
                      {"node", node_name}, {"area", area},
                      {"event", event},    {"message", sentence}};
  sink().log(to_spdlog(at), line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

} // namespace llumnix::log
