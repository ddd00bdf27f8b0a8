#include "integrations/discovery/etcd_reading.hpp"

#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/pod_ledger.hpp"
#include "integrations/discovery/pod_record.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

constexpr std::size_t key_bytes_max = 512;
constexpr int miscounts_max = 3; // what is just being written may be counted on one side only

error bad(std::string what) {
  return {errc::bad_message, std::move(what)};
}

} // namespace

std::string_view pod_of_etcd_key(std::string_view key) {
  bool fits = key.starts_with(etcd_record_prefix) && key.size() <= key_bytes_max;
  return fits ? key.substr(etcd_record_prefix.size()) : std::string_view{};
}

std::string etcd_reading::next() const {
  return etcd::range_request(from_, page_records_, revision);
}

result<bool> etcd_reading::take(etcd::range_reply page) {
  if (revision == 0)
    revision = page.revision;
  if (page.records.size() > page_records_ || (page.more && page.records.empty()))
    return bad("a page of another size");
  for (auto& record : page.records) {
    if (!record.key.starts_with(etcd_record_prefix) || record.key < from_)
      return bad("a key that was not asked for");
    from_ = record.key + '\0'; // the next one there can be
    newest = std::max(newest, record.revision);
    keep(std::move(record));
  }
  page_records_ = std::min(2 * page_records_, page_records_max);
  const bool full = bytes_of_pod.size() >= records_max || bytes_ > records_bytes_max;
  if (full && page.more)
    problems.push_back("there are more records than are read; the last ones are left out");
  return full || !page.more;
}

void etcd_reading::keep(etcd::record record) {
  auto pod = pod_of_etcd_key(record.key);
  if (pod.empty()) {
    problems.push_back("the key '" + printable(record.key, 64) + "' names no pod");
    return;
  }
  if (record.value.size() > record_bytes_max)
    record.value.resize(record_bytes_max + 1); // which is too long all the same
  bytes_ += record.value.size();
  bytes_of_pod.emplace(pod, std::move(record.value));
}

bool etcd_reading::shrink() {
  if (page_records_ == 1)
    return false;
  page_records_ = std::max<std::size_t>(page_records_ / 8, 1);
  return true;
}

bool watch_doubt::lags(
  std::int64_t newest_there, std::size_t count_there, std::int64_t newest_told,
  std::size_t count_told) {
  const bool late = newest_told < std::exchange(expected_, newest_there);
  miscounts_ = count_there == count_told ? 0 : miscounts_ + 1;
  return late || miscounts_ >= miscounts_max;
}

} // namespace llumnix
