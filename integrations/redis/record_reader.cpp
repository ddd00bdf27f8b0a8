#include "integrations/redis/record_reader.hpp"

#include "integrations/redis/cms_codec.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace llumnix {

namespace {

constexpr std::size_t window = 256; // commands under way
constexpr std::size_t instances_max = 16384;
constexpr std::size_t id_bytes_max = 512;
constexpr std::size_t metadata_bytes_max = 16u << 10;
constexpr std::size_t status_bytes_max = 1u << 20;
constexpr std::size_t statuses_bytes_max = 256u
                                           << 20; // of one reading; beyond only small ones count
constexpr std::size_t small_bytes = 16u << 10;
constexpr std::size_t scans_max = 1u << 20; // a cursor that never ends is no Redis server's
constexpr std::string_view scan_count = "1000";

using done_handler = std::function<void(result<void>)>;

/// The reply, if it is not an error reply and of the kind that was asked for.
result<redis_reply>
checked(result<redis_reply> reply, redis_reply::type wanted, const std::string& what) {
  if (!reply)
    return std::move(reply).error().while_doing(what);
  if (reply->kind == redis_reply::type::failure)
    return error{errc::internal, what + ": " + reply->text};
  if (reply->kind != wanted)
    return error{errc::internal, what + ": not the reply of a Redis server"};
  return reply;
}

/// Names every key with a prefix; kept alive by the handler of the command it waits for.
class key_scan : public std::enable_shared_from_this<key_scan> {
public:
  using id_handler = std::function<void(std::string id)>;

  key_scan(redis_client& client, std::string_view prefix, id_handler each, done_handler done)
    : client_{client}, prefix_{prefix}, each_{std::move(each)}, done_{std::move(done)} {}

  void ask(const std::string& cursor) {
    if (++scans_ > scans_max)
      return done_(error{errc::internal, "SCAN: does not come to an end"});
    client_.send(
      {"SCAN", cursor, "MATCH", std::string{prefix_} + "*", "COUNT", std::string{scan_count}},
      [self = shared_from_this()](result<redis_reply> reply) { self->on_keys(std::move(reply)); });
  }

private:
  void on_keys(result<redis_reply> answer) {
    auto reply = checked(std::move(answer), redis_reply::type::array, "SCAN");
    if (!reply)
      return done_(std::move(reply).error());
    if (reply->elements.size() != 2)
      return done_(error{errc::internal, "SCAN: not the reply of a Redis server"});
    for (const auto& key : reply->elements[1].elements)
      if (key.text.starts_with(prefix_))
        each_(key.text.substr(prefix_.size()));
    if (reply->elements[0].text == "0")
      return done_({});
    ask(reply->elements[0].text);
  }

  redis_client& client_;
  std::string_view prefix_;
  id_handler each_;
  done_handler done_;
  std::size_t scans_ = 0;
};

/// Reads the values of many keys; kept alive by the handlers of the commands under way. A value
/// longer than `bytes_max` comes with one byte more than that and cut; none, and one that is no
/// string, as nothing.
class value_reading : public std::enable_shared_from_this<value_reading> {
public:
  using value_handler = std::function<void(const instance_id&, const std::string& value)>;

  value_reading(
    redis_client& client, std::string_view prefix, std::vector<instance_id> ids,
    std::size_t bytes_max, value_handler each, done_handler done)
    : client_{client},
      prefix_{prefix},
      ids_{std::move(ids)},
      last_byte_{std::to_string(bytes_max)},
      each_{std::move(each)},
      done_{std::move(done)} {}

  /// Asks for what fits into the window; at the end, tells so.
  void go_on() {
    while (!ended_ && next_ < ids_.size() && under_way_ < window)
      ask(next_++);
    if (!ended_ && next_ == ids_.size() && under_way_ == 0)
      end({});
  }

private:
  void ask(std::size_t at) {
    ++under_way_;
    client_.send(
      {"GETRANGE", std::string{prefix_} + ids_[at], "0", last_byte_},
      [self = shared_from_this(), at](result<redis_reply> reply) {
        --self->under_way_;
        if (self->ended_)
          return;
        self->take(self->ids_[at], std::move(reply));
        self->go_on();
      });
  }

  void take(const instance_id& id, result<redis_reply> answer) {
    if (
      answer && answer->kind == redis_reply::type::failure && answer->text.starts_with("WRONGTYPE"))
      return each_(id, {});
    auto reply = checked(std::move(answer), redis_reply::type::text, "GETRANGE");
    if (!reply)
      return end(std::move(reply).error());
    each_(id, reply->text);
  }

  void end(result<void> how) {
    ended_ = true;
    done_(std::move(how));
  }

  redis_client& client_;
  std::string_view prefix_;
  std::vector<instance_id> ids_;
  std::string last_byte_;
  value_handler each_;
  done_handler done_;
  std::size_t next_ = 0;
  std::size_t under_way_ = 0;
  bool ended_ = false;
};

void read_values(
  redis_client& client, std::string_view prefix, std::vector<instance_id> ids,
  std::size_t bytes_max, value_reading::value_handler each, done_handler done) {
  std::make_shared<value_reading>(
    client, prefix, std::move(ids), bytes_max, std::move(each), std::move(done))
    ->go_on();
}

/// The record of that instance, if it is one that can be used.
template <class Record>
std::optional<Record> usable(
  const instance_id& id, const std::string& value, std::size_t bytes_max,
  result<Record> (*decode)(std::string_view), const odd_record_handler& odd) {
  if (value.size() > bytes_max) {
    odd(id, "it is too long");
    return std::nullopt;
  }
  auto record = decode(value);
  if (!record) {
    odd(id, record.error().context);
    return std::nullopt;
  }
  record->instance_id = id;
  if (auto flaw = flaw_of(*record); !flaw.empty()) {
    odd(id, flaw);
    return std::nullopt;
  }
  return std::move(*record);
}

} // namespace

void read_metadata_records(
  redis_client& client, odd_record_handler odd,
  std::function<void(result<std::vector<instance_metadata>>)> done) {
  auto ids = std::make_shared<std::set<instance_id>>(); // a SCAN may name a key twice
  auto found = std::make_shared<std::vector<instance_metadata>>();
  auto note_key = [ids, odd](std::string id) {
    if (id.size() > id_bytes_max)
      odd(std::string_view{id}.substr(0, id_bytes_max), "its instance id is longer than 512 bytes");
    else if (ids->size() < instances_max || ids->contains(id))
      ids->insert(std::move(id));
    else
      odd("*", "there are more than 16384 instances");
  };
  auto take = [found, odd](const instance_id& id, const std::string& value) {
    if (value.empty())
      return; // expired since the SCAN, or no string
    if (auto record = usable(id, value, metadata_bytes_max, decode_metadata, odd))
      found->push_back(std::move(*record));
  };
  auto finish = [found, done](result<void> how) {
    if (how)
      done(std::move(*found));
    else
      done(std::move(how).error());
  };
  auto read_all = [&client, ids, take, finish, done](result<void> how) {
    if (!how)
      return done(std::move(how).error());
    read_values(
      client, metadata_key_prefix, {ids->begin(), ids->end()}, metadata_bytes_max, take, finish);
  };
  std::make_shared<key_scan>(client, metadata_key_prefix, note_key, read_all)->ask("0");
}

void read_status_records(
  redis_client& client, std::vector<instance_id> instances, odd_record_handler odd,
  std::function<void(result<stored_statuses>)> done) {
  auto all = std::make_shared<stored_statuses>();
  auto take
    = [all, odd, bytes = std::size_t{0}](const instance_id& id, const std::string& value) mutable {
        bytes += value.size();
        if (value.empty())
          all->missing.push_back(id);
        else if (bytes > statuses_bytes_max && value.size() > small_bytes)
          odd(id, "the statuses are too long together");
        else if (auto record = usable(id, value, status_bytes_max, decode_status, odd))
          all->found.push_back(std::move(*record));
      };
  auto finish = [all, done](result<void> how) {
    if (how)
      done(std::move(*all));
    else
      done(std::move(how).error());
  };
  read_values(client, status_key_prefix, std::move(instances), status_bytes_max, take, finish);
}

} // namespace llumnix
