#include "gateway/scheduler_api/api_handler.hpp"

#include "gateway/relay/json_cursor.hpp"
#include "net/metrics_page.hpp"
#include "runtime/base/log.hpp"

#include <utility>

namespace llumnix::scheduler_api {

namespace {

constexpr auto plain_text = "text/plain; charset=utf-8";

net::http_reply nothing() {
  return {200, {}, {}};
}

/// As Go's `http.Error` answers.
net::http_reply refusal(int status, std::string_view text) {
  return {
    status,
    {{"content-type", plain_text}, {"x-content-type-options", "nosniff"}},
    std::string{text} + "\n"};
}

/// Gateways tell faster than the scheduler hears.
net::http_reply behind() {
  auto reply = refusal(503, "scheduler is behind");
  reply.headers.emplace_back("retry-after", "1");
  return reply;
}

/// A page in a browser that comes from somewhere else: it says so, and gateways do not.
bool from_a_page(const net::http_request& request) {
  auto origin = request.header("origin");
  auto scheme = origin.find("://");
  return !origin.empty()
         && (scheme == origin.npos || origin.substr(scheme + 3) != request.header("host"));
}

/// What is said where nobody could be chosen, and how it is counted.
failure to_failure(const error& why) {
  switch (why.code) {
    case errc::no_instance: return failure::no_available_endpoint;
    case errc::unreachable: return failure::cms_not_available;
    case errc::draining: return failure::scheduler_not_ready;
    default: return failure::unknown;
  }
}

} // namespace

/// A request of `/schedule` while it is decided. Its token ids lie in its body.
class api_handler::question final : public net::exchange_watcher {
public:
  question(std::shared_ptr<net::exchange> from, net::http_request&& text, time_point now)
    : client{std::move(from)}, asked_at{now}, request_{std::move(text)} {}
  ~question() override { client->watch(nullptr); }

  /// False if it cannot be understood.
  bool read() {
    auto understood = read_scheduling_request(request_.body);
    if (understood)
      wanted = std::move(*understood);
    return understood.has_value();
  }

  void on_gone() override { gone = true; }
  void on_drained() override {}

  std::shared_ptr<net::exchange> client;
  time_point asked_at;
  time_point asked_index_at{};
  scheduling_request wanted;
  bool gone = false; ///< nobody waits for the answer any more

private:
  net::http_request request_;
};

api_handler::api_handler(api_services services) : services_{std::move(services)} {}

api_handler::~api_handler() = default;

net::http_reply api_handler::error_reply(int status, std::string_view message) {
  return refusal(status, message);
}

bool api_handler::allowed(const net::http_request& request) const {
  auto given = request.header("authorization");
  return net::bears_key(given, services_.key) || net::same_secret(given, services_.key);
}

void api_handler::on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) {
  const auto& path = request.path;
  if (path == "/healthz")
    return client->reply(nothing());
  if (!allowed(request))
    return client->reply(refusal(401, "Unauthorized"));
  if (path == "/schedule")
    return schedule(std::move(client), std::move(request));
  if (path == "/release")
    return release(*client, request);
  if (path == "/report")
    return report(*client, request);
  if (path == "/keepalive")
    return keep_alive(*client, request);
  if (path == "/metrics")
    return metrics(*client, request);
  client->reply(refusal(404, "Not found"));
}

void api_handler::metrics(net::exchange& client, const net::http_request& request) {
  auto page = net::make_metrics_page(
    request.header("accept"),
    services_.metrics.text(services_.loop.now()) + services_.metrics_text());
  client.reply({200, {{"content-type", std::string{page.content_type}}}, std::move(page.body)});
}

void api_handler::schedule(std::shared_ptr<net::exchange> client, net::http_request&& request) {
  auto asked
    = std::make_shared<question>(std::move(client), std::move(request), services_.loop.now());
  if (!asked->read())
    return asked->client->reply(refusal(400, "invalid scheduling req"));
  asked->client->watch(asked.get());
  auto tokens = asked->wanted.prompt_num_tokens;
  if (services_.index && !asked->wanted.token_ids.empty() && tokens >= services_.index_min_tokens)
    look_up(std::move(asked));
  else
    decide(std::move(asked), std::nullopt);
}

/// Whatever the index says, or does not say, the request is placed.
void api_handler::look_up(std::shared_ptr<question> asked) {
  asked->asked_index_at = services_.loop.now();
  auto prompt = relay::read_numbers(asked->wanted.token_ids);
  services_.index->find(
    prompt, asked->wanted.model,
    [this, asked, &loop = services_.loop](result<prefix_holders> found) mutable {
      loop.post([this, asked = std::move(asked), found = std::move(found)] {
        services_.prefixes.saw_query(services_.loop.now() - asked->asked_index_at);
        if (!found)
          log::scheduler.debug("no-prefixes", "{}: {}", asked->wanted.id, to_string(found.error()));
        decide(asked, found ? std::optional{*found} : std::nullopt);
      });
    });
}

void api_handler::decide(std::shared_ptr<question> asked, std::optional<prefix_holders> holders) {
  services_.desk.schedule(
    to_query(asked->wanted), std::move(holders), asked->wanted.gateway_id,
    // Moved on, so that it ends on the loop.
    [this, asked, &loop = services_.loop](result<std::vector<chosen_instance>> chosen) mutable {
      loop.post([this, asked = std::move(asked), chosen = std::move(chosen)] {
        on_choice(*asked, chosen);
      });
    });
}

void api_handler::on_choice(question& asked, const result<std::vector<chosen_instance>>& chosen) {
  auto took = services_.loop.now() - asked.asked_at;
  if (!chosen) {
    auto why = to_failure(chosen.error());
    services_.metrics.on_failed(why, took);
    auto status = why == failure::no_available_endpoint ? 429 : 400;
    return asked.client->reply({status, {{"content-type", plain_text}}, chosen.error().context});
  }
  services_.metrics.on_scheduled(took);
  if (asked.gone) { // nobody will tell that it ends
    std::vector<request_place> at;
    for (const auto& each : *chosen)
      at.push_back({std::string{to_string(each.role)}, each.instance});
    services_.desk.release(asked.wanted.id, asked.wanted.gateway_id, std::move(at));
    return;
  }
  std::vector<told_instance> told;
  for (const auto& each : *chosen) {
    const auto* record = services_.find_engine ? services_.find_engine(each.instance) : nullptr;
    if (record)
      told.push_back({each, record->model, record->version});
    else
      told.push_back({each, {}, 0});
  }
  asked.client->reply(
    {200, {{"content-type", "application/json"}}, render_scheduled(asked.wanted, told)});
}

void api_handler::release(net::exchange& client, const net::http_request& request) {
  auto told = read_scheduling_request(request.body);
  if (!told)
    return client.reply(refusal(400, "invalid release request"));
  if (told->result.empty())
    return client.reply(refusal(400, "ignore, release 0 request."));
  bool taken = services_.desk.release(
    std::move(told->id), std::move(told->gateway_id), std::move(told->result));
  client.reply(taken ? nothing() : behind());
}

void api_handler::report(net::exchange& client, const net::http_request& request) {
  auto news = read_report(request.body);
  if (!news)
    return client.reply(refusal(400, "invalid report request"));
  bool taken = news->empty() || services_.desk.report(std::move(*news));
  client.reply(taken ? nothing() : behind());
}

void api_handler::keep_alive(net::exchange& client, const net::http_request& request) {
  if (from_a_page(request))
    return client.reply(refusal(403, "Forbidden"));
  auto link = std::make_unique<gateway_link>(services_.desk, services_.loop.now());
  if (link->open(client, request)) {
    links_.push_back(std::move(link));
    return;
  }
  auto reply = refusal(400, "Bad Request");
  reply.headers.emplace_back("sec-websocket-version", "13");
  client.reply(std::move(reply));
}

void api_handler::on_tick() {
  for (auto& link : links_)
    link->tick(services_.loop.now());
  std::erase_if(links_, [](const auto& link) { return link->ended(); });
  services_.on_tick();
}

} // namespace llumnix::scheduler_api
