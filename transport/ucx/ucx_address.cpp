#include "transport/ucx/ucx_address.hpp"

#include <spdlog/fmt/fmt.h>

#include <arpa/inet.h>
#include <charconv>
#include <cstring>
#include <fstream>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <random>
#include <sys/stat.h>
#include <vector>
#include <xxhash.h>

namespace llumnix::ucx {

namespace {

template <class Number>
bool read(std::string_view text, Number& to, int base = 10) {
  auto got = std::from_chars(text.data(), text.data() + text.size(), to, base);
  return got.ec == std::errc{} && got.ptr == text.data() + text.size();
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    auto end = text.find('/');
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos)
      return parts;
    text.remove_prefix(end + 1);
  }
}

bool same_host_address(const sockaddr_storage& a, const sockaddr& b) {
  if (a.ss_family != b.sa_family)
    return false;
  if (a.ss_family == AF_INET)
    return std::memcmp(
             &reinterpret_cast<const sockaddr_in&>(a).sin_addr,
             &reinterpret_cast<const sockaddr_in&>(b).sin_addr, sizeof(in_addr))
           == 0;
  return std::memcmp(
           &reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
           &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr))
         == 0;
}

} // namespace

token random_token() {
  std::random_device device;
  auto word = [&] { return std::uint64_t{device()} << 32 | device(); };
  return {word(), word()};
}

std::string to_string(const address& where) {
  return fmt::format(
    "ucx/2/{}/{}/{:016x}{:016x}/{:016x}/{}", where.at.ip, where.at.port, where.at.life.high,
    where.at.life.low, where.at.host, where.region);
}

std::optional<address> parse_address(std::string_view text) {
  auto parts = text.size() < 1024 ? split(text) : std::vector<std::string_view>{};
  address where;
  if (
    parts.size() != 7 || parts[0] != "ucx" || parts[1] != "2" || parts[4].size() != 32
    || !read(parts[3], where.at.port) || !read(parts[4].substr(0, 16), where.at.life.high, 16)
    || !read(parts[4].substr(16), where.at.life.low, 16) || !read(parts[5], where.at.host, 16)
    || !read(parts[6], where.region))
    return std::nullopt;
  where.at.ip = parts[2];
  if (where.at.port == 0 || !socket_address(where.at.ip, where.at.port))
    return std::nullopt;
  return where;
}

std::optional<sockaddr_storage> socket_address(const std::string& ip, std::uint16_t port) {
  sockaddr_storage where{};
  auto& four = reinterpret_cast<sockaddr_in&>(where);
  auto& six = reinterpret_cast<sockaddr_in6&>(where);
  if (inet_pton(AF_INET, ip.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    return where;
  }
  if (inet_pton(AF_INET6, ip.c_str(), &six.sin6_addr) == 1) {
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    return where;
  }
  return std::nullopt;
}

std::uint16_t port_in(const sockaddr_storage& where) {
  // The port stands at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in&>(where).sin_port);
}

socklen_t size_of(const sockaddr_storage& where) {
  return where.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

bool is_loopback(const sockaddr_storage& where) {
  if (where.ss_family == AF_INET)
    return ntohl(reinterpret_cast<const sockaddr_in&>(where).sin_addr.s_addr) >> 24 == 127;
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(where).sin6_addr);
}

std::string device_of(const sockaddr_storage& where) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0)
    return {};
  std::string name;
  for (auto* one = all; one != nullptr; one = one->ifa_next)
    if (one->ifa_addr != nullptr && same_host_address(where, *one->ifa_addr))
      name = one->ifa_name;
  freeifaddrs(all);
  return name;
}

std::uint64_t host_tag() {
  std::string text;
  std::getline(std::ifstream{"/proc/sys/kernel/random/boot_id"}, text);
  struct stat space {};
  if (text.empty() || stat("/proc/self/ns/pid", &space) != 0)
    return random_token().low; // nobody's
  text += fmt::format("/{}", space.st_ino);
  return XXH3_64bits(text.data(), text.size());
}

} // namespace llumnix::ucx
