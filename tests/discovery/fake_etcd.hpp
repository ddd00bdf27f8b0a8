#pragma once

#include "discovery_rig.hpp"
#include "net/upstream_pool.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::testing {

/// As much of an etcd behind its JSON gateway as discovery needs, answering as version 3.4 does.
class fake_etcd {
public:
  struct answer {
    int status = 200;
    std::string body;
  };

  void put(const std::string& pod, const std::string& bytes);
  void remove(const std::string& pod);
  /// Forgets what was before now.
  void compact() { compacted_ = revision_; }
  /// Another store in its place: empty, as new.
  void reset();

  /// Anything but a watch. `token` as it was sent.
  answer ask(std::string_view path, const std::string& body, std::string_view token);
  /// From which revision on a watch is asked for.
  static std::int64_t start_of(const std::string& body);
  /// The lines such a watch tells, without the first ones that it told already.
  std::vector<std::string> watch(std::int64_t from, std::size_t told) const;

  std::string user; ///< empty: it knows no users
  std::string password;
  std::string token = "abc.1"; ///< that it hands out and takes

private:
  struct entry {
    std::string bytes; ///< in base64
    std::int64_t revision = 0;
  };
  struct event {
    std::int64_t revision = 0;
    std::string key;
    std::optional<std::string> bytes; ///< in base64; nothing: removed
  };
  answer range(const std::string& body) const;
  std::int64_t revision_ = 1;
  std::int64_t compacted_ = 0;
  std::map<std::string, entry> entries_; ///< by key
  std::vector<event> history_;
};

/// A pool behind which members of one etcd are, on virtual time.
class etcd_pool final : public net::upstream_pool {
public:
  enum class mood { absent, silent, up };
  struct member {
    fake_etcd* store = nullptr;
    mood now = mood::up;
  };
  struct question {
    std::string address, path, token;
  };

  std::unique_ptr<net::upstream_call>
  send(net::upstream_request request, net::upstream_watcher& watcher) override;
  std::size_t connections() const override { return open_.size(); }

  /// Hands over what there is, once; whether there was anything.
  bool deliver();
  /// Ends all watches, as a proxy may.
  void cut_watches();
  std::size_t watches() const;
  std::size_t count(std::string_view path) const;

  std::map<std::string, member> members;            ///< by address
  std::map<std::string, fake_etcd::answer> instead; ///< what is said for a path, whatever is asked
  std::map<std::string, std::vector<std::string>> extra; ///< pieces a watch says after its head
  bool hold_watches_back = false; ///< nothing of them passes, not even their end
  std::vector<question> questions;

private:
  struct call;
  bool deliver(call& to);
  std::vector<call*> open_;
};

} // namespace llumnix::testing
