#include "config/knobs.hpp"
#include "config/load_config.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace llumnix {

namespace {

/// Converts to the type of any member: counts members by how many of these still initialize the
/// struct.
struct anything {
  template <class T>
  operator T() const;
};

template <class T, class... Members>
constexpr std::size_t member_count() {
  if constexpr (requires { T{Members{}..., anything{}}; })
    return member_count<T, Members..., anything>();
  else
    return sizeof...(Members);
}

} // namespace

TEST_CASE("every member of the configuration is a knob, and no two knobs are one member") {
  constexpr auto members = member_count<node_config>() + member_count<http_config>()
                           + member_count<admin_config>() + member_count<gateway_config>()
                           + member_count<scheduler_config>() + member_count<llumlet_config>()
                           + member_count<migration_config>() + member_count<rescheduler_config>()
                           + member_count<transport_config>() + member_count<engine_config>()
                           + member_count<cms_config>() + member_count<redis_config>()
                           + member_count<discovery_config>();
  static_assert(member_count<redis_config>() == 4 && member_count<cluster_config>() == 13);
  CHECK(knobs().size() == members);
  cluster_config config;
  std::set<const void*> places;
  std::set<std::string_view> paths;
  for (auto& each : knobs()) {
    CAPTURE(each.path);
    std::visit([&](auto* member) { CHECK(places.insert(member).second); }, each.field(config));
    CHECK(paths.insert(each.path).second);
    CHECK_FALSE(each.doc.empty());
    CHECK(find_knob(each.path) == &each);
  }
}

TEST_CASE("the configuration as JSON loads back to itself") {
  cluster_config config;
  config.node.roles = {"gateway", "cms"};
  config.engine.speed = 0.1;
  config.http.max_body_bytes = 1000;
  config.redis.timeout = milliseconds{1500};
  config.node.insecure_cluster = true;
  cluster_config loaded;
  CHECK(load_json(to_json(config), loaded).empty());
  CHECK(to_json(loaded) == to_json(config));
  CHECK(loaded.engine.speed == 0.1);
  CHECK(loaded.http.max_body_bytes == 1000);
  CHECK(loaded.redis.timeout == milliseconds{1500});
}

TEST_CASE("the configuration with its secrets loads back to itself, whatever its text is made of") {
  cluster_config config;
  config.http.key = "\"quoted\" \\ \n // no comment";
  config.admin.key = "***?";
  config.redis.password = "p\u00e4ss=word,\u2603";
  config.gateway.engines = {"http://a:1", "http://b:1"};
  config.node.incarnation = 18446744073709551615ull;
  config.engine.speed = 1.0 / 3;
  cluster_config loaded;
  CHECK(load_json(to_json_with_secrets(config), loaded).empty());
  CHECK(to_json_with_secrets(loaded) == to_json_with_secrets(config));
  CHECK(loaded.http.key == config.http.key);
  CHECK(loaded.admin.key == config.admin.key);
  CHECK(loaded.redis.password == config.redis.password);
  CHECK(loaded.gateway.engines == config.gateway.engines);
  CHECK(loaded.node.incarnation == config.node.incarnation);
  CHECK(loaded.engine.speed == config.engine.speed);
}

TEST_CASE("a secret is never shown, only that it is set") {
  cluster_config config;
  config.http.key = "hunter2";
  config.admin.key = "hunter2";
  config.redis.password = "hunter2";
  for (auto& text : {to_json(config), describe(config), config_schema()})
    CHECK(text.find("hunter2") == text.npos);
  auto document = nlohmann::json::parse(to_json(config));
  CHECK(document["http"]["key"] == "***");
  CHECK(document["redis"]["password"] == "***");
  CHECK(nlohmann::json::parse(to_json({}))["http"]["key"] == "");
}

TEST_CASE("the schema covers every knob with its type, bounds, default and meaning") {
  auto schema = nlohmann::json::parse(config_schema());
  CHECK(schema["type"] == "object");
  CHECK(schema["additionalProperties"] == false);
  for (auto& each : knobs()) {
    CAPTURE(each.path);
    auto dot = each.path.find('.');
    auto& section = schema["properties"][std::string{each.path.substr(0, dot)}];
    CHECK(section["additionalProperties"] == false);
    auto& property = section["properties"][std::string{each.path.substr(dot + 1)}];
    CHECK(property.contains("type"));
    CHECK(property.contains("default"));
    CHECK(property["description"] == each.doc);
  }
  auto of = [&](const char* section, const char* leaf) {
    return schema["properties"][section]["properties"][leaf];
  };
  CHECK(of("engine", "speed")["type"] == "number");
  CHECK(of("engine", "speed")["minimum"] == 0);
  CHECK(of("gateway", "io_threads")["maximum"] == 256);
  CHECK(of("node", "heartbeat")["default"] == "100ms");
  CHECK(of("llumlet", "instance_type")["enum"] == nlohmann::json{"neutral", "prefill", "decode"});
  CHECK(of("node", "roles")["items"]["enum"][0] == "gateway");
  CHECK(of("admin", "key")["writeOnly"] == true);
  CHECK(of("http", "max_body_bytes")["default"] == "64MiB");
}

TEST_CASE("the description has one aligned line per knob with its value and default") {
  cluster_config config;
  config.engine.speed = 4;
  auto text = describe(config);
  CHECK(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) == knobs().size() + 1);
  auto start = text.find("engine.speed");
  auto line = text.substr(start, text.find('\n', start) - start);
  auto title = text.substr(0, text.find('\n'));
  CHECK(line.substr(title.find("VALUE"), 2) == "4 ");
  CHECK(line.substr(title.find("DEFAULT"), 2) == "1 ");
  CHECK(line.substr(title.find("MEANING")) == find_knob("engine.speed")->doc);
}

} // namespace llumnix
