#include "integrations/discovery/redis_records.hpp"

#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/pod_ledger.hpp"
#include "integrations/discovery/pod_record.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

namespace llumnix {
namespace {

constexpr std::size_t records_per_turn = 256;
constexpr std::size_t key_bytes_max = 512;

using reading_done = std::function<void(result<stored_records>)>;

/// One reading; kept alive by the handlers of the commands it waits for.
class records_reading : public std::enable_shared_from_this<records_reading> {
public:
  records_reading(redis_client& client, time_point deadline, reading_done done)
    : client_{client}, deadline_{deadline}, done_{std::move(done)} {}

  void scan(std::string cursor) {
    client_.send(
      {"SCAN", std::move(cursor), "MATCH", std::string{redis_record_prefix} + "*", "COUNT", "1000"},
      [self = shared_from_this()](result<redis_reply> reply) { self->on_keys(std::move(reply)); });
  }

private:
  /// Whether the reading goes on; ends it if not.
  bool good(const result<redis_reply>& reply, std::string_view command) {
    error wrong;
    if (!reply)
      wrong = reply.error();
    else if (reply->kind == redis_reply::type::failure)
      wrong = {errc::internal, printable(reply->text)};
    else if (std::chrono::steady_clock::now() > deadline_)
      wrong = {errc::timeout, "the records do not end in time"};
    else
      return true;
    end(std::move(wrong).while_doing(command));
    return false;
  }

  void end(result<stored_records> with) {
    if (done_)
      std::exchange(done_, nullptr)(std::move(with));
  }

  void on_keys(result<redis_reply> reply) {
    if (!good(reply, "SCAN"))
      return;
    if (
      reply->elements.size() != 2 || reply->elements[0].kind != redis_reply::type::text
      || reply->elements[1].kind != redis_reply::type::array)
      return end(error{errc::bad_message, "SCAN: not the reply of a Redis server"});
    for (const auto& key : reply->elements[1].elements)
      take_key(key.text);
    if (reply->elements[0].text != "0")
      return scan(std::move(reply->elements[0].text));
    left_.assign(pods_.rbegin(), pods_.rend());
    read_some();
  }

  void take_key(std::string_view key) {
    if (!key.starts_with(redis_record_prefix))
      return;
    if (key.size() > key_bytes_max)
      return found_.problems.push_back("the key '" + printable(key, 64) + "' is too long");
    pods_.emplace(key.substr(redis_record_prefix.size())); // a SCAN may name a key twice
    if (pods_.size() > records_max) {
      pods_.erase(std::prev(pods_.end()));
      too_many_ = true;
    }
  }

  void read_some() {
    if (left_.empty() || found_bytes_ > records_bytes_max)
      return finish();
    waiting_ = std::min(left_.size(), records_per_turn);
    for (auto count = waiting_; count > 0; --count) {
      auto pod = std::move(left_.back());
      left_.pop_back();
      client_.send(
        {"GETRANGE", std::string{redis_record_prefix} + pod, "0", std::to_string(record_bytes_max)},
        [self = shared_from_this(), pod](result<redis_reply> reply) {
          self->on_value(pod, std::move(reply));
        });
    }
  }

  void on_value(const std::string& pod, result<redis_reply> reply) {
    --waiting_;
    if (!done_)
      return; // another one ended it
    if (reply && reply->kind == redis_reply::type::failure && reply->text.starts_with("WRONGTYPE"))
      found_.problems.push_back("the key of '" + printable(pod) + "' holds no text");
    else if (!good(reply, "GETRANGE"))
      return;
    else if (reply->kind != redis_reply::type::text)
      return end(error{errc::bad_message, "GETRANGE: not the reply of a Redis server"});
    else if (!reply->text.empty()) // else it went since the SCAN
      take_value(pod, std::move(reply->text));
    if (waiting_ == 0)
      read_some();
  }

  void take_value(const std::string& pod, std::string bytes) {
    if (bytes.size() > record_bytes_max)
      return found_.problems.push_back("the record of '" + printable(pod) + "' is too long");
    found_bytes_ += bytes.size();
    found_.bytes_of_pod.emplace(pod, std::move(bytes));
  }

  void finish() {
    if (too_many_ || !left_.empty())
      found_.problems.push_back("there are more records than are read; the last ones are left out");
    end(std::move(found_));
  }

  redis_client& client_;
  time_point deadline_;
  reading_done done_; // null once ended
  std::set<std::string> pods_;
  bool too_many_ = false;
  std::vector<std::string> left_; // next one last
  std::size_t waiting_ = 0;       // commands of this turn without a reply
  stored_records found_;
  std::size_t found_bytes_ = 0;
};

} // namespace

void read_redis_records(redis_client& client, time_point deadline, reading_done done) {
  std::make_shared<records_reading>(client, deadline, std::move(done))->scan("0");
}

} // namespace llumnix
