#pragma once

#include "runtime/engine/engine.hpp"

#include <map>
#include <vector>

namespace llumnix::testing {

/// What a client must receive for a request, computed from its ids alone and from scratch for each
/// token.
struct expected_output {
  std::vector<token_id> tokens; ///< those after `request.output`
  finish_reason finish = finish_reason::none;
};

/// At most `limit` tokens of it; `model_length` as in `engine_config::max_model_len`.
expected_output
expect(const inference_request& request, std::uint32_t model_length, std::size_t limit = 1'000'000);

/// A second, slow engine to hold the first against: no bytes, lists searched end to end, prefixes
/// compared id by id. It shares no code with the engine under test.
class second_engine {
public:
  struct limits {
    std::uint32_t blocks, block_tokens, seqs, batched_tokens, model_length;
    bool cache;
  };
  struct told {
    std::uint64_t stream;
    std::uint32_t start;
    std::vector<token_id> tokens;
    finish_reason finish;
    std::uint32_t cached;
    friend bool operator==(const told&, const told&) = default;
  };
  struct step_account {
    std::vector<told> outputs; ///< in order of service
    std::uint32_t prefill = 0, decode = 0, preemptions = 0;
  };

  explicit second_engine(limits how) : how_{how}, blocks_(how.blocks) {}
  void submit(const inference_request& request);
  void abort(std::uint64_t stream);
  void grant(std::uint64_t stream, std::uint32_t credit);
  step_account step();
  bool has_work() const;
  std::uint32_t free_blocks() const;
  std::size_t running() const;
  std::size_t waiting() const { return requests_.size() - running(); }

private:
  struct block {
    int references = 0;
    std::vector<token_id> prefix; ///< all ids up to its end; empty: not cached
    std::uint64_t freed = 0;      ///< when, counted
  };
  struct request {
    inference_request what;
    std::vector<token_id> ids;
    std::vector<std::size_t> table;
    std::uint32_t computed = 0, prefill = 0, cached = 0;
    bool running = false, ran_before = false, told_cached = false;
  };
  using order = std::pair<std::int32_t, std::uint64_t>;
  bool eligible(const request& x) const;
  int find_cached(const std::vector<token_id>& prefix) const;
  bool take(request& x, std::size_t fresh, const std::vector<std::size_t>& reused);
  void release(request& x);
  void run(request& x, std::uint32_t tokens, step_account& account);
  void preempt_last(step_account& account);
  void admit(step_account& account);

  limits how_;
  std::vector<block> blocks_;
  std::map<order, request> requests_; ///< in order of service
  std::uint64_t submitted_ = 0, frees_ = 0;
  std::uint32_t budget_ = 0;
  std::vector<std::pair<order, std::uint32_t>> scheduled_;
};

} // namespace llumnix::testing
