#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Somebody who holds the KV of a prompt from its first token on.
struct prefix_holder {
  std::string name;
  std::uint32_t tokens = 0; ///< the first so many, without a gap; above 0
  friend bool operator==(const prefix_holder&, const prefix_holder&) = default;
};

/// By what an index knows holders.
enum class holder_naming : std::uint8_t {
  instance,   ///< instance ids
  kv_address, ///< hosts as the KV store knows them: `instance_metadata::ip_kvs`
};

/// Who holds how much of one prompt.
struct prefix_holders {
  holder_naming named_by = holder_naming::instance;
  std::vector<prefix_holder> list; ///< ordered by name, names once
};

/// KV INDEX port: who holds which prefix. An index of our own that answers at once, or a metadata
/// service of a KV store that is asked over the network; each cuts and hashes prompts as whoever
/// fills it does.
class kv_index {
public:
  using answer = std::function<void(result<prefix_holders>)>;

  virtual ~kv_index() = default;
  /// Looks up a prompt of a model, or of a LoRA; both are needed only until this returns. From
  /// which threads, each form says. `done` is called exactly once, in bounded time: from within
  /// this call, on a thread of the index's own, or by its destructor (`cancelled`). Whatever the
  /// error, a placement goes on without hits.
  virtual void find(std::span<const token_id> prompt, std::string_view model, answer done) = 0;
};

} // namespace llumnix
