#pragma once

#include "config/cluster_config.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/time.hpp"
#include "runtime/scheduling/chunk_keys.hpp"
#include "runtime/scheduling/kv_index.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::mooncake {

/// How the metadata service is asked. Times end with the tick that follows them.
struct client_options {
  std::string address; ///< HOST:PORT
  chunk_key_options keys;
  std::uint32_t attempts = 5;                   ///< of one query; 0 is 1
  std::chrono::milliseconds attempt_pause{100}; ///< after each attempt that failed
  std::chrono::milliseconds down{30000};        ///< a service that failed is left alone so long
  std::chrono::milliseconds call_timeout{3000}; ///< of one HTTP call, up to its last byte
  /// Of a whole query, whatever the others say: a gateway gives a placement up after 2 s, and one
  /// without hits is better than none.
  std::chrono::milliseconds budget{1500};
  std::size_t target_bytes_max = 32 * 1024;       ///< longer lists of keys take several requests
  std::size_t answer_bytes_max = 4 * 1024 * 1024; ///< of one request
  std::size_t queries_max = 256;                  ///< under way; more are refused (`queue_full`)
};

/// As the configuration says. Fails where `make_chunk_key_options` does.
result<client_options> make_client_options(const scheduler_config& config);

/// What a client came to since it was made.
struct client_counters {
  std::uint64_t answered = 0; ///< queries that had their answer
  std::uint64_t failed = 0;   ///< queries that were given up
  std::uint64_t skipped = 0;  ///< not asked: the service is down, or too much is under way
  bool up = true;             ///< the service is not known to be down
};

/// Mooncake's metadata service as a KV index, whose holders are hosts (spec/scheduling.md 8.2).
///
/// Requests of one query go out one after the other, and no more of them than it takes for every
/// run to have met its gap. A query that fails marks the service down:
///
///     up -> down -> probing -> up
///             ^--------'
///
/// While it is down queries fail at once. After that time the next one is sent as a probe, in one
/// attempt, and the others go on failing until it has ended: a service that is back is not run
/// over, and one that is not costs one request its time. A success of a query from before changes
/// nothing.
///
/// Lives on `loop`, where it is made, ticked and destroyed, and where answers are given but for
/// prompts that have no key.
class metadata_client final : public kv_index {
public:
  /// `pool` is one of that loop; both outlive it.
  metadata_client(client_options options, net::upstream_pool& pool, executor& loop);
  ~metadata_client() override;

  /// From any thread. Hashes the prompt on the calling one, about 0.3 ms for 32768 tokens. What
  /// there is no answer for within the budget, and one tick, ends as `timeout`, or as the last
  /// failure was; `unreachable` where the service is down. Keys do not tell models apart.
  void find(std::span<const token_id> prompt, std::string_view model, answer done) override;
  /// About ten times a second, on the loop.
  void tick();
  /// From any thread.
  client_counters counters() const;

private:
  class promise;
  class query;
  enum class health { up, down, probing };

  void begin(std::vector<std::string> keys, std::uint32_t prompt_tokens, promise done);
  bool may_begin(time_point now);
  /// Whether the query may make another attempt.
  bool goes_on(const query& which) const { return health_ == health::up || probe_ == &which; }
  /// The query has ended: what that says of the service.
  void note(const query& which);
  void mark_down(const error& why);
  /// Takes the query, which has ended, out and answers it; `this` may be gone then.
  void settle(const query& which);

  client_options options_;
  net::upstream_pool& pool_;
  executor& loop_;
  health health_ = health::up;
  time_point down_since_{};
  const query* probe_ = nullptr;
  std::shared_ptr<char> alive_ = std::make_shared<char>(); // what is posted asks for it
  std::vector<std::unique_ptr<query>> queries_;
  std::atomic<std::uint64_t> answered_{0};
  std::atomic<std::uint64_t> failed_{0};
  std::atomic<std::uint64_t> skipped_{0};
  std::atomic<bool> up_{true};
};

} // namespace llumnix::mooncake
