#include "gateway/scheduler_api/scheduler_metrics.hpp"

#include "runtime/base/metric_bounds.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <sstream>
#include <utility>
#include <vector>

namespace llumnix::scheduler_api {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily family(std::string name, std::string help, MetricType type) {
  return {std::move(name), std::move(help), type, {}};
}

ClientMetric::Histogram to_histogram(const loop_histogram& observed) {
  ClientMetric::Histogram made;
  auto bounds = observed.bounds();
  for (std::size_t i = 0; i <= bounds.size(); ++i) {
    made.sample_count += observed.count(i);
    auto bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
    made.bucket.push_back({made.sample_count, bound});
  }
  made.sample_sum = observed.sum();
  return made;
}

} // namespace

std::string_view to_string(failure why) {
  switch (why) {
    case failure::no_available_endpoint: return "no_available_endpoint";
    case failure::cms_not_available: return "cms_not_available";
    case failure::scheduler_not_ready: return "scheduler_not_ready";
    case failure::unknown: return "unknown";
  }
  return "unknown";
}

scheduler_metrics::scheduler_metrics(time_point started)
  : started_{started}, duration_ms_{metric_bounds::stage_ms} {}

void scheduler_metrics::on_scheduled(nanoseconds duration) {
  scheduled_.add(1);
  duration_ms_.observe(request_probes::to_ms(duration));
}

void scheduler_metrics::on_failed(failure why, nanoseconds duration) {
  failed_[static_cast<std::size_t>(why)].add(1);
  duration_ms_.observe(request_probes::to_ms(duration));
}

std::string scheduler_metrics::text(time_point now) const {
  std::vector<MetricFamily> families;
  if (auto count = scheduled_.get(); count > 0) {
    families.push_back(family(
      "scheduler_scheduling_total", "Requests placed for other gateways", MetricType::Counter));
    families.back().metric.emplace_back().counter.value = static_cast<double>(count);
  }
  auto failed = family(
    "scheduler_scheduling_failed_total", "Requests not placed, by reason", MetricType::Counter);
  for (std::size_t i = 0; i < failed_.size(); ++i)
    if (auto count = failed_[i].get(); count > 0) {
      auto& metric = failed.metric.emplace_back();
      metric.label.push_back({"error_type", std::string{to_string(static_cast<failure>(i))}});
      metric.counter.value = static_cast<double>(count);
    }
  if (!failed.metric.empty())
    families.push_back(std::move(failed));
  if (auto took = to_histogram(duration_ms_); took.sample_count > 0) {
    families.push_back(family(
      "request_full_mode_schedule_duration_milliseconds",
      "Decision with the wait for it, in either mode", MetricType::Histogram));
    families.back().metric.emplace_back().histogram = std::move(took);
  }
  families.push_back(family("uptime_seconds", "Since the start of the process", MetricType::Gauge));
  families.back().metric.emplace_back().gauge.value
    = std::chrono::duration<double>(now - started_).count();
  std::ostringstream out;
  prometheus::TextSerializer{}.Serialize(out, families);
  return out.str();
}

} // namespace llumnix::scheduler_api
