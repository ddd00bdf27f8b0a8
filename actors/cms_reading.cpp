#include "actors/cms_actor.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

// How CMS reads what others keep in the store.
namespace llumnix {

namespace {

/// A store that could not be read is tried again after this, at the latest.
constexpr std::chrono::milliseconds metadata_retry{1000};

} // namespace

bool cms_state::reads_store() const {
  return config.store && config.knobs.pull_metadata_interval.count() > 0;
}

/// The store answers when it can, on a thread of its own; nothing here waits for it.
void cms_state::read_metadata() {
  metadata_read_at = self->clock().now();
  config.store->read_metadata([me = cms_actor{self}](result<std::vector<instance_metadata>> found) {
    caf::anon_send(me, store_metadata_msg{std::move(found)});
  });
}

void cms_state::read_statuses() {
  statuses_read_at = self->clock().now();
  config.store->read_statuses(
    foreign.ids(view), [me = cms_actor{self}](result<stored_statuses> found) {
      caf::anon_send(me, store_statuses_msg{std::move(found)});
    });
}

/// The next reading begins an interval after this one did, or now if it took longer.
void cms_state::on_metadata(store_metadata_msg& msg) {
  auto pause = config.knobs.pull_metadata_interval;
  if (!msg.found)
    pause = std::min(pause, metadata_retry);
  auto wait = metadata_read_at + pause - self->clock().now();
  self->delayed_send(self, std::max(wait, decltype(wait)::zero()), metadata_atom::value);
  metadata_readable = msg.found.has_value();
  if (msg.found) {
    tell(foreign.take_metadata(std::move(*msg.found), view));
    statuses_readable = statuses_readable || !foreign.any(view);
    note_reading(nullptr);
    read_statuses_in_time();
  } else {
    note_reading(&msg.found.error());
  }
}

void cms_state::on_statuses(store_statuses_msg& msg) {
  statuses_due = false;
  statuses_readable = msg.found.has_value();
  if (msg.found)
    tell(foreign.take_statuses(std::move(*msg.found), view, now_ms()));
  note_reading(msg.found ? nullptr : &msg.found.error());
  read_statuses_in_time();
}

/// Only where there is somebody to ask for.
void cms_state::read_statuses_in_time() {
  auto pause = config.knobs.pull_status_interval;
  if (pause.count() <= 0 || statuses_due || !foreign.any(view))
    return;
  statuses_due = true;
  auto wait = statuses_read_at + pause - self->clock().now();
  self->delayed_send(self, std::max(wait, decltype(wait)::zero()), statuses_atom::value);
}

/// That the store can be read, or cannot, is told when it changes.
void cms_state::note_reading(const error* failure) {
  bool first = !std::exchange(store_tried, true);
  auto before = std::exchange(
    store,
    metadata_readable && statuses_readable ? store_news::reachable : store_news::unreachable);
  if (failure && (first || store != before))
    log::cms.warn(
      "store-unreachable", "what others keep in the store cannot be read: {}", to_string(*failure));
  if (store == before)
    return;
  if (!failure && !first)
    log::cms.warn("store-reachable", "the store can be read again");
  view_change_msg change;
  change.store = store;
  tell(std::move(change));
}

void cms_state::tell(const pull_changes& changes) {
  if (changes.empty())
    return;
  view_change_msg change;
  for (const auto& id : changes.put) {
    const auto& x = *view.find(id);
    change.put.push_back({x.metadata, x.life, x.engine, x.state});
  }
  for (const auto& id : changes.statuses)
    change.statuses.push_back(view.find(id)->status);
  change.removed = changes.removed;
  tell(std::move(change));
}

} // namespace llumnix
