#include "net/metrics_page.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace llumnix::net {

TEST_CASE("metrics come in the format that is wanted most") {
  constexpr auto open_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
  constexpr auto plain_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
  struct row {
    const char* accept;
    bool open;
  };
  for (auto [accept, open] :
       {row{"", false},
        row{"*/*", false},
        row{"application/*", false},
        row{"text/plain", false},
        row{"application/json", false},
        row{"application/openmetrics-text", true},
        row{"Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", true},
        row{"application/openmetrics-text;version=0.0.1", false},
        row{"application/openmetrics-text;q=0", false},
        row{"application/openmetrics-text;q=0.0,*/*", false},
        row{"application/openmetrics-text;q=much", false},
        row{"application/openmetrics-text;q=inf", false},
        row{"application/openmetrics-text;q=nan", false},
        row{"application/openmetrics-text;q=-1", false},
        row{"application/openmetrics-text;q=1.0", true},
        row{"application/openmetrics-text, */*", true},
        row{"application/openmetrics-text;q=0.5, */*", false},
        row{"application/openmetrics-text;q=0.5, text/*", false},
        row{"application/openmetrics-text;q=0.5, text/plain;q=0.4, text/*, */*", true},
        row{"text/plain;version=0.0.4;q=0.5, application/openmetrics-text; q=0.4", false},
        row{"text/plain;version=0.0.4;q=0.5, application/openmetrics-text; q=0.5", true},
        row{"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0", true},
        row{";;,=,q", false}}) {
    CAPTURE(accept);
    auto page = make_metrics_page(accept, "a 1\n");
    CHECK(page.body == (open ? "a 1\n# EOF\n" : "a 1\n"));
    CHECK(page.content_type == (open ? open_type : plain_type));
  }
}

TEST_CASE("Prometheus gets OpenMetrics, unless it is set to the older format") {
  using row = std::pair<const char*, const char*>;
  for (auto [accept, type] :
       {row{
          "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
          "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
          "application/openmetrics-text"}, // 2.x
        row{
          "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
          "encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;"
          "escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
          "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,"
          "*/*;q=0.1",
          "application/openmetrics-text"}, // 3.x
        row{"text/plain;version=0.0.4;q=0.5,*/*;q=0.4", "text/plain"}}) {
    CAPTURE(accept);
    auto page = make_metrics_page(accept, "");
    CHECK(page.content_type.substr(0, page.content_type.find(';')) == type);
  }
}

TEST_CASE("the older format as OpenMetrics: names of counters, quotes, bounds, and an end") {
  struct row {
    const char* what;
    const char* given;
    const char* told;
  };
  for (auto [what, given, told] : {
         row{"nothing", "", ""},
         row{
           "a counter",
           "# HELP a_total All of \"it\".\n# TYPE a_total counter\na_total{b=\"c\"} 7\n",
           "# HELP a All of \\\"it\\\".\n# TYPE a counter\na_total{b=\"c\"} 7\n"},
         row{
           "a counter by another name", "# HELP a It.\n# TYPE a counter\na 7\n",
           "# HELP a It.\n# TYPE a unknown\na 7\n"},
         row{
           "two of one name", "# TYPE a histogram\na_count 1\n# TYPE a_total counter\na_total 7\n",
           "# TYPE a histogram\na_count 1\n# TYPE a_total unknown\na_total 7\n"},
         row{
           "a gauge", "# HELP a_total It.\n# TYPE a_total gauge\na_total 7\n",
           "# HELP a_total It.\n# TYPE a_total gauge\na_total 7\n"},
         row{"without a help", "# TYPE a gauge\na -Inf\n", "# TYPE a gauge\na -Inf\n"},
         row{"of no type", "# TYPE a untyped\na 1\n", "# TYPE a unknown\na 1\n"},
         row{"nothing but the ending", "# TYPE _total counter\n", "# TYPE _total unknown\n"},
         row{
           "a unit", "# TYPE a_seconds gauge\na_seconds 1\n",
           "# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 1\n"},
         row{
           "the unit of a counter", "# TYPE a_bytes_total counter\na_bytes_total 1\n",
           "# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n"},
         row{
           "no unit", "# TYPE kilobytes gauge\n# TYPE bytes gauge\n",
           "# TYPE kilobytes gauge\n# TYPE bytes gauge\n"},
         row{
           "a histogram",
           "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{x=\"le=\",le=\"10\"} 2\n"
           "h_bucket{le=\"+Inf\"} 2\nh_bucket{le=\"1e+06\"} 2\nh_sum 3\nh_count 2\n",
           "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{x=\"le=\",le=\"10.0\"} 2\n"
           "h_bucket{le=\"+Inf\"} 2\nh_bucket{le=\"1e+06\"} 2\nh_sum 3\nh_count 2\n"},
         row{"a label of that name elsewhere", "a{le=\"10\"} 1\n", "a{le=\"10\"} 1\n"},
         row{"a label that ends so", "h_bucket{role=\"10\"} 1\n", "h_bucket{role=\"10\"} 1\n"},
         row{"empty lines and comments", "\n# words\na 1\n\n", "a 1\n"},
         row{"no end of line", "a 1", "a 1\n"},
       }) {
    CAPTURE(what);
    CHECK(to_openmetrics(given) == std::string{told} + "# EOF\n");
  }
}

} // namespace llumnix::net
