#include "integrations/redis/record_reader.hpp"

#include "integrations/redis/cms_codec.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace llumnix {

namespace {

constexpr std::size_t instances_per_read = 256;

bool known_type(std::string_view type) {
  return type == "neutral" || type == "prefill" || type == "decode";
}

// One reading; kept alive by the handler of the command it waits for.
class record_reader : public std::enable_shared_from_this<record_reader> {
public:
  record_reader(
    redis_client& client, odd_record_handler odd,
    std::function<void(result<std::vector<stored_instance>>)> done)
    : client_{client}, odd_{std::move(odd)}, done_{std::move(done)} {}

  void scan(std::string cursor) {
    ask(
      {"SCAN", std::move(cursor), "MATCH", std::string{metadata_key_prefix} + "*", "COUNT", "1000"},
      &record_reader::on_keys);
  }

private:
  using step = void (record_reader::*)(redis_reply reply);

  void ask(const std::vector<std::string>& words, step on_array) {
    client_.send(
      words,
      [self = shared_from_this(), what = words.front(), on_array](result<redis_reply> reply) {
        if (!reply)
          return self->done_(std::move(reply).error().while_doing(what));
        if (reply->kind == redis_reply::type::failure)
          return self->done_(error{errc::internal, what + ": " + reply->text});
        if (reply->kind != redis_reply::type::array)
          return self->done_(error{errc::internal, what + ": not the reply of a Redis server"});
        (self.get()->*on_array)(std::move(*reply));
      });
  }

  void on_keys(redis_reply reply) {
    if (reply.elements.size() != 2)
      return done_(error{errc::internal, "SCAN: not the reply of a Redis server"});
    for (auto& key : reply.elements[1].elements)
      if (key.text.starts_with(metadata_key_prefix))
        ids_.insert(key.text.substr(metadata_key_prefix.size())); // a SCAN may name a key twice
    if (reply.elements[0].text != "0")
      return scan(reply.elements[0].text);
    left_.assign(ids_.rbegin(), ids_.rend());
    read_some();
  }

  void read_some() {
    if (left_.empty())
      return done_(std::move(found_));
    asked_.assign(
      left_.rbegin(),
      left_.rbegin() + static_cast<std::ptrdiff_t>(std::min(left_.size(), instances_per_read)));
    left_.resize(left_.size() - asked_.size());
    std::vector<std::string> words{"MGET"};
    for (auto prefix : {metadata_key_prefix, status_key_prefix})
      for (const auto& id : asked_)
        words.push_back(std::string{prefix} + id);
    ask(words, &record_reader::on_values);
  }

  void on_values(redis_reply reply) {
    if (reply.elements.size() != 2 * asked_.size())
      return done_(error{errc::internal, "MGET: not the reply of a Redis server"});
    for (std::size_t i = 0; i < asked_.size(); ++i)
      take(asked_[i], reply.elements[i], reply.elements[asked_.size() + i]);
    read_some();
  }

  // Nil stands for a key that has expired since the SCAN, and for one that is not a string.
  void
  take(const std::string& id, const redis_reply& metadata_value, const redis_reply& status_value) {
    if (metadata_value.kind != redis_reply::type::text)
      return;
    if (id.empty())
      return odd_(id, "a key without an instance id");
    auto metadata = decode_metadata(metadata_value.text);
    if (!metadata)
      return odd_(id, metadata.error().context);
    if (!known_type(metadata->instance_type))
      return odd_(id, "instance_type is none of neutral, prefill and decode");
    stored_instance instance{std::move(*metadata), {}, false};
    instance.metadata.instance_id = id;
    if (status_value.kind == redis_reply::type::text) {
      if (auto status = decode_status(status_value.text)) {
        instance.status = std::move(*status);
        instance.status.instance_id = id;
        instance.has_status = true;
      } else {
        odd_(id, status.error().context);
      }
    }
    found_.push_back(std::move(instance));
  }

  redis_client& client_;
  odd_record_handler odd_;
  std::function<void(result<std::vector<stored_instance>>)> done_;
  std::set<std::string> ids_;
  std::vector<std::string> left_;  // next one last
  std::vector<std::string> asked_; // by the MGET under way
  std::vector<stored_instance> found_;
};

} // namespace

void read_records(
  redis_client& client, odd_record_handler odd,
  std::function<void(result<std::vector<stored_instance>>)> done) {
  std::make_shared<record_reader>(client, std::move(odd), std::move(done))->scan("0");
}

} // namespace llumnix
