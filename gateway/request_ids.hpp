#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace llumnix {

/// Whether a client may name its request so: [A-Za-z0-9_.:-]{1,128} (spec/surface.md 3).
bool valid_request_id(std::string_view id);

/// A random UUIDv4, from two draws of the generator.
std::string make_uuid(std::mt19937_64& random);

/// The ids clients gave to requests that run now, over all I/O loops. While one runs, another of
/// the same name gets "<id>-2", then "<id>-3" and so on. Safe from any thread; locks only where a
/// client supplied an id.
class request_ids {
public:
  /// Hold of one id; gives it back when destroyed. Must not outlive the `request_ids`.
  class claim {
  public:
    claim() = default;
    claim(claim&& other) noexcept { swap(other); }
    claim& operator=(claim&& other) noexcept {
      swap(other);
      return *this;
    }
    ~claim();
    const std::string& text() const { return text_; }

  private:
    friend class request_ids;
    void swap(claim& other) noexcept;
    request_ids* owner_ = nullptr; ///< null: a fresh id, known to nobody
    std::string text_;
    std::size_t name_size_ = 0; ///< of `text_`, what the client supplied
  };

  /// The id of a request: `supplied` if it is valid, made unique; else a fresh UUIDv4.
  claim take(std::string_view supplied, std::mt19937_64& random);

private:
  struct name {
    std::size_t running = 0;
    std::uint64_t last_suffix = 1;
  };
  struct hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  void give_back(const claim& id);

  std::mutex mutex_;
  std::unordered_set<std::string, hash, std::equal_to<>> running_;
  std::unordered_map<std::string, name, hash, std::equal_to<>> names_; ///< by what clients supplied
};

} // namespace llumnix
