#include "config/load_config.hpp"
#include "config/notation.hpp"

#include <doctest/doctest.h>

#include <tuple>

namespace llumnix {

TEST_CASE("durations are read with their unit and written in their shortest form") {
  using row = std::tuple<const char*, long long, const char*>; // text, milliseconds, written
  for (auto [text, count, written] :
       {row{"250ms", 250, "250ms"}, row{"10s", 10'000, "10s"}, row{"2m", 120'000, "2m"},
        row{"1h", 3'600'000, "1h"}, row{"1.5s", 1500, "1500ms"}, row{"60s", 60'000, "1m"},
        row{"0.25s", 250, "250ms"}, row{"0ms", 0, "0ms"}, row{"0h", 0, "0ms"}}) {
    CAPTURE(text);
    milliseconds value{-1};
    CHECK(parse_duration(text, value));
    CHECK(value.count() == count);
    CHECK(format_duration(value) == written);
  }
}

TEST_CASE("what is no duration leaves the value alone") {
  for (auto text :
       {"", "10", "ms", "-1s", "1.s", ".5s", "1.2.3s", "0.5ms", "10 s", "10S", "1d", "1e3ms",
        "9223372036854775807s", "99999999999999999999ms", "1.0000001s"}) {
    CAPTURE(text);
    milliseconds value{7};
    CHECK_FALSE(parse_duration(text, value));
    CHECK(value == milliseconds{7});
  }
}

TEST_CASE("sizes are read with binary and decimal units and written with binary ones") {
  using row = std::tuple<const char*, std::size_t, const char*>; // text, bytes, written
  for (auto [text, bytes, written] :
       {row{"100", 100, "100"}, row{"64KiB", 65536, "64KiB"}, row{"2GiB", 2147483648u, "2GiB"},
        row{"8MB", 8'000'000, "8000000"}, row{"1.5KiB", 1536, "1536"}, row{"0", 0, "0"},
        row{"7B", 7, "7"}, row{"1024", 1024, "1KiB"}}) {
    CAPTURE(text);
    std::size_t value = 1;
    CHECK(parse_size(text, value));
    CHECK(value == bytes);
    CHECK(format_size(value) == written);
  }
  for (auto text : {"", "KiB", "-1", "4 potatoes", "1kb", "0.3B", "9999999999TiB", "0x10"}) {
    CAPTURE(text);
    std::size_t value = 7;
    CHECK_FALSE(parse_size(text, value));
    CHECK(value == 7);
  }
}

TEST_CASE("numbers are written so that they read back to themselves") {
  CHECK(format_number(0.1) == "0.1");
  CHECK(format_number(8192) == "8192");
  CHECK(format_number(-1.5) == "-1.5");
}

TEST_CASE("addresses are split at their last colon") {
  using row = std::tuple<const char*, const char*, int>; // address, host, port
  for (auto [address, host, port] :
       {row{"127.0.0.1:8089", "127.0.0.1", 8089}, row{"[::1]:80", "::1", 80},
        row{"head.local:0", "head.local", 0}, row{"localhost:65535", "localhost", 65535}}) {
    CAPTURE(address);
    std::string got_host;
    std::uint16_t got_port = 1;
    CHECK(split_address(address, got_host, got_port));
    CHECK(got_host == host);
    CHECK(got_port == port);
  }
  for (auto address :
       {"", "host", ":80", "host:", "host:65536", "host:-1", "host:8x", "::1:80", "[]:80",
        "[::1:80", "http://host:80", "user@host:80", "a b:80"}) {
    CAPTURE(address);
    std::string host = "kept";
    std::uint16_t port = 1;
    CHECK_FALSE(split_address(address, host, port));
    CHECK(host == "kept");
  }
}

TEST_CASE("an engine's URL names its address") {
  using row = std::pair<const char*, const char*>;
  for (auto [url, address] :
       {row{"http://127.0.0.1:8000", "127.0.0.1:8000"},
        row{"http://gpu-1.local:80/", "gpu-1.local:80"}, row{"HTTP://GPU:080", "gpu:80"},
        row{"http://[::1]:8000", "[::1]:8000"}, row{"http://[FE80::1]:8000/", "[fe80::1]:8000"},
        row{"127.0.0.1:8000", ""}, row{"https://a:1", ""}, row{"http://a:1/v1", ""},
        row{"http:/a:1", ""}, row{"", ""}}) {
    CAPTURE(url);
    CHECK(engine_address(url) == address);
  }
}

TEST_CASE("localhost is one place by both of its usual names") {
  using row = std::pair<const char*, const char*>;
  for (auto [address, place] :
       {row{"localhost:80", "127.0.0.1:80"}, row{"127.0.0.1:80", "127.0.0.1:80"},
        row{"[::1]:80", "[::1]:80"}, row{"localhost.example.org:80", "localhost.example.org:80"},
        row{"a:80", "a:80"}}) {
    CAPTURE(address);
    CHECK(place_of(address) == place);
  }
}

TEST_CASE("only what cannot leave this machine is loopback") {
  using row = std::pair<const char*, bool>;
  for (auto [address, expected] :
       {row{"127.0.0.1:1", true}, row{"127.255.0.9:1", true}, row{"localhost:1", true},
        row{"[::1]:1", true}, row{"0.0.0.0:1", false}, row{"[::]:1", false},
        row{"10.0.0.1:1", false}, row{"128.0.0.1:1", false}, row{"127.0.0.1.example.org:1", false},
        row{"127.example.org:1", false}, row{"127.0.0:1", false}, row{"127.0.0.256:1", false},
        row{"1127.0.0.1:1", false}, row{"127.0.0.1", false}, row{"", false}}) {
    CAPTURE(address);
    CHECK(is_loopback(address) == expected);
  }
}

} // namespace llumnix
