#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace llumnix {

/// A token of the model's vocabulary.
using token_id = std::uint32_t;

/// Names an engine instance in the whole cluster, e.g. "engine-0". Stable over the lives of its
/// process.
using instance_id = std::string;

/// One life of a node: a process that restarts comes back under a higher incarnation.
struct node_life {
  std::string node;
  std::uint64_t incarnation = 0;
  friend auto operator<=>(const node_life&, const node_life&) = default;
};

/// Where the tokens of a request go: a stream of a hub of a node's life. Also the request's
/// identity between actors (DESIGN.md 3.11); its text id lives at the edges.
struct stream_ref {
  std::string node;
  std::uint64_t incarnation = 0;
  std::uint32_t hub = 0;    ///< index of the stream hub, one per I/O loop
  std::uint64_t stream = 0; ///< counted by the hub, never reused within an incarnation
  friend auto operator<=>(const stream_ref&, const stream_ref&) = default;
};

/// "head/1/0/42".
std::string to_string(const stream_ref& stream);

struct stream_ref_hash {
  std::size_t operator()(const stream_ref& x) const {
    auto seed = std::hash<std::string>{}(x.node);
    for (std::uint64_t part : {x.incarnation, std::uint64_t{x.hub}, x.stream})
      seed = (seed ^ part) * 0x9E3779B97F4A7C15ull;
    return seed ^ (seed >> 29);
  }
};

} // namespace llumnix
