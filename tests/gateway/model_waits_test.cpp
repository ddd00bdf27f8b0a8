#include "gateway/model_waits.hpp"
#include "gateway_rig.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

TEST_CASE("requests wait for models, and who leaves is forgotten") {
  fake_loop loop;
  request_ids ids;
  std::mt19937_64 random;
  model_waits waits;
  auto add = [&](const std::shared_ptr<fake_exchange>& client, const char* id, const char* model) {
    relayable_request wanted;
    wanted.wish.model = model;
    return waits.add({client, {}, ids.take(id, random), loop.now()}, std::move(wanted));
  };
  std::vector<std::shared_ptr<fake_exchange>> clients;
  for (int i = 0; i < 4; ++i)
    clients.push_back(std::make_shared<fake_exchange>(loop));
  auto first = add(clients[0], "r0", "a");
  auto second = add(clients[1], "r1", "b");
  add(clients[2], "r2", "c");
  auto taken = waits.take(first);
  REQUIRE(taken);
  CHECK(taken->first.id.text() == "r0");
  CHECK(taken->second.wish.model == "a");
  CHECK_FALSE(clients[0]->watched());
  CHECK_FALSE(waits.take(first));
  clients[1]->leave();
  CHECK_FALSE(waits.take(second));
  CHECK(waits.size() == 1);
  auto rest = waits.take_all();
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].id.text() == "r2");
  CHECK_FALSE(clients[2]->watched());
  CHECK(waits.size() == 0);
  {
    model_waits gone;
    gone.add({clients[3], {}, ids.take("r3", random), loop.now()}, {});
    CHECK(clients[3]->watched());
  }
  CHECK_FALSE(clients[3]->watched());
  while (!waits.full())
    add(clients[3], "x", "d");
  CHECK(waits.size() == model_waits::most);
}

} // namespace llumnix::testing
