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

/// The numbers of an address, as the network writes them: one word of IPv4, four of IPv6.
using address_words = std::vector<std::uint32_t>;
address_words words_of(const sockaddr_storage& where);

/// For a listening TCP socket: a program that lets nobody begin a connection but those `callers`,
/// all of one family. Connections that exist are not touched; they inherit it.
std::vector<sock_filter> only_from(const std::set<address_words>& callers);

/// Keeps strangers away from UCX's listener, which a few bytes of theirs would end together with
/// the process (1.13 asserts what they say): the kernel drops their first packet. Runs on the UCX
/// thread.
class ucx_gate {
public:
  /// From now on nobody comes through to UCX's listener there. An error where the system does not
  /// give its socket or takes no filter: then everybody does.
  result<void> shut(const sockaddr_storage& where);
  /// Lets that address connect once, until then.
  void let_in(const sockaddr_storage& who, time_point until);
  /// It has.
  void came(const sockaddr_storage& who);

  /// True when somebody's time is over.
  bool work(time_point now);
  time_point wake_at() const;

private:
  struct guest {
    address_words who;
    time_point until;
  };
  result<void> attach();
  bool expects(const address_words& who) const;
  void shut_again();

  int listener_ = -1; ///< UCX's; none where it cannot be shut
  std::list<guest> guests_;
};

} // namespace llumnix::ucx
