#pragma once

#include <string>
#include <string_view>

namespace llumnix::net {

/// Metrics in the format that a scraper wants.
struct metrics_page {
  std::string_view content_type;
  std::string body;
};

/// `text`, in the Prometheus text format 0.0.4, as an `accept` header asks for it: as OpenMetrics
/// 1.0.0 where that is named and wanted at least as much as the older format, else as it is. Called
/// by whoever serves `/metrics`.
metrics_page make_metrics_page(std::string_view accept, std::string text);

/// The same metrics, of which none has a timestamp, in the OpenMetrics text format: families of
/// counters are named without the `_total` of their samples; where that cannot be, or another
/// family has the name, they are of unknown type. A unit is told where a name ends in it, bounds of
/// histograms are floats, and there is an end.
std::string to_openmetrics(std::string_view text);

} // namespace llumnix::net
