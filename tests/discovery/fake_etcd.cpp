#include "fake_etcd.hpp"

#include "integrations/discovery/base64.hpp"
#include "integrations/discovery/etcd_messages.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace llumnix::testing {
namespace {

using nlohmann::json;

std::string key_of(const std::string& pod) {
  return std::string{etcd_record_prefix} + pod;
}

json header(std::int64_t revision) {
  return {{"cluster_id", "4586"}, {"revision", std::to_string(revision)}, {"raft_term", "2"}};
}

fake_etcd::answer refuse(int status, int code, const std::string& words) {
  return {status, json{{"error", words}, {"message", words}, {"code", code}}.dump()};
}

std::int64_t number(const json& request, const char* name) {
  return std::stoll(request.value(name, std::string{"0"}));
}

} // namespace

void fake_etcd::put(const std::string& pod, const std::string& bytes) {
  const auto text = to_base64(bytes);
  entries_[key_of(pod)] = {text, ++revision_};
  history_.push_back({revision_, key_of(pod), text});
}

void fake_etcd::remove(const std::string& pod) {
  entries_.erase(key_of(pod));
  history_.push_back({++revision_, key_of(pod), std::nullopt});
}

void fake_etcd::reset() {
  entries_.clear();
  history_.clear();
  revision_ = 1;
  compacted_ = 0;
}

fake_etcd::answer
fake_etcd::ask(std::string_view path, const std::string& body, std::string_view sent) {
  auto request = json::parse(body);
  if (path == etcd::authenticate_path) {
    if (user.empty())
      return refuse(412, 9, "etcdserver: authentication is not enabled");
    if (request["name"] != user || request["password"] != password)
      return refuse(400, 3, "etcdserver: authentication failed, invalid user ID or password");
    return {200, json{{"header", header(revision_)}, {"token", token}}.dump()};
  }
  if (!user.empty() && sent != token)
    return refuse(401, 16, "etcdserver: invalid auth token");
  if (path == etcd::range_path)
    return range(body);
  return refuse(404, 5, "Not Found");
}

fake_etcd::answer fake_etcd::range(const std::string& body) const {
  auto request = json::parse(body);
  auto from = *from_base64(request["key"].get<std::string>());
  auto end = *from_base64(request["range_end"].get<std::string>());
  auto limit = static_cast<std::size_t>(number(request, "limit"));
  auto at = number(request, "revision");
  if (at > 0 && at < compacted_)
    return refuse(400, 11, "etcdserver: mvcc: required revision has been compacted");
  std::vector<std::pair<std::string, const entry*>> found;
  for (const auto& [key, held] : entries_)
    if (key >= from && key < end)
      found.emplace_back(key, &held);
  if (request.value("sort_target", "") == "MOD")
    std::sort(found.begin(), found.end(), [](const auto& left, const auto& right) {
      return left.second->revision > right.second->revision;
    });
  json reply{{"header", header(revision_)}};
  if (!found.empty())
    reply["count"] = std::to_string(found.size());
  if (found.size() > limit) {
    reply["more"] = true;
    found.resize(limit);
  }
  for (const auto& [key, held] : found) {
    json kv{{"key", to_base64(key)}, {"mod_revision", std::to_string(held->revision)}};
    if (!request.value("keys_only", false))
      kv["value"] = held->bytes;
    reply["kvs"].push_back(std::move(kv));
  }
  return {200, reply.dump()};
}

std::int64_t fake_etcd::start_of(const std::string& body) {
  return number(json::parse(body)["create_request"], "start_revision");
}

std::vector<std::string> fake_etcd::watch(std::int64_t from, std::size_t told) const {
  std::vector<std::string> lines;
  std::size_t number = 0;
  auto say = [&](auto make) { // what is told already is not made again
    if (number++ >= told)
      lines.push_back(json{{"result", make()}}.dump());
  };
  say([&]() -> json { return {{"header", header(revision_)}, {"created", true}}; });
  if (from <= compacted_) {
    say([&]() -> json {
      return {
        {"header", {{"raft_term", "2"}}},
        {"canceled", true},
        {"compact_revision", std::to_string(compacted_)}};
    });
    return lines;
  }
  for (const auto& [revision, key, bytes] : history_)
    if (revision >= from)
      say([&, revision = revision, &key = key, &bytes = bytes]() -> json {
        json event{{"kv", {{"key", to_base64(key)}, {"mod_revision", std::to_string(revision)}}}};
        if (bytes)
          event["kv"]["value"] = *bytes;
        else
          event["type"] = "DELETE";
        return {{"header", header(revision)}, {"events", {event}}};
      });
  return lines;
}

// --- the pool

struct etcd_pool::call final : net::upstream_call {
  call(etcd_pool& pool, net::upstream_request request, net::upstream_watcher& watcher)
    : pool{pool}, request{std::move(request)}, watcher{watcher} {
    if (is_watch())
      from = fake_etcd::start_of(this->request.body);
    pool.open_.push_back(this);
  }
  ~call() override { std::erase(pool.open_, this); }
  void hold() override {}
  void resume() override {}

  bool is_watch() const { return request.target == etcd::watch_path; }
  void head(int status) {
    net::http_reply reply;
    reply.status = status;
    watcher.on_head(reply);
  }
  void body(std::string_view all) { // in pieces, of which not each is told at once
    for (std::size_t at = 0; at < all.size(); at += 60000)
      watcher.on_body(all.substr(at, 60000));
    watcher.on_pause();
  }
  void end(errc code) {
    ended = true;
    watcher.on_end({code, {}});
  }

  etcd_pool& pool;
  net::upstream_request request;
  net::upstream_watcher& watcher;
  bool headed = false;
  std::int64_t from = 0; // of a watch
  std::size_t told = 0;  // lines
  bool ended = false;
};

std::unique_ptr<net::upstream_call>
etcd_pool::send(net::upstream_request request, net::upstream_watcher& watcher) {
  std::string token;
  for (const auto& [name, value] : request.headers)
    if (name == "authorization")
      token = value;
  CHECK(request.method == "POST");
  questions.push_back({request.address, request.target, token});
  return std::make_unique<call>(*this, std::move(request), watcher);
}

bool etcd_pool::deliver() {
  bool any = false;
  for (auto* each : std::vector<call*>{open_})
    if (std::find(open_.begin(), open_.end(), each) != open_.end() && !each->ended)
      any = deliver(*each) || any;
  return any;
}

/// Whether there was anything.
bool etcd_pool::deliver(call& to) {
  const auto& at = members[to.request.address];
  if (at.now == mood::absent) {
    to.end(to.headed ? errc::disconnected : errc::unreachable);
    return true;
  }
  if (at.now == mood::silent || (to.is_watch() && hold_watches_back))
    return false;
  std::string token;
  for (const auto& [name, value] : to.request.headers)
    if (name == "authorization")
      token = value;
  auto given = instead.find(to.request.target);
  const bool refused = to.is_watch() && !at.store->user.empty() && token != at.store->token;
  if (given != instead.end() || refused || !to.is_watch()) {
    auto answer = given != instead.end() ? given->second
                  : refused              ? fake_etcd::answer{401, "{}"}
                                         : at.store->ask(to.request.target, to.request.body, token);
    to.head(answer.status);
    const bool long_one = answer.body.size() > to.request.max_body_bytes;
    to.body(std::string_view{answer.body}.substr(0, to.request.max_body_bytes));
    to.end(long_one ? errc::too_long : errc::ok);
    return true;
  }
  if (!std::exchange(to.headed, true))
    to.head(200);
  auto pieces = at.store->watch(to.from, to.told);
  to.told += pieces.size();
  for (auto& line : pieces)
    line += '\n';
  for (auto& piece : std::exchange(extra[to.request.target], {}))
    pieces.push_back(std::move(piece));
  for (const auto& piece : pieces)
    to.body(piece);
  return !pieces.empty();
}

void etcd_pool::cut_watches() {
  for (auto* each : std::vector<call*>{open_})
    if (each->is_watch() && !each->ended)
      each->end(errc::ok);
}

std::size_t etcd_pool::watches() const {
  return static_cast<std::size_t>(std::count_if(
    open_.begin(), open_.end(), [](const call* each) { return each->is_watch() && !each->ended; }));
}

std::size_t etcd_pool::count(std::string_view path) const {
  return static_cast<std::size_t>(std::count_if(
    questions.begin(), questions.end(), [&](const question& each) { return each.path == path; }));
}

} // namespace llumnix::testing
