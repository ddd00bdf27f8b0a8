#pragma once

#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/relay_chunk.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

/// Reads the object of one event, of any endpoint or an error, in one pass.
class event_parser {
public:
  /// Of `facts` the choices may hold earlier ones: their buffers are used again. `parts` becomes
  /// the bytes of the arrays of token ids and of the members with a usage. `tokens`: the event is
  /// to be one of /inference/v1/generate, else of one of the two others.
  event_parser(json_cursor& at, chunk_facts& facts, chunk_reader::parts& parts, bool tokens)
    : at_{at}, facts_{facts}, parts_{parts}, tokens_{tokens} {}

  /// Whether the event is none is told by the cursor's failure.
  void read();

private:
  /// What the members say of one choice beside its facts.
  struct choice_form {
    bool index = false;
    bool role = false;
    int texts = 0; ///< `delta` or `text`
    bool delta = false;
  };

  void read_member(std::string_view key);
  void read_choices();
  void read_choice(chunk_choice& choice);
  void read_choice_member(std::string_view key, chunk_choice& choice, choice_form& form);
  void read_delta(chunk_choice& choice, choice_form& form);
  void read_usage();
  void read_prompt_details();
  void read_error();
  void conclude();
  void conclude_error();

  bool skip_null();
  void read_text(std::string& text);
  void read_ids(std::vector<token_id>& ids);
  void read_prompt_ids();
  void read_count(std::uint64_t& count);

  json_cursor& at_;
  chunk_facts& facts_;
  chunk_reader::parts& parts_;
  bool tokens_;
  std::size_t choices_ = 0; ///< read so far
  bool has_choices_ = false;
  bool error_ = false;
  std::string_view message_; ///< of an error, as JSON
  std::string_view code_;
};

} // namespace llumnix::relay
