#include "runtime/scheduling/instance_gauges.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

TEST_CASE("in lite mode an instance has what was sent there, of which waits what gateways say") {
  using load = reported_requests::load;
  struct row {
    const char* what;
    inflight_load account;
    load reported;
    load shown;
  };
  for (const auto& [what, account, reported, shown] :
       {row{"idle", {}, {}, {}},
        row{"of gateways of ours alone: nobody says that it waits", {2, 2, 2, 30, 30}, {},
            {30, 0, 2, 0}},
        row{"one of each", {2, 2, 2, 30, 30}, {10, 10, 1, 1}, {30, 10, 2, 1}},
        row{"for its prefills", {1, 1, 0, 30, 0}, {30, 30, 1, 1}, {30, 30, 1, 1}},
        row{"for its decodes", {1, 0, 1, 0, 31}, {31, 0, 1, 0}, {31, 0, 1, 0}},
        row{"both stages of one request", {1, 1, 1, 30, 30}, {60, 60, 2, 2}, {30, 30, 1, 1}},
        row{"more than an account can count", {1, 1, 1, -5, -5}, {7, 7, 1, 1}, {0, 0, 1, 1}}}) {
    CAPTURE(what);
    auto x = requests_of(seen(neutral_instance("a"), idle_status("a")), account, reported);
    CHECK(load{x.tokens, x.waiting_tokens, x.requests, x.waiting_requests} == shown);
  }
}

TEST_CASE("gauges tell counts to the last token") {
  for (std::int32_t tokens : {0, -1, 16'777'217, 2'147'483'647}) {
    auto status = idle_status("a");
    status.num_used_gpu_tokens = tokens;
    inflight_load sent;
    sent.decode_tokens = tokens;
    auto x = gauges_of(seen(neutral_instance("a"), status), sent);
    CHECK(instance_gauge_names[0] == "used_gpu_tokens");
    CHECK(x.values[0] == tokens);
    CHECK(instance_gauge_names[19] == "tokens_inflight_dispatch_decode_requests");
    CHECK(x.values[19] == tokens);
  }
}

TEST_CASE("gauges name an instance by the address of its server, or by its id where it has none") {
  auto metadata = neutral_instance("a");
  auto name = [&] { return requests_of(seen(metadata, {}), {}, {}).address; };
  CHECK(name() == "a");
  metadata.ip = "10.0.0.7";
  CHECK(name() == "a");
  metadata.api_server_port = 8000;
  CHECK(name() == "10.0.0.7:8000");
  CHECK(requests_of(seen(metadata, {}), {}, {}).instance == "a");
  CHECK(requests_of(seen(metadata, {}), {}, {}).role == "neutral");
}

} // namespace llumnix::testing
