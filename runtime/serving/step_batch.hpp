#pragma once

#include "runtime/base/result.hpp"
#include "runtime/serving/request.hpp"

#include <functional>
#include <vector>

namespace llumnix {

/// The deltas one engine step produced for one hub, as bytes: CAF copies a byte vector whole but a
/// vector of structs element by element (3 ns against 15 ns and more a field). Little-endian, fixed
/// layout:
///
///     delta:  stream u64 | epoch u32 | start u32 | cached u32 | tokens u16 | finish u8 |
///     has_logprobs u8 then    token u32 each; with logprobs for each token: logprob f32 |
///     alternatives u16 | (id u32, f32) each
class step_batch {
public:
  /// Appends one delta. At most 65535 tokens a delta.
  void add(const token_delta& delta);
  bool empty() const { return bytes_.empty(); }
  std::uint32_t count() const { return count_; }

  std::vector<char>& bytes() { return bytes_; }
  const std::vector<char>& bytes() const { return bytes_; }

private:
  std::vector<char> bytes_;
  std::uint32_t count_ = 0;
};

/// Reads the deltas of `bytes` in order into one reused `token_delta`. Bytes come from another
/// process: fails with `invalid_argument` at the first that make no sense, after the deltas before
/// them.
result<void> read_step_batch(
  const std::vector<char>& bytes, const std::function<void(const token_delta&)>& each);

} // namespace llumnix
