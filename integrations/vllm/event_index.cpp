#include "integrations/vllm/event_index.hpp"

#include "runtime/base/log.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace llumnix {

namespace {

constexpr log::logger kv_log{"kv"};
constexpr std::size_t adapters_max = 10'000; ///< of more, prompts are looked for as of none

struct host_and_port {
  std::string_view host, port;
};

host_and_port split(std::string_view address) {
  auto colon = address.rfind(':');
  if (colon == address.npos)
    return {address, {}};
  return {address.substr(0, colon), address.substr(colon + 1)};
}

/// The last number of a tcp endpoint, raised by so much.
result<std::string> raise_port(std::string endpoint, std::uint32_t by) {
  auto begin = endpoint.rfind(':') + 1;
  std::uint32_t port = 0;
  auto* end = endpoint.data() + endpoint.size();
  auto [stopped, failure] = std::from_chars(endpoint.data() + begin, end, port);
  if (failure != std::errc{} || stopped != end || port == 0 || port > 65535u - std::min(by, 65535u))
    return error{errc::invalid_argument, endpoint + " has no port that could be dialled"};
  endpoint.resize(begin);
  return endpoint + std::to_string(port + by);
}

} // namespace

result<std::string> engine_endpoint(std::string_view pattern, const engine_place& engine) {
  auto [host, port] = split(engine.address);
  std::string made;
  bool own_port = false;
  for (auto rest = pattern; !rest.empty();) {
    auto open = rest.find('{');
    made += rest.substr(0, open);
    if (open == rest.npos)
      break;
    auto close = rest.find('}', open);
    auto word = rest.substr(open, close == rest.npos ? close : close + 1 - open);
    if (word == "{host}")
      made += host;
    else if (word == "{port}")
      made += port;
    else if (word == "{rank}")
      made += std::to_string(engine.rank);
    else
      return error{
        errc::invalid_argument, std::string{word} + " is none of {host}, {port}, {rank}"};
    own_port = own_port || word != "{host}";
    rest.remove_prefix(open + word.size());
  }
  if (made.starts_with("tcp://"))
    return raise_port(std::move(made), own_port ? 0 : engine.rank);
  if (made.starts_with("ipc://") && made.size() > 6)
    return made;
  return error{errc::invalid_argument, made + " is no endpoint; write it like tcp://{host}:5557"};
}

event_index::event_index(event_index_options options)
  : options_{std::move(options)}, index_{options_.index} {}

event_index::~event_index() {
  std::map<instance_id, std::unique_ptr<kv_event_source>> ending;
  std::lock_guard guard{sources_mutex_};
  ending.swap(sources_); // their callbacks take the other lock
}

void event_index::add(const instance_id& id, const engine_place& engine) {
  remove(id);
  auto endpoint = engine_endpoint(options_.events, engine);
  result<std::string> replay{std::string{}};
  if (!options_.replay.empty())
    replay = engine_endpoint(options_.replay, engine);
  auto tell = [&](const error& why) {
    kv_log.warn("no-events", "nothing is known of the KV cache of {}: {}", id, to_string(why));
  };
  if (!endpoint || !replay)
    return tell(!endpoint ? endpoint.error() : replay.error());
  kv_event_source_options options;
  options.endpoint = *endpoint;
  options.replay_endpoint = *replay;
  auto source = kv_event_source::start(
    std::move(options),
    {[this, id](const kv_event_batch& batch) { hear(id, batch); }, [this, id] { lose(id); }});
  if (!source)
    return tell(source.error());
  std::lock_guard guard{sources_mutex_};
  sources_[id] = std::move(*source);
}

void event_index::remove(const instance_id& id) {
  std::unique_ptr<kv_event_source> ending;
  {
    std::lock_guard guard{sources_mutex_};
    auto found = sources_.find(id);
    if (found == sources_.end())
      return;
    ending = std::move(found->second);
    sources_.erase(found);
  }
  ending.reset(); // it says nothing any more
  std::lock_guard guard{mutex_};
  index_.forget(id);
}

void event_index::hear(const instance_id& id, const kv_event_batch& batch) {
  std::lock_guard guard{mutex_};
  for (const auto& event : batch.events) {
    if (event.adapter != 0 && adapters_.size() < adapters_max)
      adapters_.insert(event.adapter);
    apply(event, id, index_);
  }
}

void event_index::lose(const instance_id& id) {
  std::lock_guard guard{mutex_};
  index_.cleared(id);
}

void event_index::find(std::span<const token_id> prompt, std::string_view model, answer done) {
  prefix_holders found{holder_naming::instance, {}};
  {
    std::lock_guard guard{mutex_};
    auto adapter = adapter_digest(model);
    index_.match(prompt, adapters_.contains(adapter) ? adapter : 0, held_);
    for (std::uint32_t number = 0; number < held_.size(); ++number)
      if (const auto* id = held_[number] > 0 ? index_.instance_at(number) : nullptr)
        found.list.push_back({*id, held_[number]});
  }
  std::ranges::sort(found.list, {}, &prefix_holder::name);
  done(std::move(found));
}

event_index_counters event_index::counters() const {
  event_index_counters now;
  {
    std::lock_guard guard{sources_mutex_};
    now.engines = sources_.size();
    for (const auto& [id, source] : sources_) {
      auto heard = source->counters();
      now.batches += heard.batches;
      now.malformed += heard.malformed;
      now.lost += heard.lost;
    }
  }
  std::lock_guard guard{mutex_};
  now.blocks = index_.blocks();
  now.evicted = index_.counters().evicted;
  return now;
}

} // namespace llumnix
