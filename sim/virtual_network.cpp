#include "sim/virtual_network.hpp"

#include "actors/node_actor.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/serving_messages.hpp"

#include <algorithm>
#include <stdexcept>

// The identity of a process must not differ between runs: CAF calls these where the program defines
// them.
namespace caf::detail {
__attribute__((used, visibility("default"))) std::uint32_t get_process_id() {
  return 4242;
}
__attribute__((used, visibility("default"))) std::string get_root_uuid() {
  return "virtual";
}
} // namespace caf::detail

namespace llumnix {

struct virtual_process::config : caf::actor_system_config {
  config() {
    load<caf::io::middleman>();
    set("scheduler.policy", caf::atom("testing"));
    set("middleman.network-backend", caf::atom("testing"));
    set("middleman.workers", std::size_t{0});
    set("logger.inline-output", true);
  }
};

virtual_process::virtual_process(const std::function<void(caf::actor_system_config&)>& configure)
  : settings{new config} {
  configure(*settings);
  system = std::make_unique<caf::actor_system>(*settings);
  system->await_actors_before_shutdown(false);
  scheduler = dynamic_cast<caf::scheduler::test_coordinator*>(&system->scheduler());
  sockets = dynamic_cast<caf::io::network::test_multiplexer*>(&system->middleman().backend());
}

/// The test scheduler runs until idle when it ends: whatever re-arms itself must be gone before.
virtual_process::~virtual_process() {
  for (auto& root : roots)
    caf::anon_send_exit(root, caf::exit_reason::kill);
  roots.clear();
  for (int i = 0; i < 1'000'000; ++i) {
    scheduler->clock().cancel_all();
    if (!scheduler->try_run_once() && !sockets->try_exec_runnable())
      break;
  }
  scheduler->clock().cancel_all();
}

std::size_t virtual_network::add(const std::function<void(caf::actor_system_config&)>& configure) {
  processes_.push_back(std::make_unique<virtual_process>(configure));
  processes_.back()->scheduler->clock().current_time = caf::actor_clock::time_point{now_};
  settle(processes_.size() - 1);
  return processes_.size() - 1;
}

void virtual_network::settle(std::size_t index) {
  auto& x = *processes_[index];
  while (x.scheduler->try_run_once() || x.sockets->try_exec_runnable()) {
  }
}

void virtual_network::publish(
  std::size_t index, const std::string& host, std::uint16_t port, const node_actor& node) {
  std::erase_if(listeners_, [&](const listener& x) { return x.host == host && x.port == port; });
  auto& x = *processes_[index];
  auto handle = caf::io::accept_handle::from_int(++handles_);
  x.sockets->provide_acceptor(port, handle);
  x.scheduler->inline_next_enqueue(); // CAF's middleman actor answers inline
  auto published = x.system->middleman().publish(node, port);
  if (!published)
    throw std::runtime_error(x.system->render(published.error()));
  settle(index);
  listeners_.push_back({index, host, port, handle});
}

/// Keeps one socket ready for each client and listener, and lets servers accept those that were
/// dialled.
void virtual_network::provision() {
  for (auto& at : listeners_)
    for (std::size_t client = 0; processes_[at.process]->alive && client < processes_.size();
         ++client) {
      auto& dialler = *processes_[client];
      if (
        client == at.process || !dialler.alive
        || dialler.sockets->has_pending_scribe(at.host, at.port))
        continue;
      connection made{
        at.process, client, caf::io::connection_handle::from_int(++handles_),
        caf::io::connection_handle::from_int(++handles_)};
      auto& server = *processes_[at.process];
      server.sockets->prepare_connection(
        at.handle, made.at_server, *dialler.sockets, at.host, at.port, made.at_client);
      auto& pending = server.sockets->pending_connects();
      for (auto i = pending.begin(); i != pending.end();)
        i = i->second == made.at_server ? pending.erase(i) : std::next(i);
      connections_.push_back(made);
    }
  for (auto& x : connections_) {
    if (
      x.linked || x.dead || !processes_[x.server]->runs()
      || processes_[x.client]->sockets->impl_ptr(x.at_client) == nullptr)
      continue;
    x.linked = true;
    for (auto& at : listeners_)
      if (at.process == x.server) {
        processes_[x.server]->sockets->add_pending_connect(at.handle, x.at_server);
        break;
      }
    while (processes_[x.server]->sockets->try_accept_connection()) {
    }
  }
}

void virtual_network::end(connection& x, bool at_server) {
  auto& process = *processes_[at_server ? x.server : x.client];
  auto handle = at_server ? x.at_server : x.at_client;
  auto socket = process.alive ? process.sockets->impl_ptr(handle) : nullptr;
  if (!socket)
    return;
  socket->io_failure(process.sockets, caf::io::network::operation::read);
  process.sockets->stopped_reading(handle) = true;
  process.sockets->passive_mode(handle) = true;
}

void virtual_network::crash(std::size_t index) {
  processes_[index]->alive = false;
  note(0xdead0000 + index);
  for (auto& x : connections_)
    if (!x.dead && (x.server == index || x.client == index)) {
      x.dead = true;
      if (x.linked)
        end(x, x.server != index);
    }
}

void virtual_network::reset(std::size_t a, std::size_t b) {
  for (auto& x : connections_)
    if (!x.dead && x.linked && std::minmax(x.server, x.client) == std::minmax(a, b)) {
      x.dead = true;
      end(x, true);
      end(x, false);
    }
}

virtual_network::link_state& virtual_network::link(std::size_t a, std::size_t b) {
  return links_[std::minmax(a, b)];
}

void virtual_network::cut(std::size_t a, std::size_t b, bool is_cut) {
  link(a, b).cut = is_cut;
}

void virtual_network::delay(std::size_t a, std::size_t b, nanoseconds by) {
  link(a, b).held_until = now_ + by;
}

void virtual_network::resume(std::size_t index) {
  auto& x = *processes_[index];
  x.paused = false;
  nanoseconds its = x.scheduler->clock().now().time_since_epoch();
  x.scheduler->clock().advance_time(now_ > its ? now_ - its : nanoseconds{0});
}

bool virtual_network::passes(const connection& x) {
  if (!x.linked || x.dead)
    return false;
  auto& between = link(x.server, x.client);
  return !between.cut && now_ >= between.held_until;
}

/// One of all the things that could happen now, drawn at random.
bool virtual_network::step() {
  provision();
  struct action {
    int kind;
    std::size_t process;
    std::size_t argument;
  };
  std::vector<action> possible;
  for (std::size_t i = 0; i < processes_.size(); ++i)
    if (processes_[i]->runs()) {
      for (std::size_t j = 0; j < processes_[i]->scheduler->jobs.size(); ++j)
        possible.push_back({0, i, j});
      possible.push_back({1, i, 0});
    }
  for (std::size_t i = 0; i < connections_.size(); ++i)
    if (passes(connections_[i])) {
      if (processes_[connections_[i].server]->runs())
        possible.push_back({2, connections_[i].server, i});
      if (processes_[connections_[i].client]->runs())
        possible.push_back({3, connections_[i].client, i});
    }
  while (!possible.empty()) {
    auto drawn = static_cast<std::size_t>(random_() % possible.size());
    auto chosen = possible[drawn];
    possible[drawn] = possible.back();
    possible.pop_back();
    auto& x = *processes_[chosen.process];
    bool done = false;
    switch (chosen.kind) {
      case 0: {
        auto& jobs = x.scheduler->jobs;
        if (chosen.argument < jobs.size()) {
          auto at = jobs.begin() + static_cast<std::ptrdiff_t>(chosen.argument);
          std::rotate(jobs.begin(), at, at + 1);
          done = x.scheduler->try_run_once();
        }
        break;
      }
      case 1: done = x.sockets->try_exec_runnable(); break;
      case 2: done = x.sockets->try_read_data(connections_[chosen.argument].at_server); break;
      case 3: done = x.sockets->try_read_data(connections_[chosen.argument].at_client); break;
    }
    if (done) {
      note(
        static_cast<std::uint64_t>(chosen.kind) * 1000003 + chosen.process * 10007
        + chosen.argument);
      return true;
    }
  }
  return false;
}

/// Moves the clock to the next timer, or to the end of a delay. False if that would pass the limit:
/// then to it.
bool virtual_network::tick(nanoseconds limit) {
  auto next = limit;
  for (auto& x : processes_)
    if (x->runs() && x->scheduler->has_pending_timeout())
      next = std::min(
        next, nanoseconds{x->scheduler->clock().schedule().begin()->first.time_since_epoch()});
  for (const auto& [ends, between] : links_)
    if (between.held_until > now_)
      next = std::min(next, between.held_until);
  bool within = next < limit;
  now_ = std::max(now_, next);
  for (auto& x : processes_)
    if (x->runs()) {
      nanoseconds its = x->scheduler->clock().now().time_since_epoch();
      x->scheduler->clock().advance_time(now_ > its ? now_ - its : nanoseconds{0});
    }
  note(static_cast<std::uint64_t>(now_.count()));
  return within;
}

bool virtual_network::run_until(const std::function<bool()>& holds, nanoseconds limit) {
  for (;;) {
    if (holds())
      return true;
    if (!step() && !tick(limit)) {
      while (step())
        if (holds())
          return true;
      return holds();
    }
  }
}

} // namespace llumnix
