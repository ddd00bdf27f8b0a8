#pragma once

#include "apps/load/load_stats.hpp"
#include "apps/load/patterns.hpp"
#include "apps/load/verify_modeled.hpp"
#include "runtime/base/time.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::load {

/// Reads the reply to one request as it arrives, times it, and says how it went.
///
/// Knows neither sockets nor clocks: bytes and times are handed in. Its memory is bounded by the
/// longest event of a stream, or by the longest whole reply.
class reply_check {
public:
  /// `verify`: recompute every token as a modeled engine would. `model_length`: tokens that a
  /// prompt and its output may have together, if known.
  reply_check(
    const planned_request& request, const pattern_options& options, bool verify,
    std::optional<std::uint32_t> model_length, time_point due, load_stats& stats);

  void on_head(int status, std::string_view request_id, bool event_stream);
  void on_body(std::string_view piece, time_point now);
  /// The reply is complete; `failure` says why it is not, if it is not. Call once.
  request_outcome finish(std::string_view failure, time_point now);

private:
  struct choice_state {
    std::optional<output_checker> checker;
    bool ended = false;
  };

  void on_line(std::string_view line, time_point now);
  void on_event(std::string_view data, time_point now);
  void on_document(const nlohmann::json& document, bool whole, time_point now);
  void on_choice(const nlohmann::json& choice, bool whole, time_point now);
  void on_usage(const nlohmann::json& usage);
  void on_error(const nlohmann::json& error);
  void on_text(choice_state& choice, std::uint32_t index, std::string_view text, time_point now);
  void fail(std::string why);
  void wrong(std::uint32_t choice, mismatch what);
  void check_completeness();

  load_stats& stats_;
  time_point due_;
  bool chat_;
  bool stream_;
  bool verify_;
  std::uint64_t index_;
  std::uint64_t prompt_tokens_ = 0;
  std::vector<choice_state> choices_;

  int status_ = 0;
  std::string request_id_;
  std::string buffer_; ///< an unfinished line of a stream, or the whole of another reply
  std::string event_;  ///< data lines of the event at hand
  bool done_ = false;  ///< [DONE] has come
  bool any_text_ = false;
  time_point first_text_;
  time_point last_text_;
  std::uint64_t pieces_ = 0;
  std::optional<std::uint64_t> usage_prompt_;
  std::optional<std::uint64_t> usage_output_;
  request_outcome outcome_;
};

} // namespace llumnix::load
