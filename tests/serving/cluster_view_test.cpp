#include "runtime/cluster/cluster_view.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace llumnix {

namespace {

instance_metadata metadata(double created = 1) {
  instance_metadata x;
  x.instance_id = "i";
  x.utc_create = created;
  return x;
}

instance_status status(std::int64_t at, std::int32_t update, bool schedulable = true) {
  instance_status x;
  x.instance_id = "i";
  x.timestamp_ms = at;
  x.update_id = update;
  x.schedulable = schedulable;
  x.num_running_requests = update;
  return x;
}

} // namespace

TEST_CASE("a status passes the gates of time and version") {
  cluster_view view;
  CHECK(view.update(status(10, 1)) == status_effect::ignored); // of nobody known
  view.put(metadata(), {"n", 1});
  CHECK(view.update(status(10, 5)) == status_effect::replaced);
  CHECK(view.update(status(10, 6)) == status_effect::ignored);
  CHECK(view.update(status(11, 5, false)) == status_effect::heartbeat);
  CHECK(view.find("i")->status.timestamp_ms == 11);
  CHECK_FALSE(view.find("i")->status.schedulable);
  CHECK(view.find("i")->status.num_running_requests == 5);
  CHECK(view.update(status(12, 6)) == status_effect::replaced);
  CHECK(view.find("i")->status.num_running_requests == 6);
}

TEST_CASE("a version far below is a new start of the writer, where the status is newer (cms "
          "weakness 1)") {
  struct row {
    std::int32_t before;
    std::int64_t at;
    std::int32_t update;
    status_effect effect;
  };
  constexpr auto least = std::numeric_limits<std::int32_t>::min();
  for (const auto& [before, at, update, effect] :
       {row{500, 11, 1, status_effect::replaced}, row{500, 10, 1, status_effect::ignored},
        row{500, 11, 484, status_effect::replaced},
        row{500, 11, 485, status_effect::heartbeat}, // reports that overtook each other
        row{500, 11, least, status_effect::replaced},
        row{16, 11, 1, status_effect::heartbeat}, // soon passed
        row{17, 11, 1, status_effect::replaced},
        // A writer that never sets it is not frozen after its first status.
        row{0, 11, 0, status_effect::replaced}, row{0, 10, 0, status_effect::ignored},
        row{5, 11, 0, status_effect::heartbeat}, row{5, 11, 5, status_effect::heartbeat}}) {
    CAPTURE(before);
    CAPTURE(update);
    cluster_view view;
    view.put(metadata(), {"", 1});
    view.update(status(10, before));
    CHECK(view.update(status(at, update)) == effect);
  }
}

TEST_CASE("a newer version whose time was set back is taken, one that overtook another is not (cms "
          "weakness 9)") {
  struct row {
    std::int64_t at;
    std::int32_t update;
    status_effect effect;
  };
  constexpr auto ignored = status_effect::ignored, replaced = status_effect::replaced;
  for (auto [at, update, effect] :
       {row{90'000, 51, replaced}, row{90'001, 51, ignored}, row{99'999, 51, ignored},
        row{0, 51, replaced}, row{90'000, 50, ignored}, row{90'000, 49, ignored}}) {
    CAPTURE(at);
    CAPTURE(update);
    cluster_view view;
    view.put(metadata(), {"n", 1});
    view.update(status(100'000, 50));
    CHECK(view.update(status(at, update)) == effect);
    CHECK(view.find("i")->status.timestamp_ms == (effect == replaced ? at : 100'000));
  }
}

TEST_CASE("a status from the future was written when it was heard, more or less") {
  cluster_view view;
  view.put(metadata(), {"n", 1});
  auto written_at = [&](std::int64_t said) { return view.written_at(status(said, 2), 5'000); };
  constexpr auto far = std::numeric_limits<std::int64_t>::max();
  CHECK(written_at(5'000) == 5'000);
  CHECK(written_at(6'000) == 6'000); // clocks differ a little
  CHECK(written_at(6'001) == 5'000);
  CHECK(written_at(far) == 5'000);
  CHECK(written_at(-7) == -7);
  view.update(status(6'000, 1)); // in the same millisecond, by a clock that is ahead
  CHECK(written_at(far) == 6'001);
  CHECK(written_at(6'000) == 6'000);
}

TEST_CASE("a new life takes its status over whatever its numbers, an old one is ignored") {
  cluster_view view;
  view.put(metadata(), {"n", 2});
  view.update(status(100, 50));
  CHECK_FALSE(view.put(metadata(), {"n", 1}));
  CHECK(view.find("i")->life.incarnation == 2);
  CHECK(view.put(metadata(), {"n", 3}));
  CHECK_FALSE(view.find("i")->has_status);
  CHECK(view.update(status(5, 1)) == status_effect::replaced);
  view.put(metadata(2), {"n", 3}); // the llumlet was started again within the same life
  CHECK(view.update(status(6, 1)) == status_effect::replaced);
}

TEST_CASE("what is lost comes back ready, what stopped in a new life, what drains keeps draining") {
  cluster_view view;
  view.put(metadata(), {"n", 2});
  view.lose({"n", 1});
  CHECK(view.find("i")->state == instance_state::ready);
  view.lose({"n", 2});
  CHECK(view.find("i")->state == instance_state::lost);
  view.put(metadata(), {"n", 2});
  CHECK(view.find("i")->state == instance_state::ready);
  view.set_state("i", instance_state::stopped);
  view.lose({"n", 2});
  CHECK(view.find("i")->state == instance_state::stopped);
  view.put(metadata(), {"n", 3});
  CHECK(view.find("i")->state == instance_state::ready);
  view.set_state("i", instance_state::draining);
  auto version = view.version();
  view.put(metadata(), {"n", 3});
  CHECK(view.find("i")->state == instance_state::draining);
  CHECK(view.version() > version);
  view.remove("i");
  CHECK(view.find("i") == nullptr);
}

} // namespace llumnix
