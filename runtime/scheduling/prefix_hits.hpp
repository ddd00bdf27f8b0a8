#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/scheduling/kv_index.hpp"

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
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

/// An instance that holds the beginning of a prompt.
struct prefix_hit {
  instance_id instance;
  std::uint32_t tokens = 0; ///< at most the prompt's
  friend bool operator==(const prefix_hit&, const prefix_hit&) = default;
};

/// Which instances hold how much of a prompt. Their names are shared with what was found for other
/// prompts: copying this copies numbers, and who has seen the names before need not look at them.
class instance_hits {
public:
  using names = std::shared_ptr<const std::vector<instance_id>>; ///< ordered, each once

  instance_hits() = default;
  /// Those with any hit, ordered by id, ids once.
  instance_hits(const std::vector<prefix_hit>& hits);
  instance_hits(std::initializer_list<prefix_hit> hits) : instance_hits{std::vector(hits)} {}
  /// `tokens` of each of `who`, 0 for none.
  instance_hits(names who, std::vector<std::uint32_t> tokens);

  /// Null where nobody is named.
  const names& who() const { return who_; }
  /// Of each of `who`, in that order.
  const std::vector<std::uint32_t>& tokens() const { return tokens_; }
  std::uint32_t tokens_of(const instance_id& id) const;
  /// Those with any hit, ordered by id.
  std::vector<prefix_hit> list() const;
  friend bool operator==(const instance_hits& x, const instance_hits& y) {
    return x.list() == y.list();
  }

private:
  names who_;
  std::vector<std::uint32_t> tokens_;
};

/// How much of a prompt is cached where. A plain value that a placement takes with it.
struct prefix_hits {
  /// An index has answered. Where none did (a short prompt, a failure), nobody has hits and nobody
  /// misses anything.
  bool asked = false;
  std::uint32_t prompt_tokens = 0;
  instance_hits instances{};

  std::uint32_t hit_tokens(const instance_id& id) const { return instances.tokens_of(id); }
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
