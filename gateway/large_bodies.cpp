#include "gateway/large_bodies.hpp"

#include "runtime/base/log.hpp"

#include <algorithm>
#include <exception>
#include <iterator>
#include <string>
#include <utility>

namespace llumnix {

/// What goes to the pool and comes back.
struct large_bodies::parcel {
  body_form form;
  std::string body;
  std::shared_ptr<const void> held; ///< its share of what the server may hold
  body_content content{};

  /// On a thread of the pool.
  void read(body_reader& reader) {
    try {
      content = reader.read(form, body);
    } catch (const std::exception& problem) {
      log::gateway.error("reading-threw", "a body of {} bytes: {}", body.size(), problem.what());
      content
        = openai::api_error{500, "internal_error", "The request's body could not be read.", {}};
    }
    if (form.relayed)
      return;
    std::string{}.swap(body);
    held.reset();
  }
};

/// A call that waits for its parcel. Without its client once nobody wants it back.
struct large_bodies::reading final : net::exchange_watcher {
  void on_gone() override { owner->on_gone(number); } // ends this
  void on_drained() override {}

  large_bodies* owner = nullptr;
  std::uint64_t number = 0;
  std::uint64_t job = 0; ///< of the pool
  client_call call;
};

large_bodies::large_bodies(parse_pool& pool, executor& loop, on_read told)
  : pool_{pool},
    loop_{loop},
    told_{std::move(told)},
    self_{std::make_shared<large_bodies*>(this)} {}

large_bodies::~large_bodies() {
  self_.reset();
  for (auto& [number, each] : readings_) {
    if (each->call.client)
      each->call.client->watch(nullptr);
    pool_.withdraw_and_wait(each->job); // it posts to the loop, which may go after this
  }
}

bool large_bodies::read(client_call& call, const body_form& form) {
  auto number = ++last_;
  auto sent = std::make_shared<parcel>(
    parcel{form, std::move(call.request.body), std::move(call.request.held)});
  auto job
    = pool_.submit([sent, number, &loop = loop_, weak = std::weak_ptr{self_}](body_reader& reader) {
        sent->read(reader);
        loop.post([sent, number, weak] {
          if (auto self = weak.lock())
            (*self)->on_parcel(number, *sent);
        });
      });
  if (job == 0)
    return false;
  auto& made = *readings_.emplace(number, std::make_unique<reading>()).first->second;
  made.owner = this;
  made.number = number;
  made.job = job;
  made.call = std::move(call);
  made.call.client->watch(&made);
  return true;
}

void large_bodies::on_parcel(std::uint64_t number, parcel& from) {
  auto found = readings_.find(number);
  if (found == readings_.end())
    return;
  auto call = std::move(found->second->call);
  readings_.erase(found);
  if (!call.client)
    return;
  call.client->watch(nullptr);
  call.request.body = std::move(from.body);
  call.request.held = std::move(from.held);
  auto client = call.client;
  try {
    told_(call, std::move(from.content));
  } catch (const std::exception& problem) { // as in the server, which is not above us here
    log::gateway.error("handler-threw", "request of {}: {}", call.request.peer, problem.what());
    client->watch(nullptr);
    client->abandon();
  }
}

void large_bodies::on_gone(std::uint64_t number) {
  auto found = readings_.find(number);
  log::gateway.debug(
    "gone-early", "{} left before its body was read", found->second->call.id.text());
  if (stop(*found->second))
    readings_.erase(found);
}

/// Whether nothing will come of it any more; else its parcel comes, and finds nobody.
bool large_bodies::stop(reading& which) {
  which.call = {};
  return pool_.withdraw(which.job);
}

std::vector<client_call> large_bodies::take_all() {
  std::vector<client_call> all;
  for (auto each = readings_.begin(); each != readings_.end();) {
    auto& which = *each->second;
    if (which.call.client) {
      which.call.client->watch(nullptr);
      all.push_back(std::move(which.call));
    }
    each = stop(which) ? readings_.erase(each) : std::next(each);
  }
  return all;
}

std::size_t large_bodies::size() const {
  return static_cast<std::size_t>(std::count_if(
    readings_.begin(), readings_.end(),
    [](const auto& each) { return each.second->call.client != nullptr; }));
}

} // namespace llumnix
