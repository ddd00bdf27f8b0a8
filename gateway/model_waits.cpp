#include "gateway/model_waits.hpp"

namespace llumnix {

struct model_waits::waiting final : net::exchange_watcher {
  waiting(model_waits& owner, std::uint64_t number, client_call&& call, relayable_request&& wanted)
    : owner{owner}, number{number}, call{std::move(call)}, wanted{std::move(wanted)} {
    this->call.client->watch(this);
  }
  void on_gone() override { owner.waits_.erase(number); } // ends this
  void on_drained() override {}

  model_waits& owner;
  std::uint64_t number;
  client_call call;
  relayable_request wanted;
};

model_waits::model_waits() = default;

model_waits::~model_waits() {
  take_all();
}

std::uint64_t model_waits::add(client_call&& call, relayable_request&& wanted) {
  auto number = ++last_;
  waits_.emplace(
    number, std::make_unique<waiting>(*this, number, std::move(call), std::move(wanted)));
  return number;
}

std::optional<std::pair<client_call, relayable_request>> model_waits::take(std::uint64_t number) {
  auto found = waits_.extract(number);
  if (!found)
    return std::nullopt;
  auto& each = *found.mapped();
  each.call.client->watch(nullptr);
  return std::pair{std::move(each.call), std::move(each.wanted)};
}

std::vector<client_call> model_waits::take_all() {
  std::vector<client_call> all;
  for (auto& [number, each] : waits_) {
    each->call.client->watch(nullptr);
    all.push_back(std::move(each->call));
  }
  waits_.clear();
  return all;
}

} // namespace llumnix
