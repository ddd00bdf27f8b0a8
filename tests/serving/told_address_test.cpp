#include "runtime/cluster/told_address.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

TEST_CASE("instances are told at an address that others reach, or without an RPC service") {
  struct row {
    const char* name;
    std::string node, rpc;
    told_address told;
  };
  for (const auto& [name, node, rpc, told] : {
         row{"no service", "10.0.0.5:7000", "", {"10.0.0.5", 0}},
         row{"one machine", "127.0.0.1:7000", "127.0.0.1:9000", {"127.0.0.1", 9000}},
         row{"one machine, IPv6", "[::1]:7000", "[::1]:9000", {"::1", 9000}},
         row{"one machine, by name", "localhost:7000", "localhost:9000", {"127.0.0.1", 9000}},
         row{"loopback alone", "10.0.0.5:7000", "127.0.0.1:9000", {"10.0.0.5", 0}},
         row{"loopback by name", "10.0.0.5:7000", "localhost:9000", {"10.0.0.5", 0}},
         row{"loopback, IPv6", "engine-7:7000", "[::1]:9000", {"engine-7", 0}},
         row{"loopback, node anywhere", "0.0.0.0:7000", "127.0.0.1:9000", {"0.0.0.0", 0}},
         row{"every address", "10.0.0.5:7000", "0.0.0.0:9000", {"10.0.0.5", 9000}},
         row{"every address, IPv6", "[fd00::5]:7000", "[::]:9000", {"fd00::5", 9000}},
         row{"every address, by name", "engine-7:7000", "0.0.0.0:9000", {"engine-7", 9000}},
         row{"every address of one machine", "127.0.0.1:7000", "0.0.0.0:9000", {"127.0.0.1", 9000}},
         row{"every address of who knows where", "0.0.0.0:7000", "0.0.0.0:9000", {"0.0.0.0", 0}},
         row{"an address of its own", "10.0.0.5:7000", "10.1.0.5:9000", {"10.1.0.5", 9000}},
         row{"its own, node on loopback", "127.0.0.1:7000", "10.1.0.5:9000", {"10.1.0.5", 9000}},
       }) {
    CAPTURE(name);
    auto found = address_to_tell(node, rpc);
    CHECK(found.ip == told.ip);
    CHECK(found.rpc_port == told.rpc_port);
  }
}
