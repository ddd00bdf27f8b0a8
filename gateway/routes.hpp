#pragma once

#include "config/cluster_config.hpp"
#include "gateway/body_reader.hpp"
#include "gateway/gateway_metrics.hpp"
#include "gateway/http_session.hpp"
#include "gateway/large_bodies.hpp"
#include "gateway/model_waits.hpp"
#include "gateway/parse_pool.hpp"
#include "gateway/relay/relay_table.hpp"
#include "gateway/request_ids.hpp"
#include "net/http_server.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// The models that engines behind HTTP say they serve.
struct served_models {
  std::map<std::string, std::string, std::less<>>
    entries; ///< by id, as the engine tells it: {"id":…}
};

/// What the HTTP surface of one I/O loop works with. References outlive the handler.
struct gateway_services {
  const gateway_config& config;
  const tokenizer& words;
  stream_table& streams; ///< of this loop
  executor& loop;
  request_ids& ids;         ///< shared by all loops
  gateway_metrics& metrics; ///< shared by all loops
  std::uint64_t seed
    = 0;           ///< of the sampling seeds drawn for requests without one; another for each loop
  std::string key; ///< bearer key clients must send; empty: none
  std::function<bool()> ready;                  ///< whether new requests are welcome; for /healthz
  std::function<std::uint32_t()> max_model_len; ///< tokens of prompt and output; 0: unknown
  std::function<std::string()> metrics_text;    ///< appended to /metrics
  std::function<std::int64_t()> unix_seconds;   ///< wall time, for `created`
  /// Passes requests on to engines behind HTTP, on this loop; null: engines are llumlets' and take
  /// tokens.
  relay::relay_table* relays = nullptr;
  std::function<std::shared_ptr<const served_models>()> models = {}; ///< of those engines
  /// Asks those engines for their models anew, and says so on this loop when they have answered.
  std::function<void(std::function<void()> answered)> ask_models = {};
  std::function<void()> on_tick = [] {}; ///< about ten times a second, on the loop
  parse_pool* pool = nullptr;            ///< reads large bodies; null: the loop does that itself
};

/// The HTTP surface of one I/O loop (spec/gateway.md 3, spec/surface.md 3):
///
///     POST      /v1/chat/completions  /v1/completions  /inference/v1/generate
///     GET HEAD  /v1/models  /v1/models/{id}  /metrics
///     any       /health  /healthz
///
/// With a key, everything but /health and /healthz wants `authorization: Bearer KEY`. A path with
/// empty segments, "." or ".." is redirected to its clean form. While new requests are not welcome,
/// generating ones get 503. Token ids in and out (/inference/v1/generate) are only passed on, to
/// engines behind HTTP that have it; else that is a 404.
class openai_handler final : public net::http_handler {
public:
  explicit openai_handler(gateway_services services);
  /// Cancels the streams of sessions still open and frees them.
  ~openai_handler() override;

  void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override;
  void on_tick() override;
  void on_loop_end() override { large_bodies_.reset(); }
  net::http_reply error_reply(int status, std::string_view message) override;

  /// Sessions whose answer is not complete, and those that wait to be freed.
  std::size_t open_sessions() const { return sessions_.size(); }
  /// Ends all generating requests there are now with an error: an event in a stream that has begun,
  /// else a reply. On the loop.
  void give_up_all(const error& why);

private:
  using call = client_call;
  struct route {
    std::string_view path;    ///< ending in '/': everything below it
    std::string_view methods; ///< as in `allow`; empty: any
    bool keyed;
    void (openai_handler::*answer)(call&);
  };
  static const route routes[];

  void chat(call& x) { generate(x, openai::endpoint::chat); }
  void completions(call& x) { generate(x, openai::endpoint::completions); }
  void tokens(call& x);
  void generate(call& x, openai::endpoint kind);
  void on_content(call& x, body_content&& content);
  void serve(call& x, checked_request&& wanted);
  void pass_on(call& x, relayable_request&& wanted);
  bool is_served(const std::string& model) const;
  void wait_for_model(call& x, relayable_request&& wanted);
  void on_models_asked(std::uint64_t number);
  void relay(call& x, relayable_request&& wanted);
  void answer_models(call& x, std::string_view wanted);
  void models(call& x);
  void model(call& x);
  void health(call& x);
  void metrics(call& x);
  bool authorized(const call& x) const;
  void reply(call& x, int status, std::string_view content_type, std::string body);
  void refuse(call& x, const openai::api_error& failure);
  void redirect(call& x, std::string_view path);
  void free_later(http_session& session);
  void free_ended();

  gateway_services services_;
  std::int64_t started_; ///< Unix seconds
  body_reader reader_;
  std::mt19937_64 seeds_;
  std::mt19937_64 uuids_;
  session_services shared_;
  model_waits waits_;
  std::optional<large_bodies> large_bodies_; ///< with a pool, until the loop's end
  std::unordered_map<http_session*, std::unique_ptr<http_session>> sessions_;
  std::vector<http_session*> ended_;
  std::shared_ptr<openai_handler*>
    self_; ///< what posted work checks: empty once the handler is gone
};

} // namespace llumnix
