#include "apps/caf_guards.hpp"

#include "runtime/base/assert.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/time.hpp"

#include <caf/all.hpp>
#include <caf/binary_deserializer.hpp>
#include <caf/io/all.hpp>
#include <caf/io/basp_broker.hpp>
#include <caf/io/doorman.hpp>
#include <caf/openssl/session.hpp>

#include <atomic>
#include <cstdio>
#include <deque>
#include <dlfcn.h>
#include <openssl/err.h>
#include <random>
#include <sys/socket.h>
#include <unistd.h>

// CAF 0.17.6 trusts whoever reaches a port of node links, before it knows them. Its libraries call
// these functions through the dynamic linker, and the linker prefers the program's: each one here
// closes what CAF's leaves open, and goes on with CAF's where it can.
//
// Who completes CAF's handshake is trusted: it may send anything to any actor. Where that must not
// be anybody, node links use TLS. What remains open to all who reach the port: descriptors, at most
// `half_open_max` at a time for `handshake_time` each.

static_assert(CAF_VERSION == 1706, "other versions of CAF leave other things open: look again");

namespace llumnix {

namespace {

using namespace std::chrono_literals;
using caf::io::connection_handle;

constexpr std::size_t greeting_bytes_max = 64u << 10; // a node's id, the NODE interface: far less
constexpr std::size_t half_open_max = 256;            // connections without a handshake
constexpr auto handshake_time = 2s;                   // a dialler gives up long before
constexpr auto tell_every = 60s;                      // of strangers, who may be many

constexpr const char* root_uuid = "_ZN3caf6detail13get_root_uuidB5cxx11Ev";
constexpr const char* handle_data
  = "_ZN3caf2io4basp8instance6handleEPNS_14execution_unitERNS0_12new_data_msgERNS1_6headerEb";
constexpr const char* send_heartbeats
  = "_ZN3caf2io4basp8instance15send_heartbeatsEPNS_14execution_unitE";
constexpr const char* connection_cleanup
  = "_ZN3caf2io11basp_broker18connection_cleanupENS0_17connection_handleENS_3secE";
constexpr const char* new_connection
  = "_ZN3caf2io7doorman14new_connectionEPNS_14execution_unitENS0_17connection_handleE";
constexpr const char* begin_sequence = "_ZN3caf19binary_deserializer14begin_sequenceERm";
constexpr const char* read_some = "_ZN3caf7openssl7session9read_someERmiPvm";
constexpr const char* write_some = "_ZN3caf7openssl7session10write_someERmiPKvm";
constexpr const char* make_session = "_ZN3caf7openssl12make_sessionERNS_12actor_systemEib";

/// CAF's own function of this name. A member function takes its object as first argument.
template <class Function>
Function* original(const char* symbol) {
  auto* found = ::dlsym(RTLD_NEXT, symbol);
  LLUMNIX_ASSERT(found != nullptr);
  return reinterpret_cast<Function*>(found);
}

/// Ends a connection in both directions. CAF's own close waits for the other side to close too, and
/// keeps the buffers until then.
void cut(caf::io::basp_broker& broker, connection_handle which) {
  if (broker.valid(which)) // else the descriptor may be somebody else's by now
    ::shutdown(static_cast<int>(which.id()), SHUT_RDWR);
}

/// One line a minute at most for strangers and for those we know, however many there are.
void tell_of(caf::io::basp_broker& broker, connection_handle which, bool known, const char* what) {
  struct account {
    time_point next{};
    std::uint64_t untold = 0;
  };
  thread_local account accounts[2];
  auto& [next, untold] = accounts[known ? 1 : 0];
  auto now = std::chrono::steady_clock::now();
  if (now < next) {
    ++untold;
    return;
  }
  next = now + tell_every;
  auto from = broker.remote_addr(which);
  auto count = std::exchange(untold, 0);
  if (known)
    log::node.warn(
      "bad-bytes", "cut the link with a node at {}: {}; {} more were cut since this was last told",
      from, what, count);
  else
    log::node.info(
      "stranger", "closed a connection from {}: {}; {} more were closed since this was last told",
      from, what, count);
}

/// Connections that were accepted and have not completed a handshake, oldest first. All of it
/// happens on the thread of CAF's multiplexer.
class half_open_connections {
public:
  static half_open_connections& of_this_thread() {
    thread_local half_open_connections all;
    return all;
  }

  void add(caf::io::basp_broker& broker, connection_handle made) {
    forget(made); // a descriptor used again
    if (all_.size() >= half_open_max)
      sweep(broker);
    if (all_.size() >= half_open_max)
      end_oldest(broker, "too many at once without a handshake");
    all_.push_back({made, std::chrono::steady_clock::now()});
  }

  /// Drops those that are through or gone, and ends those that take too long.
  void sweep(caf::io::basp_broker& broker) {
    std::erase_if(all_, [&](const entry& x) {
      return !broker.valid(x.handle) || broker.instance.tbl().lookup_direct(x.handle);
    });
    auto now = std::chrono::steady_clock::now();
    while (!all_.empty() && now - all_.front().since > handshake_time)
      end_oldest(broker, "no handshake in time");
  }

private:
  struct entry {
    connection_handle handle;
    time_point since;
  };

  void forget(connection_handle which) {
    std::erase_if(all_, [&](const entry& x) { return x.handle == which; });
  }

  void end_oldest(caf::io::basp_broker& broker, const char* why) {
    tell_of(broker, all_.front().handle, false, why);
    cut(broker, all_.front().handle);
    all_.pop_front();
  }

  std::deque<entry> all_;
};

/// What is wrong with a header, or nothing. CAF reads the payload of a handshake without looking
/// whether there is one, makes room for any payload that is announced, and takes messages from who
/// has not said who he is.
const char* fault_of(const caf::io::basp::header& seen, bool known) {
  if (caf::io::basp::is_handshake(seen) && seen.payload_len == 0)
    return "a handshake without content";
  if (seen.payload_len > link_message_bytes_max)
    return "a message longer than a node link carries";
  if (known || caf::io::basp::is_heartbeat(seen))
    return nullptr;
  if (!caf::io::basp::is_handshake(seen))
    return "no handshake of a node";
  return seen.payload_len > greeting_bytes_max ? "a handshake that is far too long" : nullptr;
}

} // namespace

void require_caf_guards() {
  for (const auto* symbol :
       {root_uuid, handle_data, send_heartbeats, connection_cleanup, new_connection, begin_sequence,
        read_some, write_some, make_session}) {
    auto* ours = ::dlsym(RTLD_DEFAULT, symbol);
    auto* theirs = ::dlsym(RTLD_NEXT, symbol);
    LLUMNIX_ASSERT(ours != nullptr && theirs != nullptr && ours != theirs);
  }
}

} // namespace llumnix

namespace caf {

namespace detail {

/// CAF builds a node's identity from what two containers may share; this gives each start of a
/// process its own.
std::string get_root_uuid() {
  std::random_device random;
  char text[40];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", random(), random(), random(), random());
  return text;
}

} // namespace detail

/// CAF makes room for as many elements as a message claims to hold, up to 4 GiB, before it looks
/// whether they are there. Each takes a byte at least.
error binary_deserializer::begin_sequence(std::size_t& size) {
  using signature = error(binary_deserializer*, std::size_t&);
  static auto* const next = llumnix::original<signature>(llumnix::begin_sequence);
  if (auto failure = next(this, size))
    return failure;
  return size > remaining() ? error{sec::end_of_stream} : error{};
}

namespace io {

namespace basp {

/// CAF believes a header whoever sent it: 32 bytes make it allocate 4 GiB, or read through a null
/// pointer. Refusing it is a wrong message to CAF, which then closes the connection.
connection_state
instance::handle(execution_unit* context, new_data_msg& data, header& head, bool is_payload) {
  using signature = connection_state(instance*, execution_unit*, new_data_msg&, header&, bool);
  static auto* const next = llumnix::original<signature>(llumnix::handle_data);
  if (!is_payload) {
    header seen;
    binary_deserializer source{context, data.buf};
    bool known = tbl_.lookup_direct(data.handle) != none;
    const char* fault
      = source(seen) || !valid(seen) ? "no message between nodes" : llumnix::fault_of(seen, known);
    if (fault) {
      llumnix::tell_of(static_cast<basp_broker&>(callee_), data.handle, known, fault);
      return malformed_basp_message;
    }
  }
  return next(this, context, data, head, is_payload);
}

/// CAF never gives up a connection that says nothing.
void instance::send_heartbeats(execution_unit* context) {
  using signature = void(instance*, execution_unit*);
  static auto* const next = llumnix::original<signature>(llumnix::send_heartbeats);
  llumnix::half_open_connections::of_this_thread().sweep(static_cast<basp_broker&>(callee_));
  next(this, context);
}

} // namespace basp

/// What CAF gives up it closes in its own direction alone: until the other side closes too, the
/// descriptor stays, and the room for a message that was announced and never came.
void basp_broker::connection_cleanup(connection_handle which, sec why) {
  using signature = void(basp_broker*, connection_handle, sec);
  static auto* const next = llumnix::original<signature>(llumnix::connection_cleanup);
  if (why != sec::none && why != sec::redundant_connection)
    llumnix::cut(*this, which);
  next(this, which, why);
}

/// CAF accepts as many connections as come, TLS session included.
bool doorman::new_connection(execution_unit* context, connection_handle made) {
  using signature = bool(doorman*, execution_unit*, connection_handle);
  static auto* const next = llumnix::original<signature>(llumnix::new_connection);
  if (auto* broker = dynamic_cast<basp_broker*>(parent()))
    llumnix::half_open_connections::of_this_thread().add(*broker, made);
  return next(this, context, made);
}

} // namespace io

namespace openssl {

/// OpenSSL keeps the errors of a thread until somebody takes them, and takes the oldest for the
/// answer to a question about any session. CAF leaves those of a failed handshake there, and then
/// ends the good sessions of that thread one after the other.
rw_state session::read_some(std::size_t& count, native_socket socket, void* to, std::size_t room) {
  using signature = rw_state(session*, std::size_t&, native_socket, void*, std::size_t);
  static auto* const next = llumnix::original<signature>(llumnix::read_some);
  ::ERR_clear_error();
  return next(this, count, socket, to, room);
}

/// The same.
rw_state
session::write_some(std::size_t& count, native_socket socket, const void* from, std::size_t size) {
  using signature = rw_state(session*, std::size_t&, native_socket, const void*, std::size_t);
  static auto* const next = llumnix::original<signature>(llumnix::write_some);
  ::ERR_clear_error();
  return next(this, count, socket, from, size);
}

/// The same; and CAF reads the files of the certificate anew for each connection, throws through
/// its own thread where it cannot, and forgets the socket it dialled.
session_ptr make_session(actor_system& system, native_socket socket, bool accepted) {
  using signature = session_ptr(actor_system&, native_socket, bool);
  static auto* const next = llumnix::original<signature>(llumnix::make_session);
  static std::atomic<bool> unreadable{false};
  session_ptr made;
  ::ERR_clear_error();
  try {
    made = next(system, socket, accepted);
    if (unreadable.exchange(false))
      llumnix::log::node.warn("tls-files", "can be used again");
  } catch (const std::exception& failure) {
    if (!unreadable.exchange(true))
      llumnix::log::node.warn(
        "tls-files", "{}: no new node link until that is mended", failure.what());
  }
  if (!made && !accepted)
    ::close(socket);
  return made;
}

} // namespace openssl

} // namespace caf
