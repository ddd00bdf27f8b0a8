#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

ucx_settings impatient_ucx(bool same_host) {
  ucx_settings settings;
  settings.cluster_key = "a key of tests";
  settings.same_host = same_host;
  settings.connect_within = 500ms;
  settings.heartbeat_every = 100ms;
  settings.silence_max = 600ms;
  settings.quiesce_within = 100ms;
  return settings;
}

std::unique_ptr<kv_transport> make_ucx(const ucx_settings& settings) {
  auto made = make_ucx_transport(settings);
  REQUIRE_MESSAGE(made.has_value(), (made ? "" : to_string(made.error())));
  return std::move(*made);
}

std::vector<transport_kind> transport_kinds() {
  return {
    {"UCX over TCP", [] { return make_ucx(impatient_ucx(false)); }},
    {"direct reading", [] { return make_ucx(impatient_ucx(true)); }}};
}

} // namespace llumnix::testing
