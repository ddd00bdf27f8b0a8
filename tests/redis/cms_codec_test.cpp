#include "integrations/redis/cms_codec.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace llumnix {

namespace {

struct recorded {
  std::string what;
  std::string key;
  std::string bytes;
  nlohmann::json fields;
};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

/// What the reference wrote to Redis (spec/cms.md 1.2), of one kind of record.
std::vector<recorded> recordings(std::string_view key_prefix) {
  std::ifstream file{LLUMNIX_CMS_RECORDS};
  std::vector<recorded> found;
  const auto all = nlohmann::json::parse(file);
  for (const auto& item : all["items"])
    if (item["key"].get<std::string>().starts_with(key_prefix))
      found.push_back({item["what"], item["key"], from_hex(item["hex"]), item["fields"]});
  return found;
}

/// Copies the named fields and counts which of them a recording had.
class field_taker {
public:
  explicit field_taker(const nlohmann::json& fields) : fields_{fields} {}
  template <class T>
  void operator()(const char* name, T& field) {
    if (fields_.contains(name))
      field = fields_[name].get<T>(), ++taken_;
  }
  bool all_taken() const { return taken_ == fields_.size(); }

private:
  const nlohmann::json& fields_;
  std::size_t taken_ = 0;
};

#define TAKE(field) take(#field, x.field)

instance_metadata metadata_of(field_taker& take) {
  instance_metadata x;
  TAKE(instance_id), TAKE(instance_type), TAKE(backend_type), TAKE(ip), TAKE(ip_kvs);
  TAKE(api_server_port), TAKE(llumlet_port), TAKE(kvt_port), TAKE(node_id);
  TAKE(data_parallel_size), TAKE(tensor_parallel_size), TAKE(unit_id), TAKE(dp_rank);
  TAKE(ep_rank), TAKE(dp_local_rank), TAKE(utc_create), TAKE(utc_update), TAKE(ip_kvt);
  TAKE(block_size), TAKE(max_num_batched_tokens);
  return x;
}

instance_status status_of(field_taker& take) {
  instance_status x;
  x.profiling_id = 0; // what is not on the wire is zero
  TAKE(instance_id), TAKE(schedulable), TAKE(timestamp_ms), TAKE(step_id), TAKE(update_id);
  TAKE(recent_waiting_requests), TAKE(waiting_requests);
  TAKE(hybrid_scheduler_waiting_to_decode_requests_num);
  TAKE(scheduler_waiting_to_decode_requests_num), TAKE(num_waiting_requests);
  TAKE(scheduler_running_to_decode_requests_num), TAKE(num_running_requests);
  TAKE(num_loading_requests), TAKE(num_total_gpu_tokens), TAKE(num_used_gpu_tokens);
  TAKE(num_uncomputed_tokens_hybrid_scheduler_waiting_prefills);
  TAKE(num_unallocated_tokens_hybrid_scheduler_waiting_decodes);
  TAKE(hybrid_scheduler_waiting_to_decode_tokens_num);
  TAKE(num_uncomputed_tokens_scheduler_waiting_prefills);
  TAKE(scheduler_waiting_to_decode_tokens_num);
  TAKE(num_uncomputed_tokens_scheduler_running_prefills);
  TAKE(num_unallocated_tokens_scheduler_running_prefills);
  TAKE(scheduler_running_to_decode_tokens_num), TAKE(num_tokens_loading_requests);
  TAKE(num_uncomputed_tokens_all_waiting_prefills), TAKE(num_migrate_in_reqs);
  TAKE(num_migrate_out_reqs), TAKE(num_available_migrate_in_slots);
  TAKE(num_available_migrate_out_slots), TAKE(num_migrate_in_tokens);
  TAKE(num_migrate_out_tokens), TAKE(num_available_migrate_in_tokens);
  TAKE(num_available_migrate_out_tokens), TAKE(kv_cache_usage_ratio_migrate_in);
  TAKE(kv_cache_usage_ratio_migrate_out), TAKE(available_kv_cache_usage_ratio_migrate_in);
  TAKE(available_kv_cache_usage_ratio_migrate_out), TAKE(profiling_id), TAKE(step_duration);
  TAKE(num_scheduled_prefill_tokens);
  return x;
}

std::string long_varint(char tag) {
  return std::string{tag} + std::string(11, '\xff');
}

} // namespace

TEST_CASE("metadata is written and read byte for byte as the reference does") {
  std::set<std::string> seen;
  for (const auto& record : recordings(metadata_key_prefix)) {
    CAPTURE(record.what);
    field_taker take{record.fields};
    auto expected = metadata_of(take);
    CHECK(take.all_taken());
    CHECK(record.key == std::string{metadata_key_prefix} + expected.instance_id);
    CHECK(encode(expected) == record.bytes);
    auto read = decode_metadata(record.bytes);
    REQUIRE(read);
    CHECK(*read == expected);
    for (const auto& field : record.fields.items())
      seen.insert(field.key());
  }
  CHECK(seen.size() == 20); // the recordings cover every field
}

TEST_CASE("a status is written and read byte for byte as the reference does") {
  std::set<std::string> seen;
  for (const auto& record : recordings(status_key_prefix)) {
    CAPTURE(record.what);
    field_taker take{record.fields};
    auto expected = status_of(take);
    CHECK(take.all_taken());
    CHECK(encode(expected) == record.bytes);
    auto read = decode_status(record.bytes);
    REQUIRE(read);
    CHECK(*read == expected);
    for (const auto& field : record.fields.items())
      seen.insert(field.key());
  }
  CHECK(seen.size() == 40);
}

TEST_CASE("bytes that are no record are refused and nothing worse") {
  struct row {
    const char* what;
    std::string bytes;
  };
  for (const auto& [what, bytes] :
       {row{
          "a length beyond the end", "\x0a\x7f"
                                     "abc"},
        row{"a length of gigabytes", std::string{"\x0a\xff\xff\xff\xff\x07"} + "abc"},
        row{"a varint without an end", long_varint('\x30')}, row{"a tag alone", "\x0a"},
        row{"field number zero", std::string("\x00\x01", 2)},
        row{"an end of a group nobody opened", "\x0c"}, row{"a wire type that is none", "\x0f"},
        row{"text that is not UTF-8", "\x0a\x02\xc3\x28"}, row{"plain text", "hello, store"},
        row{"groups without an end", std::string(100000, '\x0b')}}) {
    CAPTURE(what);
    auto metadata = decode_metadata(bytes);
    REQUIRE_FALSE(metadata);
    CHECK(metadata.error().code == errc::invalid_argument);
    auto status = decode_status(bytes);
    REQUIRE_FALSE(status);
    CHECK(status.error().code == errc::invalid_argument);
  }
}

TEST_CASE("every way to cut or spoil a record either reads as one or is refused") {
  for (auto prefix : {metadata_key_prefix, status_key_prefix})
    for (const auto& record : recordings(prefix))
      for (std::size_t at = 0; at < record.bytes.size(); ++at) {
        auto cut = record.bytes.substr(0, at);
        auto spoiled = record.bytes;
        spoiled[at] = static_cast<char>(~spoiled[at]);
        for (const auto& bytes : {cut, spoiled}) { // what reads must also survive a round trip
          if (auto metadata = decode_metadata(bytes))
            CHECK(decode_metadata(encode(*metadata)));
          if (auto status = decode_status(bytes))
            CHECK(decode_status(encode(*status)));
        }
      }
}

TEST_CASE("fields of a later version are passed over") {
  auto record = recordings(metadata_key_prefix).at(0);
  const std::string later{
    "\xba\x3e\x05hello\xc0\x3e\x2a", 11}; // field 999: bytes, field 1000: varint
  auto read = decode_metadata(later + record.bytes + later);
  REQUIRE(read);
  CHECK(encode(*read) == record.bytes);
}

TEST_CASE("a status that says nothing of a sample has profiling id 0, not -1") {
  auto read = decode_status("");
  REQUIRE(read);
  CHECK(read->profiling_id == 0);
  CHECK(instance_status{}.profiling_id == -1);
}

} // namespace llumnix
