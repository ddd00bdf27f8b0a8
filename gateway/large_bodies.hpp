#pragma once

#include "gateway/body_reader.hpp"
#include "gateway/parse_pool.hpp"
#include "gateway/request_ids.hpp"
#include "net/http_server.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/time.hpp"
#include "runtime/serving/placement_wishes.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// One request on its way to its route.
struct client_call {
  std::shared_ptr<net::exchange> client;
  net::http_request request;
  request_ids::claim id;
  time_point arrived;
  placement_wishes wishes{};
};

/// The requests of one I/O loop whose bodies are so large that threads of a pool read them. Watches
/// their clients meanwhile: one that leaves is forgotten. Used on the loop only.
class large_bodies {
public:
  /// What is told of a call whose body was read. The request has its body again only if it is to
  /// be relayed.
  using on_read = std::function<void(client_call&, body_content&&)>;

  /// All outlive it.
  large_bodies(parse_pool& pool, executor& loop, on_read told);
  /// Forgets all, and waits for those being read at this moment; nothing is told any more.
  ~large_bodies();
  large_bodies(const large_bodies&) = delete;
  large_bodies& operator=(const large_bodies&) = delete;

  /// Has the call's body read. False if too many wait already: the call is the caller's still, but
  /// for the body.
  bool read(client_call& call, const body_form& form);
  /// Forgets all calls and hands them back, without their bodies, to be answered.
  std::vector<client_call> take_all();
  /// Calls not told of yet.
  std::size_t size() const;

private:
  struct parcel;
  struct reading;
  void on_parcel(std::uint64_t number, parcel& from);
  void on_gone(std::uint64_t number);
  bool stop(reading& which);

  parse_pool& pool_;
  executor& loop_;
  on_read told_;
  std::unordered_map<std::uint64_t, std::unique_ptr<reading>> readings_;
  std::uint64_t last_ = 0;
  std::shared_ptr<large_bodies*> self_; ///< what posted work checks: empty once this is gone
};

} // namespace llumnix
