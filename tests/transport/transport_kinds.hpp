#pragma once

#include "tests/transport/transport_fixture.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <memory>
#include <string>
#include <vector>

namespace llumnix::testing {

/// A way to bytes, and how to make two ends of it in this process.
struct transport_kind {
  std::string name;
  std::function<std::unique_ptr<kv_transport>()> make; ///< one end; all can reach each other
};
/// Those that a test program is about: loopback_kinds.cpp, ucx_kinds.cpp.
std::vector<transport_kind> transport_kinds();

/// Settings that fail fast.
ucx_settings impatient_ucx(bool same_host);
/// REQUIREs that it can be made.
std::unique_ptr<kv_transport> make_ucx(const ucx_settings& settings);

/// Two ends with a region each, the source's filled with seed 1 and its window open.
struct transport_pair {
  transport_pair(const transport_kind& kind, std::size_t source_bytes, std::size_t own_bytes);

  ending pull(std::vector<kv_span> spans, nanoseconds deadline = 10s);
  ending pull(std::vector<kv_span> spans, kv_transport::job_id& job);

  static constexpr handover_id key{0x1111, 0x2222};
  std::unique_ptr<kv_transport> source, own;
  std::vector<std::byte> there, here;
  kv_transport::region_id from = 0, into = 0;
};

} // namespace llumnix::testing
