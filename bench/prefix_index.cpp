#include "runtime/scheduling/prefix_index.hpp"

#define XXH_INLINE_ALL
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <random>
#include <string>
#include <vector>
#include <xxhash.h>

/// CPU time of the prefix index, beside its floor: hashing the same blocks in a chain, which every
/// index of prefixes has to do. Each line is the best of several runs, as what disturbs a run only
/// ever adds to it.
///
/// Engines hold a few system prompts of 64 blocks, each only up to some depth, and conversations of
/// 64 more blocks, each on up to three engines. Prompts are looked up in turn, so that most of what
/// a match reads has left the nearest cache.
///
///     nothing in common   the first block is unknown
///     conversations       everyone drops out on the way, but for those of the conversation
///     held by all         nobody drops out at all
namespace {

using namespace llumnix;

constexpr int runs = 7;
constexpr std::size_t block_tokens = 16;
constexpr std::size_t shared_blocks = 64;
constexpr std::size_t prompt_blocks = 128;
constexpr std::size_t systems = 16;
constexpr std::size_t conversations = 512;

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

template <class T>
void keep(T& x) {
  asm volatile("" : : "r"(&x) : "memory");
}

/// CPU nanoseconds per call of `work`, which is told how often it was called before.
template <class Work>
double measure(std::size_t calls, Work work) {
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    auto begin = cpu_ns();
    for (std::size_t call = 0; call < calls; ++call)
      work(call);
    best = std::min(best, (cpu_ns() - begin) / static_cast<double>(calls));
  }
  return best;
}

using prompt = std::vector<token_id>;

prompt random_tokens(std::size_t blocks, std::mt19937_64& chance) {
  prompt tokens(blocks * block_tokens);
  for (auto& token : tokens)
    token = static_cast<token_id>(chance() % 150'000);
  return tokens;
}

std::string name_of(std::size_t i) {
  return fmt::format("engine-{}", i);
}

/// What an engine calls a block: as vLLM, a hash of all it holds.
std::vector<std::uint64_t> hashes_of(const prompt& tokens, std::size_t blocks) {
  std::vector<std::uint64_t> hashes;
  std::uint64_t hash = 1;
  for (std::size_t i = 0; i < blocks; ++i)
    hashes.push_back(
      hash
      = XXH3_64bits_withSeed(&tokens[i * block_tokens], block_tokens * sizeof(token_id), hash));
  return hashes;
}

void store(prefix_index& index, std::size_t instance, const prompt& tokens, std::size_t blocks) {
  auto hashes = hashes_of(tokens, blocks);
  index.stored(
    name_of(instance),
    {hashes, {}, std::span{tokens}.first(blocks * block_tokens), block_tokens, 0, {}});
}

struct fleet {
  prefix_index index{{.max_blocks = 4'000'000, .max_instances = 4'096, .seed = 7}};
  std::vector<prompt> known;   ///< conversations
  std::vector<prompt> unknown; ///< nobody has seen
  std::vector<prompt> common;  ///< everyone has all of them
};

fleet make_fleet(std::size_t instances) {
  std::mt19937_64 chance{1};
  fleet made;
  std::vector<prompt> starts;
  for (std::size_t i = 0; i < systems; ++i)
    starts.push_back(random_tokens(shared_blocks, chance));
  for (std::size_t i = 0; i < conversations; ++i) {
    auto tokens = starts[i % systems];
    auto rest = random_tokens(prompt_blocks - shared_blocks, chance);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    made.known.push_back(tokens);
    made.unknown.push_back(random_tokens(prompt_blocks, chance));
  }
  for (std::size_t i = 0; i < 8; ++i)
    made.common.push_back(random_tokens(prompt_blocks, chance));
  for (std::size_t instance = 0; instance < instances; ++instance) {
    for (const auto& start : starts)
      if (chance() % 2 == 0)
        store(made.index, instance, start, 1 + chance() % shared_blocks);
    for (const auto& tokens : made.common)
      store(made.index, instance, tokens, prompt_blocks);
  }
  for (const auto& tokens : made.known)
    for (std::size_t copies = 1 + chance() % 3; copies > 0; --copies)
      store(made.index, chance() % instances, tokens, prompt_blocks);
  return made;
}

double floor_of(const std::vector<prompt>& prompts) {
  return measure(4'096, [&](std::size_t call) {
    std::uint64_t hash = 1;
    const auto& tokens = prompts[call % prompts.size()];
    for (std::size_t i = 0; i < prompt_blocks; ++i)
      hash = XXH3_64bits_withSeed(&tokens[i * block_tokens], block_tokens * sizeof(token_id), hash);
    keep(hash);
  });
}

double match(prefix_index& index, const std::vector<prompt>& prompts) {
  std::vector<std::uint32_t> held;
  return measure(4'096, [&](std::size_t call) {
    index.match(prompts[call % prompts.size()], 0, held);
    keep(held);
  });
}

void print_matches() {
  fmt::print(
    "CPU ns to match a prompt of {} blocks, and how many times the floor\n", prompt_blocks);
  fmt::print(
    "{:>9} {:>9} {:>8} {:>20} {:>18} {:>18}\n", "instances", "blocks", "floor", "nothing in common",
    "conversations", "held by all");
  for (std::size_t instances : {16, 256, 1'000, 4'000}) {
    auto cluster = make_fleet(instances);
    auto floor = floor_of(cluster.known);
    auto against_floor = [&](double ns) { return fmt::format("{:.0f} ({:.1f}x)", ns, ns / floor); };
    fmt::print(
      "{:>9} {:>9} {:>8.0f} {:>20} {:>18} {:>18}\n", instances, cluster.index.blocks(), floor,
      against_floor(match(cluster.index, cluster.unknown)),
      against_floor(match(cluster.index, cluster.known)),
      against_floor(match(cluster.index, cluster.common)));
  }
}

/// Millions of events a second, each of `blocks` blocks: prompts come and go on 1000 engines, half
/// of them known to others; the index is full in the end, and evicts.
void print_events(std::size_t blocks) {
  constexpr std::size_t instances = 1'000;
  constexpr std::size_t prompts = 4'096;
  constexpr std::size_t rounds = 4;
  std::mt19937_64 chance{2};
  std::vector<prompt> texts;
  std::vector<std::vector<std::uint64_t>> hashes;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < prompts; ++i) {
    texts.push_back(random_tokens(prompt_blocks, chance));
    hashes.push_back(hashes_of(texts.back(), prompt_blocks));
  }
  for (std::size_t i = 0; i < instances; ++i)
    names.push_back(name_of(i));
  auto per_prompt = prompt_blocks / blocks;
  double best_stored = 1e300;
  double best_removed = 1e300;
  double evicting = 1e300;
  for (bool full : {false, true}) {
    prefix_index index{{.max_blocks = full ? 500'000u : 4'000'000u, .seed = 7}};
    for (std::size_t round = 0; round < rounds; ++round) {
      auto begin = cpu_ns();
      for (std::size_t i = 0; i < prompts; ++i)
        for (std::size_t at = 0; at < prompt_blocks; at += blocks) {
          auto parent = at == 0 ? std::nullopt : std::optional{hashes[i][at - 1]};
          index.stored(
            names[(i * 7 + round / 2) % instances],
            {std::span{hashes[i]}.subspan(at, blocks),
             parent,
             std::span{texts[i]}.subspan(at * block_tokens, blocks * block_tokens),
             block_tokens,
             0,
             {}});
        }
      auto middle = cpu_ns();
      if (full) {
        evicting = std::min(evicting, middle - begin);
        for (auto& tokens : texts) // new prompts next time, under the same names
          ++tokens[0];
        continue;
      }
      best_stored = std::min(best_stored, middle - begin);
      if (round % 2 == 0)
        continue; // first others store the same, then all of it goes
      middle = cpu_ns();
      for (std::size_t i = 0; i < prompts; ++i)
        for (auto at = prompt_blocks; at > 0; at -= blocks)
          index.removed(
            names[(i * 7 + round / 2) % instances],
            std::span{hashes[i]}.subspan(at - blocks, blocks));
      best_removed = std::min(best_removed, cpu_ns() - middle);
    }
  }
  auto floor = measure(prompts, [&](std::size_t call) {
    std::uint64_t hash = 1;
    for (std::size_t i = 0; i < prompt_blocks; ++i)
      hash = XXH3_64bits_withSeed(
        &texts[call][i * block_tokens], block_tokens * sizeof(token_id), hash);
    keep(hash);
  });
  auto per_second = [&](double ns) {
    return fmt::format("{:.2f}", 1e3 * static_cast<double>(prompts * per_prompt) / ns);
  };
  fmt::print(
    "{:>9} {:>8} {:>20} {:>18} {:>18}\n", blocks, per_second(floor * static_cast<double>(prompts)),
    per_second(best_stored), per_second(evicting), per_second(best_removed));
}

} // namespace

int main() {
  print_matches();
  fmt::print("\nMillions of events a second of CPU time, at 1000 engines\n");
  fmt::print(
    "{:>9} {:>8} {:>20} {:>18} {:>18}\n", "blocks", "floor", "stored", "stored, full", "removed");
  for (std::size_t blocks : {1, 4, 16})
    print_events(blocks);
}
