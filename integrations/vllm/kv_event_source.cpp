#include "integrations/vllm/kv_event_source.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <optional>
#include <string_view>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>
#include <zmq.hpp>

namespace llumnix {
namespace {

using clock = std::chrono::steady_clock;

constexpr int waiting_messages_max = 256;
constexpr int frames_max = 4; ///< of a message that makes sense
constexpr std::uint64_t end_of_replay = ~std::uint64_t{0};
constexpr int replay_patiences = 10;
constexpr auto monitor_endpoint = "inproc://connection";

std::optional<std::uint64_t> read_sequence(const zmq::message_t& frame) {
  if (frame.size() != 8)
    return std::nullopt;
  std::uint64_t sequence = 0;
  for (std::size_t i = 0; i < 8; ++i)
    sequence = sequence << 8 | frame.data<unsigned char>()[i];
  return sequence;
}

std::array<unsigned char, 8> write_sequence(std::uint64_t sequence) {
  std::array<unsigned char, 8> frame{};
  for (std::size_t i = 0; i < 8; ++i)
    frame[i] = static_cast<unsigned char>(sequence >> (56 - 8 * i));
  return frame;
}

/// The frames of the next message, the first ones where they are too many; none: nothing has come.
std::vector<zmq::message_t> receive(zmq::socket_t& socket) {
  std::vector<zmq::message_t> frames;
  for (bool more = true; more;) {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait))
      break;
    more = frame.more();
    if (frames.size() <= frames_max) // one too many is kept, to be seen
      frames.push_back(std::move(frame));
  }
  return frames;
}

void set_up(zmq::socket_t& socket) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::rcvhwm, waiting_messages_max);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kv_payload_max));
  socket.set(zmq::sockopt::reconnect_ivl, 100);
  socket.set(zmq::sockopt::reconnect_ivl_max, 5'000);
  socket.set(zmq::sockopt::heartbeat_ivl, 5'000); // a host that is gone says nothing
  socket.set(zmq::sockopt::heartbeat_timeout, 15'000);
  socket.set(zmq::sockopt::ipv6, true);
}

bool is_endpoint(std::string_view text) {
  return text.starts_with("tcp://") || text.starts_with("ipc://");
}

} // namespace

struct kv_event_source::state {
  state(kv_event_source_options with, kv_event_callbacks call)
    : options{std::move(with)}, callbacks{std::move(call)} {}
  ~state() {
    if (stop >= 0)
      close(stop);
  }

  void open();
  void run();
  bool wait(zmq::socket_t& socket, clock::time_point until);
  bool connection_broke();
  void start_over();
  void hear();
  void replay(std::uint64_t from);
  bool ask_replay(std::uint64_t from);
  bool read_replay(zmq::socket_t& dealer, std::uint64_t from);
  void accept(std::uint64_t sequence, const zmq::message_t& payload);
  void lose();
  void spoil() {
    ++malformed;
    lose();
  }

  kv_event_source_options options;
  kv_event_callbacks callbacks;
  int stop = -1; ///< an eventfd: readable once the thread is to end
  zmq::context_t context{1};
  zmq::socket_t events;
  zmq::socket_t monitor;
  std::string address;

  // The thread's own.
  std::optional<std::uint64_t> heard; ///< the last number heard as it was published
  std::optional<std::uint64_t> next;  ///< the number to hand over next; none: any
  bool told = false;                  ///< there is something to lose
  clock::time_point no_replay_before{};

  std::atomic<std::uint64_t> batches{0};
  std::atomic<std::uint64_t> malformed{0};
  std::atomic<std::uint64_t> lost{0};
  std::atomic<std::uint64_t> replays{0};
  std::atomic<std::uint64_t> failed_replays{0};
  std::thread thread;
};

void kv_event_source::state::open() {
  stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  LLUMNIX_ASSERT(stop >= 0);
  events = {context, zmq::socket_type::sub};
  set_up(events);
  if (zmq_socket_monitor(events.handle(), monitor_endpoint, ZMQ_EVENT_DISCONNECTED) != 0)
    throw zmq::error_t{};
  monitor = {context, zmq::socket_type::pair};
  monitor.set(zmq::sockopt::linger, 0);
  monitor.connect(monitor_endpoint);
  events.set(zmq::sockopt::subscribe, options.topic);
  if (options.bind)
    events.bind(options.endpoint);
  else
    events.connect(options.endpoint);
  address = events.get(zmq::sockopt::last_endpoint);
  if (!options.replay_endpoint.empty()) { // only to see whether it is one
    zmq::socket_t probe{context, zmq::socket_type::dealer};
    probe.set(zmq::sockopt::linger, 0);
    probe.connect(options.replay_endpoint);
  }
}

void kv_event_source::state::run() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr); // signals are for others
  for (;;) {
    std::array<zmq::pollitem_t, 3> items{
      {{nullptr, stop, ZMQ_POLLIN, 0},
       {monitor.handle(), 0, ZMQ_POLLIN, 0},
       {events.handle(), 0, ZMQ_POLLIN, 0}}};
    zmq::poll(items);
    if ((items[0].revents & ZMQ_POLLIN) != 0)
      return;
    if (connection_broke())
      start_over();
    else if ((items[2].revents & ZMQ_POLLIN) != 0)
      hear();
  }
}

/// False when nothing came in time, or the thread is to end.
bool kv_event_source::state::wait(zmq::socket_t& socket, clock::time_point until) {
  std::array<zmq::pollitem_t, 2> items{
    {{nullptr, stop, ZMQ_POLLIN, 0}, {socket.handle(), 0, ZMQ_POLLIN, 0}}};
  auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now());
  zmq::poll(items, std::max(left, std::chrono::milliseconds{0}));
  return items[0].revents == 0 && items[1].revents != 0;
}

bool kv_event_source::state::connection_broke() {
  bool broke = false;
  while (!receive(monitor).empty())
    broke = true; // no other event was asked for
  return broke;
}

/// Maybe another engine next time. What the old one said last may still be waiting.
void kv_event_source::state::start_over() {
  for (int i = 0; i < 2 * waiting_messages_max && !receive(events).empty(); ++i) {
  }
  lose();
  heard.reset();
  next.reset();
}

void kv_event_source::state::hear() {
  auto frames = receive(events); // topic, number, payload
  if (frames.empty())
    return;
  auto sequence = frames.size() == 3 ? read_sequence(frames[1]) : std::nullopt;
  if (!sequence || *sequence == end_of_replay)
    return spoil();
  if (heard && *sequence <= *heard) { // the engine counts anew
    lose();
    next.reset();
  }
  heard = sequence;
  if (*sequence > next.value_or(0))
    replay(next.value_or(0));
  accept(*sequence, frames[2]);
}

void kv_event_source::state::replay(std::uint64_t from) {
  if (options.replay_endpoint.empty() || clock::now() < no_replay_before)
    return;
  ++replays;
  if (ask_replay(from))
    return;
  ++failed_replays;
  no_replay_before = clock::now() + replay_patiences * options.replay_patience;
}

bool kv_event_source::state::ask_replay(std::uint64_t from) {
  try {
    zmq::socket_t dealer{context, zmq::socket_type::dealer};
    set_up(dealer);
    dealer.connect(options.replay_endpoint);
    auto number = write_sequence(from);
    dealer.send(zmq::message_t{}, zmq::send_flags::sndmore | zmq::send_flags::dontwait);
    dealer.send(zmq::buffer(number), zmq::send_flags::dontwait);
    return read_replay(dealer, from);
  } catch (const zmq::error_t&) { // no more sockets
    return false;
  }
}

/// Answers are an empty frame, in some releases the topic, a number and a payload. False without
/// the one that says it is the last.
bool kv_event_source::state::read_replay(zmq::socket_t& dealer, std::uint64_t from) {
  auto deadline = clock::now() + replay_patiences * options.replay_patience;
  while (wait(dealer, std::min(deadline, clock::now() + options.replay_patience))) {
    auto frames = receive(dealer);
    if (frames.size() != 3 && frames.size() != 4)
      return false;
    auto sequence = read_sequence(frames[frames.size() - 2]);
    if (!sequence || *sequence < from)
      return false;
    if (*sequence == end_of_replay)
      return true;
    accept(*sequence, frames.back());
    from = *sequence + 1;
  }
  return false;
}

void kv_event_source::state::accept(std::uint64_t sequence, const zmq::message_t& payload) {
  if (next && sequence < *next)
    return; // replayed before it was heard
  if (next && sequence > *next)
    lose();
  next = sequence + 1;
  auto batch = read_kv_events(payload.to_string_view());
  if (!batch)
    return spoil();
  told = true;
  ++batches;
  callbacks.on_batch(std::move(*batch));
}

void kv_event_source::state::lose() {
  if (!std::exchange(told, false))
    return;
  ++lost;
  callbacks.on_lost();
}

kv_event_source::kv_event_source(std::unique_ptr<state> made) : state_{std::move(made)} {}

result<std::unique_ptr<kv_event_source>>
kv_event_source::start(kv_event_source_options options, kv_event_callbacks callbacks) {
  const auto& again = options.replay_endpoint;
  if (!is_endpoint(options.endpoint) || (!again.empty() && !is_endpoint(again)))
    return {errc::invalid_argument, "KV events come from tcp:// or ipc:// endpoints"};
  auto made = std::make_unique<state>(std::move(options), std::move(callbacks));
  try {
    made->open();
  } catch (const zmq::error_t& failure) {
    return {
      errc::invalid_argument, "KV events at " + made->options.endpoint + ": " + failure.what()};
  }
  made->thread = std::thread{[it = made.get()] { it->run(); }};
  return std::unique_ptr<kv_event_source>{new kv_event_source{std::move(made)}};
}

kv_event_source::~kv_event_source() {
  eventfd_write(state_->stop, 1);
  state_->thread.join();
}

std::string kv_event_source::endpoint() const {
  return state_->address;
}

kv_event_source_counters kv_event_source::counters() const {
  return {
    state_->batches, state_->malformed, state_->lost, state_->replays, state_->failed_replays};
}

} // namespace llumnix
