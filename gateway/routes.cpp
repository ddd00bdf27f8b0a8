#include "gateway/routes.hpp"

#include "gateway/openai/placement_headers.hpp"
#include "gateway/openai/replies.hpp"
#include "gateway/relay/asking.hpp"
#include "net/http_message.hpp"
#include "net/metrics_page.hpp"

#include <algorithm>
#include <cctype>
#include <utility>

namespace llumnix {
namespace {

constexpr std::string_view json = "application/json";
constexpr std::string_view models_path = "/v1/models/";
constexpr std::size_t large_body = 256 * 1024; // bytes from which others would notice its reading

std::uint64_t random_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

/// Whether a content type is given and is not JSON.
bool foreign_content(std::string_view content_type) {
  std::string media;
  for (char c : content_type.substr(0, content_type.find(';')))
    if (c != ' ' && c != '\t')
      media += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return !media.empty() && media != "application/json" && media != "text/json"
         && !media.ends_with("+json");
}

/// Whether `methods` ("GET, HEAD") names `method`.
bool allows(std::string_view methods, std::string_view method) {
  while (!methods.empty()) {
    auto end = std::min(methods.find(", "), methods.size());
    if (methods.substr(0, end) == method)
      return true;
    methods.remove_prefix(std::min(end + 2, methods.size()));
  }
  return false;
}

/// Errors the HTTP server finds by itself.
std::string_view code_of_status(int status) {
  switch (status) {
    case 408: return "request_timeout";
    case 413: return "request_too_large";
    case 417: return "expectation_failed";
    case 431: return "headers_too_large";
    case 503: return "overloaded";
    default: return status < 500 ? "bad_request" : "internal_error";
  }
}

/// Whether a path may be another than its clean form: few are looked at closely.
bool may_be_unclean(std::string_view path) {
  return path.starts_with('/') && (path.find("//") != path.npos || path.find("/.") != path.npos);
}

/// Whether `name` is in the list, whose entries may end in a '*' for any ending.
bool is_listed(const std::vector<std::string>& list, std::string_view name) {
  return std::any_of(list.begin(), list.end(), [&](std::string_view entry) {
    return entry.ends_with('*') ? name.starts_with(entry.substr(0, entry.size() - 1))
                                : name == entry;
  });
}

} // namespace

const openai_handler::route openai_handler::routes[] = {
  {"/v1/chat/completions", "POST", true, &openai_handler::chat},
  {"/v1/completions", "POST", true, &openai_handler::completions},
  {"/inference/v1/generate", "POST", true, &openai_handler::tokens},
  {"/v1/models", "GET, HEAD", true, &openai_handler::models},
  {models_path, "GET, HEAD", true, &openai_handler::model},
  {"/metrics", "GET, HEAD", true, &openai_handler::metrics},
  {"/health", "", false, &openai_handler::health},
  {"/healthz", "", false, &openai_handler::health},
};

openai_handler::openai_handler(gateway_services services)
  : services_{std::move(services)},
    started_{services_.unix_seconds()},
    reader_{services_.config, services_.words},
    seeds_{services_.seed},
    uuids_{random_seed()},
    shared_{
      services_.streams, services_.loop, services_.metrics.attach(),
      openai::logprob_writer{services_.words},
      [this](http_session& session) { free_later(session); }},
    self_{std::make_shared<openai_handler*>(this)} {
  if (services_.pool)
    large_bodies_.emplace(*services_.pool, services_.loop, [this](call& x, body_content&& content) {
      on_content(x, std::move(content));
    });
}

openai_handler::~openai_handler() {
  self_.reset();
  large_bodies_.reset();
  sessions_.clear();
}

void openai_handler::on_request(
  std::shared_ptr<net::exchange> client, net::http_request&& request) {
  auto id = services_.ids.take(request.header("x-request-id"), uuids_);
  call x{std::move(client), std::move(request), std::move(id), services_.loop.now()};
  const auto& path = x.request.path;
  if (may_be_unclean(path))
    if (auto place = net::clean_path(path); place != path)
      return redirect(x, place);
  auto found = std::find_if(std::begin(routes), std::end(routes), [&](const route& candidate) {
    return candidate.path.ends_with('/') ? path.starts_with(candidate.path)
                                         : path == candidate.path;
  });
  if (found == std::end(routes)) {
    refuse(x, {404, "not_found", "There is nothing at '" + path + "'.", {}});
  } else if (found->keyed && !authorized(x)) {
    refuse(
      x, {401, "invalid_api_key", "A bearer key is needed in the 'authorization' header.", {}});
  } else if (!found->methods.empty() && !allows(found->methods, x.request.method)) {
    auto reply = openai::error_reply(
      {405,
       "method_not_allowed",
       "'" + path + "' answers " + std::string{found->methods} + " only.",
       {}},
      x.id.text());
    reply.headers.emplace_back("allow", found->methods);
    x.client->reply(std::move(reply));
  } else {
    (this->*found->answer)(x);
  }
}

void openai_handler::tokens(call& x) {
  if (!services_.relays)
    refuse(
      x, {404,
          "not_found",
          "'/inference/v1/generate' is passed on to engines behind HTTP that have it, vLLM started "
          "with --enable-scale-out; the engines of this cluster are not behind HTTP.",
          {}});
  else if (services_.relays->nobody_takes_tokens({}))
    refuse(x, relay::no_engine_takes_tokens()); // before its body is looked at: others ask us so
  else
    generate(x, openai::endpoint::tokens);
}

void openai_handler::generate(call& x, openai::endpoint kind) {
  if (!services_.ready())
    return refuse(x, {503, "draining", "This gateway takes no new requests now.", {}});
  if (foreign_content(x.request.header("content-type")))
    return refuse(x, {415, "unsupported_media_type", "The body must be application/json.", {}});
  auto wishes = openai::read_placement_headers(x.request);
  if (const auto* failure = std::get_if<openai::api_error>(&wishes))
    return refuse(x, *failure);
  x.wishes = std::get<placement_wishes>(std::move(wishes));
  body_form form{.kind = kind, .relayed = services_.relays != nullptr};
  form.max_model_len = services_.max_model_len();
  if (!large_bodies_ || x.request.body.size() < large_body)
    return on_content(x, reader_.read(form, x.request.body));
  if (!large_bodies_->read(x, form))
    refuse(x, {503, "overloaded", "Too many large requests wait to be read.", {}});
}

void openai_handler::on_content(call& x, body_content&& content) {
  if (const auto* failure = std::get_if<openai::api_error>(&content))
    refuse(x, *failure);
  else if (auto* wanted = std::get_if<checked_request>(&content))
    serve(x, std::move(*wanted));
  else
    pass_on(x, std::get<relayable_request>(std::move(content)));
}

void openai_handler::serve(call& x, checked_request&& wanted) {
  auto session = std::make_unique<http_session>(
    shared_, std::move(x.client),
    session_request{
      std::move(wanted.wish), std::move(x.id), std::move(x.request.peer), x.arrived,
      services_.unix_seconds(), std::move(x.wishes)});
  auto& started = *session;
  sessions_.emplace(&started, std::move(session));
  started.start(std::move(wanted.prompts), seeds_());
}

void openai_handler::pass_on(call& x, relayable_request&& wanted) {
  if (is_served(wanted.wish.model))
    relay(x, std::move(wanted));
  else if (!services_.ask_models || waits_.full())
    refuse(x, unknown_model(wanted.wish.model));
  else
    wait_for_model(x, std::move(wanted));
}

/// As far as engines have told: where none has, anything may be.
bool openai_handler::is_served(const std::string& model) const {
  auto known = services_.models();
  return known->entries.empty() || model.empty() || known->entries.contains(model);
}

/// An engine may have loaded it since it was asked last.
void openai_handler::wait_for_model(call& x, relayable_request&& wanted) {
  auto number = waits_.add(std::move(x), std::move(wanted));
  services_.ask_models([weak = std::weak_ptr{self_}, number] {
    if (auto self = weak.lock())
      (*self)->on_models_asked(number);
  });
}

void openai_handler::on_models_asked(std::uint64_t number) {
  auto waited = waits_.take(number);
  if (!waited)
    return; // the client left, or was answered
  auto& [x, wanted] = *waited;
  if (!services_.ready())
    refuse(x, {503, "draining", "This gateway takes no new requests now.", {}});
  else if (!is_served(wanted.wish.model))
    refuse(x, unknown_model(wanted.wish.model));
  else
    relay(x, std::move(wanted));
}

/// The body stays as it is: what the gateway does not act on is for the engine to judge. Engines
/// with a key of the gateway's get that, and never the client's.
void openai_handler::relay(call& x, relayable_request&& wanted) {
  auto& wish = wanted.wish;
  if (wish.kind == openai::endpoint::tokens && services_.relays->nobody_takes_tokens(wish.model))
    return refuse(x, relay::no_engine_takes_tokens());
  const auto& engine_key = services_.config.engine_key;
  net::header_list passed;
  if (!engine_key.empty())
    passed.emplace_back("authorization", "Bearer " + engine_key);
  const std::string connection{x.request.header("connection")};
  for (auto& [name, value] : x.request.headers)
    if (
      is_listed(services_.config.forward_headers, name) && !net::lists_token(connection, name)
      && ((services_.key.empty() && engine_key.empty()) || name != "authorization"))
      passed.emplace_back(std::move(name), std::move(value));
  services_.relays->open(
    std::move(x.client),
    {std::move(wish), std::make_shared<const std::string>(std::move(x.request.body)),
     std::move(x.request.path), std::move(passed), std::move(x.id), std::move(x.request.peer),
     x.arrived, std::move(x.request.held), std::move(x.wishes)});
}

/// All models of the engines, or the one wanted.
void openai_handler::answer_models(call& x, std::string_view wanted) {
  auto known = services_.models();
  if (!wanted.empty()) {
    auto found = known->entries.find(wanted);
    return found == known->entries.end() ? refuse(x, unknown_model(wanted))
                                         : reply(x, 200, json, found->second);
  }
  std::string list = R"({"object":"list","data":[)";
  for (const auto& [id, entry] : known->entries)
    list.append(list.back() == '[' ? "" : ",").append(entry);
  reply(x, 200, json, list + "]}");
}

void openai_handler::models(call& x) {
  if (services_.relays)
    return answer_models(x, {});
  reply(
    x, 200, json,
    openai::render_models(services_.config.model, started_, services_.max_model_len()));
}

void openai_handler::model(call& x) {
  auto name = std::string_view{x.request.path}.substr(models_path.size());
  if (services_.relays)
    return answer_models(x, name);
  if (name != services_.config.model)
    return refuse(x, unknown_model(name));
  reply(x, 200, json, openai::render_model(name, started_, services_.max_model_len()));
}

void openai_handler::health(call& x) {
  auto ready = services_.ready();
  reply(x, ready ? 200 : 503, json, ready ? R"({"status":"ok"})" : R"({"status":"draining"})");
}

void openai_handler::metrics(call& x) {
  auto page = net::make_metrics_page(
    x.request.header("accept"),
    services_.metrics.text(services_.loop.now()) + services_.metrics_text());
  reply(x, 200, page.content_type, std::move(page.body));
}

bool openai_handler::authorized(const call& x) const {
  return net::bears_key(x.request.header("authorization"), services_.key);
}

void openai_handler::reply(call& x, int status, std::string_view content_type, std::string body) {
  x.client->reply(
    {status,
     {{"content-type", std::string{content_type}}, {"x-request-id", x.id.text()}},
     std::move(body)});
}

void openai_handler::refuse(call& x, const openai::api_error& failure) {
  auto reply = openai::error_reply(failure, x.id.text());
  if (failure.status == 401)
    reply.headers.emplace_back("www-authenticate", "Bearer");
  x.client->reply(std::move(reply));
}

/// Whatever is asked for, there (spec/gateway.md 3).
void openai_handler::redirect(call& x, std::string_view path) {
  auto place = net::percent_encode_path(path);
  if (!x.request.query.empty())
    place.append("?").append(x.request.query);
  x.client->reply({301, {{"location", std::move(place)}, {"x-request-id", x.id.text()}}, {}});
}

net::http_reply openai_handler::error_reply(int status, std::string_view message) {
  return openai::error_reply(
    {status, std::string{code_of_status(status)}, std::string{message}, {}}, make_uuid(uuids_));
}

void openai_handler::on_tick() {
  services_.on_tick();
  auto now = services_.loop.now();
  for (const auto& [session, owned] : sessions_) // those that end here are freed later
    session->check_stalled(now, services_.config.stalled_client);
}

void openai_handler::give_up_all(const error& why) {
  std::vector<http_session*> all; // a client that is answered may send its next request at once
  all.reserve(sessions_.size());
  for (const auto& [session, owned] : sessions_)
    all.push_back(session);
  for (auto* session : all) // freed later
    session->give_up(why);
  if (large_bodies_)
    for (auto& x : large_bodies_->take_all())
      refuse(x, openai::to_api_error(why));
  for (auto& x : waits_.take_all())
    refuse(x, openai::to_api_error(why));
  if (services_.relays)
    services_.relays->give_up_all(why);
}

/// One posted task serves all sessions that end before it runs.
void openai_handler::free_later(http_session& session) {
  ended_.push_back(&session);
  if (ended_.size() == 1)
    services_.loop.post([weak = std::weak_ptr{self_}] {
      if (auto self = weak.lock())
        (*self)->free_ended();
    });
}

void openai_handler::free_ended() {
  for (auto* session : std::exchange(ended_, {}))
    sessions_.erase(session); // cancels its streams
}

} // namespace llumnix
