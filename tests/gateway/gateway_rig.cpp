#include "gateway_rig.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace llumnix::testing {

void fake_exchange::reply(net::http_reply whole) {
  REQUIRE(status == 0);
  status = whole.status;
  headers = std::move(whole.headers);
  body = std::move(whole.body);
  ended = true;
  if (stalled_) {
    backlog_ = body.size();
    stalled_since_ = loop_.now();
  }
  if (after_reply)
    after_reply();
}

void fake_exchange::begin_stream(int code, const net::header_list& lines) {
  REQUIRE(status == 0);
  status = code;
  headers = lines;
  streaming = true;
}

void fake_exchange::write(std::string_view chunk) {
  REQUIRE(streaming);
  REQUIRE_FALSE(ended);
  body += chunk;
  ++writes;
  if (!stalled_)
    return;
  if (backlog_ == 0)
    stalled_since_ = loop_.now();
  backlog_ += chunk.size();
}

void fake_exchange::flush() {
  REQUIRE_FALSE(ended);
  ++flushes;
  if (std::exchange(leave_at_flush, false))
    leave();
}

void fake_exchange::end_stream() {
  REQUIRE(streaming);
  REQUIRE_FALSE(ended);
  ended = true;
}

void fake_exchange::drain() {
  stalled_ = false;
  if (std::exchange(backlog_, 0) > 0 && watcher_)
    watcher_->on_drained();
}

void fake_exchange::leave() {
  if (auto* watcher = std::exchange(watcher_, nullptr))
    watcher->on_gone();
}

std::string fake_exchange::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name)
      return value;
  return {};
}

std::vector<nlohmann::json> fake_exchange::events() const {
  std::vector<nlohmann::json> all;
  std::string_view rest = body;
  while (!rest.empty()) {
    auto end = rest.find("\n\n");
    REQUIRE(rest.starts_with("data: "));
    REQUIRE(end != std::string_view::npos);
    auto data = rest.substr(6, end - 6);
    rest.remove_prefix(end + 2);
    if (data == "[DONE]")
      REQUIRE(rest.empty());
    else
      all.push_back(nlohmann::json::parse(data));
  }
  return all;
}

void fake_loop::post(std::function<void()> work) {
  std::lock_guard lock{mutex_};
  posted_.push_back(std::move(work));
  came_.notify_all();
}

void fake_loop::run() {
  run_until([this] {
    std::lock_guard lock{mutex_};
    return posted_.empty();
  });
}

bool fake_loop::run_until(const std::function<bool()>& holds) {
  constexpr std::chrono::seconds patience{20};
  for (auto end = clock::now() + patience; !holds();) {
    std::function<void()> work;
    {
      std::unique_lock lock{mutex_};
      if (!came_.wait_until(lock, end, [this] { return !posted_.empty(); }))
        return false;
      work = std::move(posted_.front());
      posted_.pop_front();
    }
    work();
  }
  return true;
}

gateway_rig::gateway_rig(gateway_config with, std::string key, std::size_t pool_of)
  : config{std::move(with)},
    streams{config, stream_ref{"head", 1, 0, 0}, words, cluster},
    metrics{config.model, loop.now()},
    pool{
      pool_of == 0 ? nullptr
                   : std::make_unique<parse_pool>(
                     config, words, parse_pool::options{.threads = 1, .waiting_max = pool_of})},
    handler{std::make_unique<openai_handler>(gateway_services{
      .config = config,
      .words = words,
      .streams = streams,
      .loop = loop,
      .ids = ids,
      .metrics = metrics,
      .seed = 7,
      .key = std::move(key),
      .ready = [this] { return ready; },
      .max_model_len = [this] { return max_model_len; },
      .metrics_text = [] { return std::string{"more 1\n"}; },
      .unix_seconds = [] { return std::int64_t{1700000000}; },
      .models = {},
      .pool = pool.get()})} {}

std::shared_ptr<fake_exchange> gateway_rig::send(
  std::string method, std::string path, std::string body, net::header_list headers) {
  auto client = std::make_shared<fake_exchange>(loop);
  handler->on_request(
    client,
    net::http_request{
      std::move(method), std::move(path), {}, std::move(headers), std::move(body), "1.2.3.4:5"});
  return client;
}

std::shared_ptr<fake_exchange> gateway_rig::chat(std::string fields, net::header_list headers) {
  return send(
    "POST", "/v1/chat/completions",
    R"({"model":"modeled","messages":[{"role":"user","content":"hi"}])" + fields + "}",
    std::move(headers));
}

std::shared_ptr<fake_exchange> gateway_rig::complete(std::string fields, net::header_list headers) {
  return send(
    "POST", "/v1/completions", R"({"model":"modeled")" + fields + "}", std::move(headers));
}

void gateway_rig::add(
  std::size_t request, std::vector<token_id> tokens, finish_reason finish,
  std::vector<token_logprob> logprobs, std::uint32_t cached) {
  REQUIRE(request < cluster.placed.size());
  sent_.resize(cluster.placed.size());
  token_delta delta;
  delta.stream = cluster.placed[request].stream.stream;
  delta.epoch = cluster.placed[request].epoch;
  delta.start
    = std::exchange(sent_[request], sent_[request] + static_cast<std::uint32_t>(tokens.size()));
  delta.tokens = std::move(tokens);
  delta.logprobs = std::move(logprobs);
  delta.finish = finish;
  delta.cached_tokens = cached;
  batch_.add(delta);
}

void gateway_rig::deliver() {
  auto batch = std::exchange(batch_, step_batch{});
  streams.on_batch({"engine-0", 1}, "engine-0", batch.bytes(), loop.now());
  loop.run();
}

void gateway_rig::refuse(std::size_t request, error why) {
  const auto& placed = cluster.placed.at(request);
  streams.on_unplaceable(placed.stream.stream, placed.epoch, why, loop.now());
  loop.run();
}

std::vector<token_id> ids_of(std::string_view text) {
  std::vector<token_id> ids;
  for (char byte : text)
    ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

} // namespace llumnix::testing
