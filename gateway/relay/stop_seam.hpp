#pragma once

#include "gateway/relay/relay_chunk.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace llumnix::relay {

/// The byte that so many characters before the end of UTF-8 text begin at; 0 where it has no more.
std::size_t characters_back(std::string_view text, std::size_t characters);

/// The text of a stream with stop strings, from where an engine goes on behind all tokens that
/// others told: a plain value.
///
/// That engine looks for stop strings only in what it says itself, holds nothing back and shows
/// those that it finds. What it would do, had it also said what came before, is done here: as many
/// characters are held back as may turn out to begin a stop string, one that begins before the seam
/// is found, and the one that ends the output is cut off where the client does not want it. As
/// vLLM's `check_stop_strings` has it: of several the one that is complete first counts, then the
/// one that was named first.
class stop_seam {
public:
  /// `before`: the end of the text so far, of which the last `hidden` bytes were not shown; what is
  /// more than `request.stop_reach` characters is of no use. The request must outlive this.
  stop_seam(const relay_request& request, std::string before, std::size_t hidden);

  /// What comes of an event.
  struct passage {
    std::string text;      ///< to be shown now
    std::string_view stop; ///< of the request: it ends the output; empty while none does
  };
  /// Takes what the engine says next. The text of a token that ends an output is dropped where it
  /// comes alone, as it is not shown unless stop strings are.
  passage pass(const chunk_choice& choice);
  /// The text not shown yet.
  std::string_view hidden() const { return std::string_view{text_}.substr(text_.size() - hidden_); }

private:
  struct match {
    std::string_view stop;
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  match find_stop(std::size_t old) const;
  bool shows_stops() const { return request_->held_back == 0; }

  const relay_request* request_;
  std::string text_; ///< the end of it
  std::size_t hidden_;
};

} // namespace llumnix::relay
