// A source in a process of its own, for tests that kill or stop it:
//
//     transport_peer <port> <same host: 0 or 1> <cluster key> <bytes> <seed> <host or
//     device>
//
// prints `address <address>` and obeys lines: `open <high> <low>`, `close <high> <low>`; it answers
// `opened` and `closed`. It ends with its input.
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <mutex>

using namespace llumnix;
using namespace llumnix::testing;

int main(int count, char** words) {
  if (count != 7)
    return 2;
  doctest::Context assertions; // of what tests share with us
  assertions.setAsDefaultForAssertsOutOfTestCases();
  assertions.setAssertHandler([](const doctest::AssertData& x) {
    std::cerr << x.m_file << ":" << x.m_line << ": " << x.m_expr << std::endl;
    std::_Exit(1);
  });
  auto settings = impatient_ucx(std::string{words[2]} == "1");
  settings.port = static_cast<std::uint16_t>(std::atoi(words[1]));
  settings.cluster_key = words[3];
  auto made = make_ucx_transport(settings);
  if (!made) {
    std::cerr << to_string(made.error()) << std::endl;
    return 1;
  }
  auto& source = **made;
  test_memory memory{
    std::strtoull(words[4], nullptr, 10),
    std::string{words[6]} == "device" ? make_device() : nullptr};
  memory.fill(std::strtoull(words[5], nullptr, 10));
  auto region = *source.add_region(memory.region());
  std::mutex out;
  auto say = [&](const std::string& line) {
    std::lock_guard lock{out};
    std::cout << line << std::endl;
  };
  say("address " + source.address(region));
  std::string verb;
  handover_id key;
  while (std::cin >> verb >> key.high >> key.low) {
    if (verb == "open") {
      source.open_window(region, key);
      say("opened");
    } else if (verb == "close") {
      source.close_window(key, [&] { say("closed"); });
    }
  }
  return 0;
}
