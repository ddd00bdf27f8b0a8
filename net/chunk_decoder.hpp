#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::net {

/// Undoes the chunked transfer coding of one body, in pieces of any size. Extensions and trailers
/// are checked and dropped. Strict, because laxness between two servers is what smuggling lives on:
/// every line ends in CR LF, sizes are hexadecimal digits, trailers are header fields, and what
/// surrounds the data is bounded. Beast's own decoder waits for a CR LF before it looks, so that a
/// bare LF would be a timeout instead of an error.
class chunk_decoder {
public:
  enum class status { need_more, complete, malformed, too_long };

  /// `max_body` bounds the decoded body, in bytes.
  explicit chunk_decoder(std::size_t max_body) : room_{max_body} {}

  /// Consumes from the front of `data` and appends what it decodes to `body`. After `complete`,
  /// what is left in `data` belongs to the next message.
  status feed(std::string_view& data, std::string& body);

  /// The same without a copy: consumes up to the end of the next `piece` of content, which is part
  /// of `data`. An empty piece with `need_more`: all of `data` is consumed.
  status next(std::string_view& data, std::string_view& piece);

private:
  enum class state {
    size_start,
    size,
    extension,
    size_lf,
    content,
    content_cr,
    content_lf,
    trailer_start,
    trailer_name,
    trailer_value,
    trailer_lf,
    last_lf,
    done,
  };

  status on_size(char c);
  status on_framing(char c);

  state state_ = state::size_start;
  std::uint64_t chunk_ = 0; // bytes left of the current chunk
  std::size_t framing_ = 0; // bytes of the current size line, or of the trailers
  std::size_t room_;
};

} // namespace llumnix::net
