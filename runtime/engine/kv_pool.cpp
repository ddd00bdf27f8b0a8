#include "runtime/engine/kv_pool.hpp"

#include "runtime/engine/modeled_tokens.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <sys/mman.h>
#include <unistd.h>

namespace llumnix {

namespace {

constexpr std::uint64_t unused_pattern = 0xDEADC0DEDEADC0DEull;
constexpr double gibibyte = 1024.0 * 1024 * 1024;

/// Bytes of the machine's memory, used or not.
double physical_memory() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES))
         * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

} // namespace

result<kv_pool>
kv_pool::make(std::uint32_t blocks, std::uint32_t block_tokens, std::uint32_t bytes_per_token) {
  // Three factors of 32 bits may overflow 64; a gibibyte more or less does not matter here.
  auto size = static_cast<double>(blocks) * block_tokens * bytes_per_token;
  auto refused = [&](const std::string& why) {
    return error{
      errc::out_of_blocks,
      fmt::format(
        "engine.blocks: the KV pool of {} blocks needs {:.1f} GiB, {}; lower engine.blocks or "
        "engine.kv_bytes_per_token ({})",
        blocks, size / gibibyte, why, bytes_per_token)};
  };
  // The system would promise more than it has, and kill the process once it is asked for it.
  if (auto memory = physical_memory(); size > memory)
    return refused(fmt::format("and this machine has {:.1f} GiB of memory", memory / gibibyte));
  auto* memory = mmap(
    nullptr, std::size_t{blocks} * block_tokens * bytes_per_token, PROT_READ | PROT_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return refused("which the system refuses to this process (ulimit -v)");
  return kv_pool{
    static_cast<std::uint64_t*>(memory), blocks, block_tokens,
    bytes_per_token / static_cast<std::uint32_t>(sizeof(std::uint64_t))};
}

kv_pool::kv_pool(kv_pool&& other) noexcept
  : data_{std::exchange(other.data_, nullptr)},
    blocks_{other.blocks_},
    block_tokens_{other.block_tokens_},
    words_{other.words_} {}

kv_pool& kv_pool::operator=(kv_pool&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(blocks_, other.blocks_);
  std::swap(block_tokens_, other.block_tokens_);
  std::swap(words_, other.words_);
  return *this;
}

kv_pool::~kv_pool() {
  if (data_ != nullptr)
    munmap(data_, bytes());
}

void kv_pool::write(block_index block, std::uint32_t offset, std::uint64_t digest) {
  auto* words = data_ + at(block, offset);
  words[0] = digest;
  for (std::uint32_t k = 1; k < words_; ++k)
    words[k] = modeled::mix(digest + k);
}

bool kv_pool::holds(block_index block, std::uint32_t offset, std::uint64_t digest) const {
  const auto* words = data_ + at(block, offset);
  for (std::uint32_t k = 0; k < words_; ++k)
    if (words[k] != modeled::kv_word(digest, k))
      return false;
  return true;
}

void kv_pool::spoil(block_index block, std::uint32_t offset) {
  for (auto& word : position(block, offset))
    word = ~word;
}

void kv_pool::overwrite(block_index block) {
  std::fill_n(data_ + at(block, 0), std::size_t{block_tokens_} * words_, unused_pattern);
}

} // namespace llumnix
