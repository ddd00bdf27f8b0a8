#include "integrations/discovery/base64.hpp"
#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/network_filter.hpp"

#include <doctest/doctest.h>

namespace llumnix {
namespace {

using text = std::string;

} // namespace

TEST_CASE("an address or name and a port become HOST:PORT, or nothing") {
  struct row {
    text host;
    std::int64_t port;
    text joined;
  };
  const row rows[] = {
    {"10.0.0.1", 8000, "10.0.0.1:8000"},
    {"fd00::1", 80, "[fd00::1]:80"},
    {"[FD00::1]", 80, "[fd00::1]:80"},
    {"::ffff:10.0.0.1", 1, "[::ffff:10.0.0.1]:1"},
    {"Engine-0.svc", 65535, "engine-0.svc:65535"},
    {"a_b", 1, "a_b:1"},
    {"", 80, ""},
    {"10.0.0.1", 0, ""},
    {"10.0.0.1", -1, ""},
    {"10.0.0.1", 65536, ""},
    {"10.0.0.1", INT64_MAX, ""},
    {"10.1", 80, ""},       // 10.0.0.1, the resolver would say
    {"2130706433", 80, ""}, // 127.0.0.1, likewise
    {"0x7f000001", 80, ""},
    {"127.0x1", 80, ""},
    {"10.0.0.256", 80, ""},
    {"010.0.0.1", 80, ""},
    {"fe80::1%eth0", 80, ""},
    {"[fd00::1", 80, ""},
    {"[engine]", 80, ""},
    {"a b", 80, ""},
    {"a/b", 80, ""},
    {"a:1", 80, ""},
    {"a@b", 80, ""},
    {"a\nb", 80, ""},
    {text{"10.0.0.1\0", 9}, 80, ""},
    {"a..b", 80, ""},
    {".a", 80, ""},
    {"a.", 80, "a.:80"},
    {text(64, 'a'), 80, ""},
    {text(63, 'a') + ".b", 80, text(63, 'a') + ".b:80"},
    {text(100000, 'a'), 80, ""},
    {"\xc3\xa4.svc", 80, ""},
  };
  for (const auto& [host, port, joined] : rows) {
    CAPTURE(host);
    CAPTURE(port);
    CHECK(join_host_port(host, port) == joined);
  }
  CHECK(host_of("[fd00::1]:80") == "fd00::1");
  CHECK(host_of("a:80") == "a");
}

TEST_CASE("a record may point into the networks and to the names it is allowed to") {
  const std::vector<text> networks{"127.0.0.0/8",     "10.0.0.0/8",   "192.168.4.4/31",
                                   "fc00::/7",        "::1",          "203.0.113.7",
                                   "0.0.0.0/32",      "engine-0.lan", ".svc",
                                   ".Cluster.Local.", "100.64.0.0/10"};
  auto parsed = parse_networks(networks);
  REQUIRE(parsed.problems.empty());
  struct row {
    text host;
    bool inside;
  };
  const row rows[] = {
    {"127.0.0.1", true},
    {"10.255.255.255", true},
    {"11.0.0.0", false},
    {"9.255.255.255", false},
    {"192.168.4.3", false},
    {"192.168.4.5", true},
    {"192.168.4.6", false},
    {"100.127.255.255", true},
    {"100.128.0.0", false},
    {"203.0.113.7", true},
    {"203.0.113.6", false},
    {"0.0.0.0", true},
    {"0.0.0.1", false},
    {"169.254.169.254", false}, // of a cloud, which hands out keys
    {"::ffff:10.0.0.1", true},
    {"::ffff:8.8.8.8", false},
    {"::10.0.0.1", false}, // no form of an IPv4 address any more
    {"fd12:3456::1", true},
    {"fe00::1", false},
    {"::1", true},
    {"[::1]", true},
    {"::", false},
    {"engine-0.lan", true},
    {"ENGINE-0.LAN.", true},
    {"engine-1.lan", false},
    {"x.engine-0.lan", false},
    {"a.svc", true},
    {"a.b.svc.", true},
    {"svc", false},
    {"asvc", false},
    {"a.svc.evil", false},
    {"a.cluster.local", true},
    {"127.1", false},
    {"", false},
    {"a.svc/x", false},
  };
  for (const auto& [host, inside] : rows) {
    CAPTURE(host);
    CHECK(parsed.filter.inside(host) == inside);
    CHECK_FALSE(network_filter{}.inside(host));
  }
  auto everything = parse_networks({"0.0.0.0/0", "::/0"});
  CHECK(everything.problems.empty());
  CHECK(everything.filter.inside("8.8.8.8"));
  CHECK(everything.filter.inside("2001:db8::1"));
  CHECK_FALSE(everything.filter.inside("a.svc")); // names are named
}

TEST_CASE("what is no network is said, and leaves the others in force") {
  const text rows[] = {
    "",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "10.0.0.1/8",
    "fd00::/129",
    "fd00::1/64",
    "/8",
    "10.0/8",
    "a.svc/8",
    "*.svc",
    ".",
    "..svc",
    "a b",
    "10.0.0.0/8 ",
    "\n",
    "10.0.0.0/0x8",
    text(300, 'a'),
    "300.0.0.1"};
  for (const auto& bad : rows) {
    CAPTURE(bad);
    auto parsed = parse_networks({bad, "10.0.0.0/8"});
    REQUIRE(parsed.problems.size() == 1);
    CHECK(parsed.problems[0].find(printable(bad)) != text::npos);
    CHECK(parsed.problems[0].find('\n') == text::npos);
    CHECK(parsed.filter.inside("10.0.0.1"));
    CHECK_FALSE(parsed.filter.inside("8.8.8.8"));
  }
  CHECK(parse_networks({}).problems.empty());
}

TEST_CASE("base64 is read as it is written, and as nothing else") {
  const std::pair<text, text> rows[] = {// RFC 4648, 10
                                        {"", ""},
                                        {"f", "Zg=="},
                                        {"fo", "Zm8="},
                                        {"foo", "Zm9v"},
                                        {"foob", "Zm9vYg=="},
                                        {"fooba", "Zm9vYmE="},
                                        {"foobar", "Zm9vYmFy"},
                                        {"\xff\xef\xbe", "/+++"}};
  for (const auto& [bytes, letters] : rows) {
    CHECK(to_base64(bytes) == letters);
    CHECK(from_base64(letters) == bytes);
  }
  for (const text bad :
       {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "====", "Z===", "-_-_", "Zm9v\n", "Zm 9",
        "=Zg="}) {
    CAPTURE(bad);
    CHECK_FALSE(from_base64(bad));
  }
}

} // namespace llumnix
