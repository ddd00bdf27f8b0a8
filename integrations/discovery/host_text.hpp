#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llumnix {

/// An IP address as a number: IPv6, or IPv4 in the form ::ffff:A.B.C.D.
using ip_number = std::array<std::uint8_t, 16>;

/// Reads "10.0.0.1", "fd00::1" or "[fd00::1]"; nothing for what is no address in its usual form
/// ("10.1", "0x7f.1", "fe80::1%eth0").
std::optional<ip_number> parse_ip(std::string_view text);

/// Whether it is a name that DNS could know: labels of letters, digits, '-' and '_', at most 253
/// bytes. None that ends in a number, which the system's resolver would take for an IPv4 address
/// however it is written.
bool is_host_name(std::string_view text);

/// HOST:PORT as `engine_address` writes it, an IPv6 address in brackets, letters in lower case.
/// Empty if `host` is neither an address nor a name or nobody can dial `port`.
std::string join_host_port(std::string_view host, std::int64_t port);

/// The host of what `join_host_port` wrote, without brackets.
std::string_view host_of(std::string_view host_port);

/// HOST:PORT at which an engine of a fixed list is taken to hand out KV, as the reference does
/// where the list does not tell: 20000 above the port that it serves at, of what `join_host_port`
/// wrote (spec/discovery.md E). Empty where there is no such port.
std::string usual_kv_address(std::string_view host_port);

/// ASCII letters in lower case.
std::string lower_case(std::string_view text);

/// Text that anyone may have written, fit for a log: printable ASCII, other bytes as \xNN, cut
/// after `bytes_max`.
std::string printable(std::string_view text, std::size_t bytes_max = 128);

} // namespace llumnix
