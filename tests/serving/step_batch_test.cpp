#include "runtime/serving/step_batch.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

std::vector<token_delta> read_all(const std::vector<char>& bytes, errc expected) {
  std::vector<token_delta> all;
  auto outcome = read_step_batch(bytes, [&](const token_delta& delta) { all.push_back(delta); });
  CHECK((outcome ? errc::ok : outcome.error().code) == expected);
  return all;
}

token_delta plain() {
  return {
    .stream = 7,
    .epoch = 2,
    .start = 40,
    .tokens = {512, 1023},
    .logprobs = {},
    .finish = finish_reason::none,
    .cached_tokens = 16};
}

token_delta with_logprobs() {
  return {
    .stream = 1ull << 40,
    .epoch = 0,
    .start = 0,
    .tokens = {600},
    .logprobs = {{-0.5f, {{601, -1.0f}, {602, -1.5f}}}},
    .finish = finish_reason::length,
    .cached_tokens = 0};
}

} // namespace

TEST_CASE("what goes into a step batch comes out, in order") {
  step_batch batch;
  CHECK(batch.empty());
  token_delta only_end{
    .stream = 9,
    .epoch = 1,
    .start = 5,
    .tokens = {},
    .logprobs = {},
    .finish = finish_reason::abort};
  for (const auto& delta : {plain(), with_logprobs(), only_end})
    batch.add(delta);
  CHECK(batch.count() == 3);
  CHECK(
    read_all(batch.bytes(), errc::ok)
    == std::vector<token_delta>{plain(), with_logprobs(), only_end});
}

TEST_CASE("a batch cut anywhere gives whole deltas and an error, never a crash") {
  step_batch batch;
  batch.add(plain());
  auto first = batch.bytes().size();
  batch.add(with_logprobs());
  for (std::size_t size = 1; size < batch.bytes().size(); ++size) {
    CAPTURE(size);
    std::vector<char> cut(
      batch.bytes().begin(), batch.bytes().begin() + static_cast<std::ptrdiff_t>(size));
    auto read = read_all(cut, size == first ? errc::ok : errc::invalid_argument);
    CHECK(read.size() == (size >= first ? 1 : 0));
  }
}

TEST_CASE("a batch with an unknown finish reason is refused") {
  step_batch batch;
  batch.add(plain());
  batch.bytes()[22] = 17; // the finish byte
  CHECK(read_all(batch.bytes(), errc::invalid_argument).empty());
}

} // namespace llumnix
