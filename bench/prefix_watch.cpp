#include "actors/prefix_watch.hpp"

#include "runtime/base/assert.hpp"
#include "runtime/engine/modeled_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

/// CPU time that cache-aware placement adds: to an engine's step, to a gateway for each step that
/// it hears of, and to a placement. Each line is the best of several runs.
namespace {

using namespace llumnix;

constexpr int runs = 5;
constexpr std::size_t prompt_tokens = 2'048;
constexpr std::uint32_t block_tokens = 16;

double cpu_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e3;
}

std::vector<token_id> prompt(std::size_t number) {
  std::vector<token_id> tokens(prompt_tokens, 'a');
  tokens[0] = static_cast<token_id>(512 + number % 512);
  tokens[1] = static_cast<token_id>(512 + number / 512 % 512);
  return tokens;
}

/// Microseconds for a step that computes a prompt of 128 blocks, as the cache forgets as many.
double step_us(bool told) {
  engine_config config;
  config.speed = 0;
  config.blocks = 4'096;
  config.block_tokens = block_tokens;
  config.kv_bytes_per_token = 16;
  auto engine = *modeled_engine::make(config);
  engine->note_kv_changes(told);
  std::uint64_t number = 0;
  auto step = [&] {
    inference_request request;
    request.stream = {"head", 1, 0, ++number};
    request.text_id = "r";
    request.prompt = prompt(number);
    request.sampling.max_tokens = 1;
    if (!engine->submit(std::move(request)))
      return;
    engine->step({});
    engine->take_kv_changes();
  };
  for (int i = 0; i < 64; ++i)
    step();
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    auto begin = cpu_us();
    for (int i = 0; i < 200; ++i)
      step();
    best = std::min(best, (cpu_us() - begin) / 200);
  }
  return best;
}

struct fleet {
  explicit fleet(std::size_t instances) {
    for (std::size_t i = 0; i < instances; ++i) {
      auto id = fmt::format("engine-{}", i);
      watch.on_node({id, 1}, {{id, {}}});
      names.push_back(std::move(id));
    }
    watches.resize(instances);
    told.resize(instances);
    auto asked = watch.due(time_point{});
    std::vector<instance_id> in_order{names};
    std::sort(in_order.begin(), in_order.end());
    for (std::size_t i = 0; i < instances; ++i)
      watches[static_cast<std::size_t>(
        std::find(names.begin(), names.end(), in_order[i]) - names.begin())]
        = asked[i].watch;
  }
  /// What a step says that computes prompt `number`.
  kv_changes_msg word(std::size_t instance, std::size_t number) {
    kv_changes_msg msg{names[instance], watches[instance], told[instance]++, {}};
    auto tokens = prompt(number);
    auto name = [](std::size_t of, std::size_t block) { return of * 1'000 + block + 1; };
    msg.changes.block_tokens = block_tokens;
    if (number >= 512)
      for (std::size_t i = prompt_tokens / block_tokens; i > 0; --i)
        msg.changes.remove(name(number - 512, i - 1));
    for (std::size_t i = 0; i < prompt_tokens / block_tokens; ++i)
      msg.changes.store(
        i == 0 ? 0 : name(number, i - 1), name(number, i),
        std::span{tokens}.subspan(i * block_tokens, block_tokens));
    return msg;
  }

  prefix_watch watch{7};
  std::vector<instance_id> names;
  std::vector<std::uint64_t> watches;
  std::vector<std::uint64_t> told;
};

/// Microseconds to hear of such a step.
double hear_us() {
  fleet x{1};
  std::size_t number = 0;
  for (; number < 1'024; ++number)
    x.watch.hear(x.word(0, number));
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    std::vector<kv_changes_msg> words;
    for (int i = 0; i < 200; ++i)
      words.push_back(x.word(0, number++));
    auto begin = cpu_us();
    for (const auto& word : words)
      x.watch.hear(word);
    best = std::min(best, (cpu_us() - begin) / 200);
  }
  return best;
}

/// Microseconds to find who holds a prompt that `holders` of the instances have.
double find_us(std::size_t instances, std::size_t holders) {
  fleet x{instances};
  for (std::size_t i = 0; i < instances; ++i)
    x.watch.hear(x.word(i, i < holders ? 0 : 1 + i % 256));
  auto tokens = prompt(0);
  LLUMNIX_ASSERT(x.watch.find(tokens).instances.list().size() == holders);
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    auto begin = cpu_us();
    for (int i = 0; i < 500; ++i)
      x.watch.find(tokens);
    best = std::min(best, (cpu_us() - begin) / 500);
  }
  return best;
}

} // namespace

int main() {
  auto silent = step_us(false);
  fmt::print("CPU us, prompts of {} tokens in blocks of {}\n", prompt_tokens, block_tokens);
  fmt::print("{:<50} {:>8.1f}\n", "an engine's step that computes one, told to nobody", silent);
  fmt::print("{:<50} {:>8.1f}\n", "  noted for a listener, more", step_us(true) - silent);
  fmt::print("{:<50} {:>8.1f}\n", "a gateway hears of it: 128 blocks in, 128 out", hear_us());
  for (std::size_t instances : {4, 64, 1'000})
    for (std::size_t holders : {std::size_t{1}, instances})
      fmt::print(
        "{:<50} {:>8.1f}\n",
        fmt::format("a placement looks it up, on {} of {} instances", holders, instances),
        find_us(instances, holders));
}
