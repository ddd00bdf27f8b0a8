#include "apps/admin_routes.hpp"

#include "apps/admin_orders.hpp"
#include "net/metrics_page.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llumnix {

namespace {

using nlohmann::json;

net::http_reply answer(int status, std::string body, std::string_view type = "application/json") {
  return {
    status, {{"content-type", std::string{type}}, {"cache-control", "no-store"}}, std::move(body)};
}

net::http_reply refusal(int status, std::string_view code, std::string_view message) {
  json body{{"error", {{"code", code}, {"message", message}}}};
  return answer(status, body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
}

net::http_reply metrics_reply(const net::http_request& request, std::string text) {
  auto page = net::make_metrics_page(request.header("accept"), std::move(text));
  return answer(200, std::move(page.body), page.content_type);
}

constexpr std::string_view requests_path = "/admin/v1/requests/";
constexpr std::string_view why_suffix = "/why";
constexpr std::string_view scene_suffix = "/scene";
constexpr std::string_view migrate_path = "/admin/v1/migrate";
constexpr std::string_view instances_path = "/admin/v1/instances/";
constexpr std::string_view drain_suffix = "/drain";
constexpr std::string_view undrain_suffix = "/undrain";
constexpr std::size_t readers_max = 64;
/// Longer than CONSOLE waits for moves, and for what it looks up before.
constexpr std::chrono::seconds migrate_patience{130};
constexpr std::chrono::seconds answer_patience{10};

/// The request id in /admin/v1/requests/{id}SUFFIX, without the prefix an OpenAI body carries;
/// empty if it is none.
std::string request_in(std::string_view path, std::string_view suffix) {
  if (
    !path.starts_with(requests_path) || !path.ends_with(suffix)
    || path.size() <= requests_path.size() + suffix.size())
    return {};
  auto id = path.substr(requests_path.size(), path.size() - requests_path.size() - suffix.size());
  for (std::string_view prefix : {"chatcmpl-", "cmpl-"})
    if (id.starts_with(prefix))
      return std::string{id.substr(prefix.size())};
  return std::string{id};
}

/// The instance id in /admin/v1/instances/{id}SUFFIX; empty if it is none.
std::string instance_in(std::string_view path, std::string_view suffix) {
  if (
    !path.starts_with(instances_path) || !path.ends_with(suffix)
    || path.size() <= instances_path.size() + suffix.size())
    return {};
  return std::string{
    path.substr(instances_path.size(), path.size() - instances_path.size() - suffix.size())};
}

/// Whether a path is one that changes something.
bool is_change(std::string_view path) {
  return path == migrate_path || !instance_in(path, drain_suffix).empty()
         || !instance_in(path, undrain_suffix).empty();
}

/// Whether a path is one that tells something; `requests_path` has further ones.
bool is_answer(std::string_view path) {
  constexpr std::string_view paths[]
    = {"/metrics",         "/admin/v1/cluster", "/admin/v1/requests",
       "/admin/v1/actors", "/admin/v1/events",  "/admin/v1/profile"};
  return std::ranges::find(paths, path) != std::ranges::end(paths)
         || !request_in(path, why_suffix).empty() || !request_in(path, scene_suffix).empty();
}

net::http_reply wrong_method(const char* allowed) {
  auto reply
    = refusal(405, "method_not_allowed", std::string{"this address takes "} + allowed + " alone");
  reply.headers.emplace_back("allow", allowed);
  return reply;
}

} // namespace

/// One client of /admin/v1/events. Reads at its own pace: beyond a bound it is told how much it
/// missed.
class admin_handler::event_reader final : public net::exchange_watcher {
public:
  explicit event_reader(std::shared_ptr<net::exchange> client) : client_{std::move(client)} {
    client_->watch(this);
    client_->begin_stream(
      200, {{"content-type", "text/event-stream; charset=utf-8"}, {"cache-control", "no-cache"}});
    client_->write(": llumnix events\n\n");
    client_->flush();
  }
  ~event_reader() override { client_->watch(nullptr); }

  void on_gone() override { gone_ = true; }
  void on_drained() override {}
  bool gone() const { return gone_; }

  void tell(const json& events, std::uint64_t missed) {
    missed_ += missed;
    if (client_->backlog() > backlog_max) {
      missed_ += events.size();
      return;
    }
    if (missed_ > 0)
      client_->write(
        "event: missed\ndata: {\"missed\":" + std::to_string(std::exchange(missed_, 0)) + "}\n\n");
    for (const auto& event : events)
      client_->write("data: " + event.dump() + "\n\n");
    client_->flush();
  }
  void end() {
    if (!gone_)
      client_->end_stream();
  }

private:
  static constexpr std::size_t backlog_max = 256 * 1024;
  std::shared_ptr<net::exchange> client_;
  std::uint64_t missed_ = 0;
  bool gone_ = false;
};

admin_handler::admin_handler(admin_services services)
  : services_{std::move(services)}, self_{std::make_shared<admin_handler*>(this)} {}

admin_handler::~admin_handler() = default;

net::http_reply admin_handler::error_reply(int status, std::string_view message) {
  return refusal(status, status == 404 ? "not_found" : "invalid_request", message);
}

bool admin_handler::allowed(const net::http_request& request) const {
  return net::bears_key(request.header("authorization"), services_.key);
}

void admin_handler::on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) {
  const auto& path = request.path;
  if (path == "/livez")
    return client->reply(answer(200, "ok\n", "text/plain"));
  if (path == "/readyz") {
    bool ready = services_.ready();
    return client->reply(answer(ready ? 200 : 503, ready ? "ok\n" : "not ready\n", "text/plain"));
  }
  if (!allowed(request))
    return client->reply(
      refusal(401, "unauthorized", "this address wants `authorization: Bearer KEY` (admin.key)"));
  bool changes = is_change(path);
  if (!changes && !is_answer(path))
    return client->reply(refusal(404, "not_found", "there is no " + path));
  if (changes ? request.method != "POST" : request.method != "GET" && request.method != "HEAD")
    return client->reply(wrong_method(changes ? "POST" : "GET, HEAD"));
  if (path == "/metrics")
    return client->reply(metrics_reply(request, services_.metrics_text()));
  if (!services_.cluster_wide)
    return client->reply(
      refusal(404, "not_found", "this node has no role `console`; ask one that has"));
  if (changes)
    return change(std::move(client), request);
  answer_from_console(std::move(client), request);
}

void admin_handler::answer_from_console(
  std::shared_ptr<net::exchange> client, const net::http_request& request) {
  const auto& path = request.path;
  if (path == "/admin/v1/events")
    return watch_events(std::move(client));
  if (auto why = request_in(path, why_suffix); !why.empty())
    return ask(std::move(client), {"why", why}, "unknown_request");
  if (auto scene = request_in(path, scene_suffix); !scene.empty())
    return ask(std::move(client), {"scene", scene}, "unknown_request");
  if (path == "/admin/v1/profile") {
    auto role = net::query_value(request.query, "role");
    if (role.empty())
      role = to_string(infer_type::neutral);
    if (!parse_infer_type(role))
      return client->reply(
        refusal(400, "invalid_argument", "role is one of neutral, prefill and decode"));
    return ask(std::move(client), {"profile", role}, "not_found");
  }
  if (path == "/admin/v1/requests")
    return ask(
      std::move(client), {"requests", net::query_value(request.query, "instance")}, "not_found");
  ask(std::move(client), {path.substr(std::string_view{"/admin/v1/"}.size()), {}}, "not_found");
}

/// Moves, drains and takes back, once it is sure that no web page asks for it.
void admin_handler::change(
  std::shared_ptr<net::exchange> client, const net::http_request& request) {
  if (!names_address(request.header("host"), services_.address))
    return client->reply(refusal(
      403, "wrong_host",
      "the host header names another address than " + services_.address
        + ", as a web page's would"));
  if (!is_json(request.header("content-type")))
    return client->reply(
      refusal(415, "unsupported_media_type", "this wants `content-type: application/json`"));
  auto wrong
    = [&](const error& what) { client->reply(refusal(400, "invalid_request", what.context)); };
  if (request.path == migrate_path) {
    auto order = read_migrate_body(request.body);
    if (!order)
      return wrong(order.error());
    return give(std::move(client), {std::move(*order), migrate_patience, {}});
  }
  if (auto right = read_no_body(request.body); !right)
    return wrong(right.error());
  if (auto id = instance_in(request.path, undrain_suffix); !id.empty())
    return give(std::move(client), {{order_msg::undrain{id}}, answer_patience, {}});
  auto timeout = read_drain_query(request.query);
  if (!timeout)
    return wrong(timeout.error());
  auto id = instance_in(request.path, drain_suffix);
  give(std::move(client), {{order_msg::drain{id, *timeout}}, *timeout + answer_patience, {}});
}

/// Takes the order to CONSOLE; the answer comes back to this loop.
void admin_handler::give(std::shared_ptr<net::exchange> client, admin_order order) {
  auto& loop = services_.loop;
  order.answer = [client = std::move(client), &loop](result<ordered_msg> done) {
    loop.post([client, done = std::move(done)]() mutable {
      if (done)
        client->reply(answer(done->status, std::move(done->json) + "\n"));
      else
        client->reply(refusal(503, to_string(done.error().code), done.error().context));
    });
  };
  if (auto desk = services_.desk->get())
    caf::anon_send(desk, std::move(order));
  else
    order.answer(error{errc::unreachable, "the node is being started"});
}

/// Takes the question to CONSOLE; the answer comes back to this loop.
void admin_handler::ask(
  std::shared_ptr<net::exchange> client, inspect_msg question, const char* unknown) {
  auto& loop = services_.loop;
  auto on_answer = [client, unknown, &loop](result<std::string> found) {
    loop.post([client, unknown, found = std::move(found)]() mutable {
      if (found)
        client->reply(answer(200, std::move(*found) + "\n"));
      else if (found.error().code == errc::not_found)
        client->reply(refusal(404, unknown, found.error().context));
      else
        client->reply(refusal(503, to_string(found.error().code), found.error().context));
    });
  };
  if (auto desk = services_.desk->get())
    caf::anon_send(desk, admin_question{std::move(question), std::move(on_answer)});
  else
    on_answer(error{errc::unreachable, "the node is being started"});
}

void admin_handler::watch_events(std::shared_ptr<net::exchange> client) {
  if (readers_.size() >= readers_max)
    return client->reply(refusal(429, "too_many_readers", "64 readers follow events already"));
  readers_.push_back(std::make_unique<event_reader>(std::move(client)));
  ask_events(); // who was first wants to hear of all from now on
}

/// While somebody watches, asks CONSOLE what is new.
void admin_handler::on_tick() {
  std::erase_if(readers_, [](const auto& reader) { return reader->gone(); });
  if (readers_.empty()) {
    last_event_.clear();
    return;
  }
  ask_events();
}

void admin_handler::ask_events() {
  auto desk = services_.desk->get();
  if (asking_ || !desk)
    return;
  asking_ = true;
  auto& loop = services_.loop;
  std::weak_ptr<admin_handler*> weak = self_;
  caf::anon_send(
    desk, admin_question{{"events", last_event_}, [weak, &loop](result<std::string> found) {
                           loop.post([weak, found = std::move(found)] {
                             auto self = weak.lock();
                             if (!self)
                               return;
                             (*self)->asking_ = false;
                             if (found)
                               (*self)->share_events(*found);
                           });
                         }});
}

void admin_handler::share_events(const std::string& document) {
  auto news = json::parse(document, nullptr, false);
  if (news.is_discarded())
    return;
  last_event_ = std::to_string(news["last"].get<std::uint64_t>());
  auto missed = news["missed"].get<std::uint64_t>();
  if (news["events"].empty() && missed == 0)
    return;
  for (auto& reader : readers_)
    if (!reader->gone())
      reader->tell(news["events"], missed);
}

} // namespace llumnix
