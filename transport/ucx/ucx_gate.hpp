#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <cstdint>
#include <linux/filter.h>
#include <list>
#include <set>
#include <sys/socket.h>
#include <vector>

namespace llumnix::ucx {

/// A peer has three times what connecting may take, as a packet lost on the way comes again after a
/// second.
inline constexpr int let_in_times = 3;

/// The numbers of an address, as the network writes them: one word of IPv4, four of IPv6.
using address_words = std::vector<std::uint32_t>;
address_words words_of(const sockaddr_storage& where);

/// For a listening TCP socket: a program that lets nobody begin a connection but those `callers`,
/// all of one family. Connections that exist are not touched; they inherit it.
std::vector<sock_filter> only_from(const std::set<address_words>& callers);

/// The sockets of this process that listen for TCP connections at an address of that family, and not
/// at all addresses.
std::set<int> listening_sockets(sa_family_t family);

/// Keeps strangers away from a socket of UCX's that listens: a few bytes of theirs would end the
/// process (1.13 asserts what they say), or write into its memory. The kernel drops their first
/// packet. Runs on the UCX thread.
class ucx_gate {
public:
  /// From now on nobody comes through to UCX's listener there. An error where the system does not
  /// give its socket or takes no filter: then everybody does.
  result<void> shut(const sockaddr_storage& where);
  /// The same for a socket.
  result<void> shut(int listener);
  /// Lets that address connect once, until then.
  void let_in(const sockaddr_storage& who, time_point until);
  /// It has.
  void came(const sockaddr_storage& who);
  /// Lets that address connect as often as it likes until then, at least.
  void keep_in(const sockaddr_storage& who, time_point until);

  /// True when somebody's time is over.
  bool work(time_point now);
  time_point wake_at() const;

private:
  struct guest {
    address_words who;
    time_point until;
  };
  result<void> attach();
  void admit(address_words who, time_point until);
  bool expects(const address_words& who) const;
  void shut_again();

  int listener_ = -1; ///< UCX's; none where it cannot be shut
  std::list<guest> guests_;
};

} // namespace llumnix::ucx
