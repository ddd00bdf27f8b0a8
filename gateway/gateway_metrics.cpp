#include "gateway/gateway_metrics.hpp"

#include "runtime/base/metric_bounds.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <sstream>

namespace llumnix {
namespace {

using loops = std::vector<std::unique_ptr<request_probes>>;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

/// Gathers the loops' numbers into families, skipping what was never recorded.
class collector {
public:
  collector(const loops& all, const std::string& model) : loops_{all}, model_{model} {}

  void requests() {
    MetricFamily family{"request_total", "Requests ended, by status", MetricType::Counter, {}};
    for (std::size_t i = 0; i < request_probes::statuses.size(); ++i) {
      double count = sum([i](const request_probes& x) { return x.total[i].get(); });
      if (count == 0)
        continue;
      auto& metric = add(family);
      metric.label.push_back({"status_code", std::to_string(request_probes::statuses[i])});
      metric.counter.value = count;
    }
    if (!family.metric.empty())
      families.push_back(std::move(family));
  }

  void
  counter(std::string name, std::string help, single_writer<std::uint64_t> request_probes::*probe) {
    double count = sum([probe](const request_probes& x) { return (x.*probe).get(); });
    if (count == 0)
      return;
    MetricFamily family{std::move(name), std::move(help), MetricType::Counter, {}};
    add(family).counter.value = count;
    families.push_back(std::move(family));
  }

  void gauge(std::string name, std::string help, double value) {
    MetricFamily family{std::move(name), std::move(help), MetricType::Gauge, {}};
    family.metric.emplace_back().gauge.value = value;
    families.push_back(std::move(family));
  }

  void histogram(std::string name, std::string help, loop_histogram request_probes::*probe) {
    ClientMetric::Histogram total;
    auto bounds = loops_.empty() ? std::span<const double>{} : ((*loops_.front()).*probe).bounds();
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= bounds.size() && !bounds.empty(); ++i) {
      for (const auto& loop : loops_)
        count += ((*loop).*probe).count(i);
      auto bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
      total.bucket.push_back({count, bound});
    }
    if (count == 0)
      return;
    total.sample_count = count;
    total.sample_sum = sum([probe](const request_probes& x) { return (x.*probe).sum(); });
    MetricFamily family{std::move(name), std::move(help), MetricType::Histogram, {}};
    add(family).histogram = std::move(total);
    families.push_back(std::move(family));
  }

  double current() const {
    return sum([](const request_probes& x) { return x.current.get(); });
  }

  std::vector<MetricFamily> families;

private:
  template <class Get>
  double sum(Get get) const {
    double total = 0;
    for (const auto& loop : loops_)
      total += static_cast<double>(get(*loop));
    return total;
  }

  ClientMetric& add(MetricFamily& family) const {
    auto& metric = family.metric.emplace_back();
    metric.label.push_back({"model", model_});
    return metric;
  }

  const loops& loops_;
  const std::string& model_;
};

} // namespace

request_probes::request_probes()
  : e2e_s{metric_bounds::e2e_s},
    ttft_ms{metric_bounds::ttft_ms},
    itl_ms{metric_bounds::token_ms},
    tpot_ms{metric_bounds::token_ms},
    preprocess_ms{metric_bounds::stage_ms},
    input_tokens{metric_bounds::tokens},
    output_tokens{metric_bounds::tokens} {}

void request_probes::on_started(nanoseconds preprocess) {
  current.add(1);
  preprocess_ms.observe(to_ms(preprocess));
}

void request_probes::on_ended(const request_outcome& outcome) {
  current.add(-1);
  auto status = std::find(statuses.begin(), statuses.end(), outcome.status);
  if (status == statuses.end())
    status = std::find(statuses.begin(), statuses.end(), 500);
  total[static_cast<std::size_t>(status - statuses.begin())].add(1);
  input_total.add(outcome.input_tokens);
  output_total.add(outcome.output_tokens);
  input_tokens.observe(static_cast<double>(outcome.input_tokens));
  output_tokens.observe(static_cast<double>(outcome.output_tokens));
  if (outcome.status == 200)
    e2e_s.observe(std::chrono::duration<double>(outcome.duration).count());
  if (!outcome.first_token)
    return;
  ttft_ms.observe(to_ms(*outcome.first_token));
  if (outcome.output_tokens > 1)
    tpot_ms.observe(
      to_ms(outcome.duration - *outcome.first_token)
      / static_cast<double>(outcome.output_tokens - 1));
}

request_probes& gateway_metrics::attach() {
  std::lock_guard lock{mutex_};
  return *loops_.emplace_back(std::make_unique<request_probes>());
}

std::string gateway_metrics::text(time_point now) const {
  std::lock_guard lock{mutex_};
  collector all{loops_, model_};
  using p = request_probes;
  all.requests();
  all.counter("request_input_tokens_total", "Prompt tokens", &p::input_total);
  all.counter("request_output_tokens_total", "Output tokens", &p::output_total);
  all.histogram(
    "request_e2e_latency_seconds", "Arrival to the end of the answer, status 200", &p::e2e_s);
  all.histogram(
    "request_ttft_milliseconds", "Arrival to the first token, where that was seen", &p::ttft_ms);
  all.histogram("request_itl_milliseconds", "Between two updates of a choice", &p::itl_ms);
  all.histogram("request_tpot_milliseconds", "Time per output token after the first", &p::tpot_ms);
  all.histogram(
    "request_preprocess_duration_milliseconds", "Parsing and tokenization", &p::preprocess_ms);
  all.histogram("request_input_tokens", "Prompt tokens per request", &p::input_tokens);
  all.histogram("request_output_tokens", "Output tokens per request", &p::output_tokens);
  all.gauge("gateway_current_requests", "Requests in flight, queued ones included", all.current());
  all.gauge(
    "uptime_seconds", "Since the start of the process",
    std::chrono::duration<double>(now - started_).count());
  std::ostringstream out;
  prometheus::TextSerializer{}.Serialize(out, all.families);
  return out.str();
}

} // namespace llumnix
