#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace llumnix::relay {

/// What makes an engine connect somewhere, or wait for somebody to do so: `kv_transfer_params`,
/// `ec_transfer_params`, `bootstrap_*` (spec/gateway.md 6). Not for a client to say.
inline bool connects(std::string_view name) {
  return name == "kv_transfer_params" || name == "ec_transfer_params"
         || name.starts_with("bootstrap_");
}

/// A stretch of a body, in bytes.
struct body_range {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const body_range&, const body_range&) = default;
};

/// Where the top level of a body, an object, can be changed without reading it once more: what is
/// to be cut out of it, with the commas around that, and where a member can be added. A plain
/// value, told of the object's members in their order.
class body_layout {
public:
  /// `inside`: the first byte behind the opening bracket.
  void begin(std::size_t inside) { insertion_ = last_end_ = inside; }
  /// A member from its key's quotation mark to behind its value, which stays in the body or goes.
  void add(body_range member, bool kept) {
    if (kept && empty_ && last_end_ > insertion_)
      cuts_.push_back({insertion_, member.begin}); // all before it, with the comma
    else if (!kept && !empty_)
      cut({last_end_, member.end});
    if (kept) {
      empty_ = false;
      insertion_ = member.end;
    }
    last_end_ = member.end;
  }
  void end() {
    if (empty_ && last_end_ > insertion_)
      cuts_.push_back({insertion_, last_end_});
  }

  /// In order, apart from each other.
  const std::vector<body_range>& cuts() const { return cuts_; }
  /// Where a member can be added, with a comma before it unless the object is `empty`.
  std::size_t insertion() const { return insertion_; }
  bool empty() const { return empty_; }

private:
  void cut(body_range what) {
    if (!cuts_.empty() && cuts_.back().end == what.begin)
      cuts_.back().end = what.end;
    else
      cuts_.push_back(what);
  }

  std::vector<body_range> cuts_;
  std::size_t insertion_ = 0;
  std::size_t last_end_ = 0; ///< of the member told last
  bool empty_ = true;        ///< no member stays, so far
};

} // namespace llumnix::relay
