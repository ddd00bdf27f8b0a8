#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/scheduling/kv_index.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// Counts how much of a prompt each holder has, chunk after chunk from the first one on: a gap ends
/// a holder's run, and a run that does not begin at the first chunk is none. Source:
/// spec/scheduling.md 8.3, with what is wanted there.
class prefix_runs {
public:
  /// `chunk_tokens` of each chunk but a last one that the prompt's end cuts.
  prefix_runs(std::uint32_t chunk_tokens, std::uint32_t prompt_tokens)
    : chunk_tokens_{chunk_tokens}, prompt_tokens_{prompt_tokens} {}

  /// Who holds the next chunk, in any order and perhaps several times. False once nobody holds
  /// everything up to it: what follows changes nothing.
  bool add(std::span<const std::string> holders);
  /// Ordered by name.
  std::vector<prefix_holder> holders() const;

private:
  std::uint32_t chunk_tokens_;
  std::uint32_t prompt_tokens_;
  std::uint32_t chunks_ = 0;                            // added so far
  bool open_ = true;                                    // somebody holds all of them
  std::unordered_map<std::string, std::uint32_t> runs_; // chunks, by holder
};

/// Which instances live at an address that the KV store knows (`instance_metadata::ip_kvs`).
using instances_by_address = std::map<std::string, std::vector<instance_id>, std::less<>>;

/// How much of a prompt is cached where. A plain value that a placement takes with it.
struct prefix_hits {
  struct hit {
    instance_id instance;
    std::uint32_t tokens = 0; ///< at most `prompt_tokens`
    friend bool operator==(const hit&, const hit&) = default;
  };
  /// An index has answered. Where none did (a short prompt, a failure), nobody has hits and nobody
  /// misses anything.
  bool asked = false;
  std::uint32_t prompt_tokens = 0;
  std::vector<hit> instances; ///< those with any hit, ordered by id, ids once

  std::uint32_t hit_tokens(const instance_id& id) const;
  /// Of the prompt, 0 to 1; 0 for an empty prompt.
  float hit_ratio(const instance_id& id) const;
  /// What the instance would have to compute; 0 for everybody if nobody was asked.
  std::uint32_t miss_tokens(const instance_id& id) const;
};

/// What an index answered, by instances: all those at a holder's address are credited. Holders
/// nobody knows are left out.
prefix_hits find_hits(
  const prefix_holders& holders, std::uint32_t prompt_tokens,
  const instances_by_address& addresses);
/// The same, with the instances of a view: credited are those whose `ip_kvs` a holder is named by.
prefix_hits
find_hits(const prefix_holders& holders, std::uint32_t prompt_tokens, const cluster_view& view);

} // namespace llumnix
