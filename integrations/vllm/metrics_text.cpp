#include "integrations/vllm/metrics_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

namespace llumnix {
namespace {

constexpr std::size_t labels_max = 256;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Walks over a line; what it takes is gone from its front.
struct scanner {
  std::string_view rest;

  void skip_blanks() { rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size())); }

  bool take(char wanted) {
    if (!rest.starts_with(wanted))
      return false;
    rest.remove_prefix(1);
    return true;
  }

  /// Empty if none is there.
  std::string_view take_name(bool colons) {
    auto ends = std::find_if_not(rest.begin(), rest.end(), [&](char c) {
      return is_letter(c) || is_digit(c) || (colons && c == ':');
    });
    auto name = rest.substr(0, static_cast<std::size_t>(ends - rest.begin()));
    if (!name.empty() && is_digit(name.front()))
      return {};
    rest.remove_prefix(name.size());
    return name;
  }

  std::optional<std::string> take_quoted() {
    if (!take('"'))
      return std::nullopt;
    std::string text;
    while (!rest.empty()) {
      char c = rest.front();
      rest.remove_prefix(1);
      if (c == '"')
        return text;
      if (c == '\\') {
        if (rest.empty())
          return std::nullopt;
        c = rest.front();
        rest.remove_prefix(1);
        if (c == 'n')
          c = '\n';
        else if (c != '\\' && c != '"')
          return std::nullopt;
      }
      text += c;
    }
    return std::nullopt;
  }

  /// A decimal, an infinity or NaN that a blank or the end follows.
  std::optional<double> take_number() {
    auto word = rest.substr(0, rest.find_first_of(" \t"));
    rest.remove_prefix(word.size());
    if (word.starts_with('+')) {
      word.remove_prefix(1);
      if (word.starts_with('-'))
        return std::nullopt;
    }
    double value = 0;
    auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (word.empty() || failure != std::errc{} || end != word.data() + word.size())
      return std::nullopt;
    return value;
  }
};

/// What stands between braces, and the closing one.
bool take_labels(scanner& line, metric_sample& sample) {
  for (;;) {
    line.skip_blanks();
    if (line.take('}'))
      return true; // also after a last comma
    auto name = line.take_name(false);
    line.skip_blanks();
    if (name.empty() || !line.take('=') || sample.labels.size() == labels_max)
      return false;
    line.skip_blanks();
    auto value = line.take_quoted();
    if (!value)
      return false;
    sample.labels.emplace_back(name, std::move(*value));
    line.skip_blanks();
    if (!line.take(','))
      return line.take('}');
  }
}

/// After the value: nothing, a timestamp, an exemplar (whose inside is of no concern), or both.
bool ends_well(scanner& line) {
  line.skip_blanks();
  if (line.rest.empty() || line.rest.starts_with('#'))
    return true;
  if (!line.take_number())
    return false;
  line.skip_blanks();
  return line.rest.empty() || line.rest.starts_with('#');
}

enum class quantity { running, waiting, kv_usage, kv_tokens };

struct series {
  std::string_view name;
  quantity of;
};

/// The first of a quantity's names that a page has counts. Newer SGLangs write no colons.
constexpr std::array all_series{
  series{"vllm:num_requests_running", quantity::running},
  series{"sglang:num_running_reqs", quantity::running},
  series{"sglang_num_running_reqs", quantity::running},
  series{"vllm:num_requests_waiting", quantity::waiting},
  series{"sglang:num_queue_reqs", quantity::waiting},
  series{"sglang_num_queue_reqs", quantity::waiting},
  series{"vllm:kv_cache_usage_perc", quantity::kv_usage},
  series{"vllm:gpu_cache_usage_perc", quantity::kv_usage},
  series{"sglang:token_usage", quantity::kv_usage},
  series{"sglang_token_usage", quantity::kv_usage},
  series{"vllm:cache_config_info", quantity::kv_tokens},
  series{"sglang:max_total_num_tokens", quantity::kv_tokens},
  series{"sglang_max_total_num_tokens", quantity::kv_tokens},
};

struct total {
  double sum = 0;
  std::size_t samples = 0;
};

/// Of a label that holds a count.
std::optional<double> count_of(const std::string* text) {
  if (!text)
    return std::nullopt;
  std::uint64_t count = 0;
  auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), count);
  if (text->empty() || failure != std::errc{} || end != text->data() + text->size())
    return std::nullopt;
  return static_cast<double>(count);
}

/// What a sample adds to its series; vLLM tells its KV blocks as labels.
std::optional<double> worth(const metric_sample& sample) {
  if (sample.name == "vllm:cache_config_info") {
    auto size = count_of(sample.label("block_size"));
    auto blocks = count_of(sample.label("num_gpu_blocks"));
    return size && blocks ? std::optional{*size * *blocks} : std::nullopt;
  }
  return std::isfinite(sample.value) && sample.value >= 0 ? std::optional{sample.value}
                                                          : std::nullopt;
}

using totals = std::array<total, all_series.size()>;

const total* find_total(const totals& all, quantity wanted) {
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all_series[i].of == wanted && all[i].samples > 0)
      return &all[i];
  return nullptr;
}

std::optional<std::int32_t> count(const totals& all, quantity wanted) {
  const auto* found = find_total(all, wanted);
  if (!found)
    return std::nullopt;
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  return static_cast<std::int32_t>(std::round(std::min(found->sum, most)));
}

std::optional<double> share(const totals& all, quantity wanted) {
  const auto* found = find_total(all, wanted);
  if (!found)
    return std::nullopt;
  return std::min(found->sum / static_cast<double>(found->samples), 1.0);
}

/// The index in `all_series` of the series that a line begins with; their number if it is another.
std::size_t series_of(std::string_view line) {
  scanner start{line};
  start.skip_blanks();
  auto name = start.take_name(true);
  auto found = std::find_if(
    all_series.begin(), all_series.end(), [&](const series& each) { return each.name == name; });
  return static_cast<std::size_t>(found - all_series.begin());
}

constexpr std::size_t adapters_max = 256;
constexpr std::size_t adapter_bytes_max = 256;

/// The LoRAs in use: vLLM tells them as labels, and when as the value. Series of earlier times stay
/// on the page.
class adapters_in_use {
public:
  static constexpr std::string_view name = "vllm:lora_requests_info";

  void hear(const metric_sample& sample) {
    if (!(sample.value >= told_at_))
      return;
    if (sample.value > told_at_)
      names_.clear(); // of equal times, ranks tell theirs
    told_at_ = sample.value;
    for (auto label : {"running_lora_adapters", "waiting_lora_adapters"})
      if (const auto* list = sample.label(label))
        add(*list);
  }
  std::vector<std::string> take() && { return {names_.begin(), names_.end()}; }

private:
  void add(std::string_view list) {
    while (!list.empty() && names_.size() < adapters_max) {
      auto one = list.substr(0, list.find(','));
      list.remove_prefix(std::min(one.size() + 1, list.size()));
      if (!one.empty() && one.size() <= adapter_bytes_max)
        names_.emplace(one);
    }
  }

  std::set<std::string> names_;
  double told_at_ = 0;
};

} // namespace

const std::string* metric_sample::label(std::string_view label_name) const {
  for (const auto& [name_of, text] : labels)
    if (name_of == label_name)
      return &text;
  return nullptr;
}

std::optional<metric_sample> read_sample(std::string_view text) {
  scanner line{text};
  metric_sample sample;
  line.skip_blanks();
  sample.name = line.take_name(true);
  auto after_name = line.rest.size();
  line.skip_blanks();
  if (sample.name.empty())
    return std::nullopt;
  if (line.take('{')) {
    if (!take_labels(line, sample))
      return std::nullopt;
  } else if (line.rest.size() == after_name) {
    return std::nullopt; // no blank between name and value
  }
  line.skip_blanks();
  auto value = line.take_number();
  if (!value || !ends_well(line))
    return std::nullopt;
  sample.value = *value;
  return sample;
}

result<engine_load> read_engine_load(std::string_view page) {
  totals all;
  adapters_in_use adapters;
  bool has_text = false;
  bool has_sample = false;
  while (!page.empty()) {
    auto line = page.substr(0, page.find('\n'));
    page.remove_prefix(std::min(line.size() + 1, page.size()));
    if (line.ends_with('\r'))
      line.remove_suffix(1);
    auto first = line.find_first_not_of(" \t");
    if (first == std::string_view::npos || line[first] == '#')
      continue;
    has_text = true;
    auto which = series_of(line);
    bool of_adapters = line.substr(first).starts_with(adapters_in_use::name);
    if (which == all_series.size() && has_sample && !of_adapters)
      continue; // of no concern, whatever it is
    auto sample = read_sample(line);
    if (!sample)
      continue;
    has_sample = true;
    if (of_adapters && sample->name == adapters_in_use::name)
      adapters.hear(*sample);
    if (which == all_series.size())
      continue;
    if (auto value = worth(*sample)) {
      all[which].sum += *value;
      ++all[which].samples;
    }
  }
  if (has_text && !has_sample)
    return {errc::bad_message, "no line of the page is a metric"};
  return engine_load{
    count(all, quantity::running), count(all, quantity::waiting), share(all, quantity::kv_usage),
    count(all, quantity::kv_tokens), std::move(adapters).take()};
}

} // namespace llumnix
