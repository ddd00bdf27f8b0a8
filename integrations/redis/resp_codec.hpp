#pragma once

#include "runtime/base/result.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct redisReader;

namespace llumnix {

/// A whole reply of a Redis server.
struct redis_reply {
  enum class type : std::uint8_t { nil, text, integer, failure, array };
  type kind = type::nil;
  std::string text;         ///< of `text` (bulk or status) and of `failure` ("WRONGPASS ...")
  std::int64_t integer = 0; ///< of `integer`
  std::vector<redis_reply> elements; ///< of `array`
};

/// Appends one command in RESP to `out`. Words may hold any bytes.
void append_command(std::string& out, std::span<const std::string> words);

/// Cuts a stream of bytes into replies (RESP2), with hiredis as the parser.
class resp_reader {
public:
  resp_reader();
  resp_reader(const resp_reader&) = delete; // the parser points into it
  resp_reader& operator=(const resp_reader&) = delete;
  /// `internal` once more bytes wait for the end of a reply than any reply of ours has.
  result<void> feed(std::string_view bytes);
  /// The next whole reply, nothing while it is incomplete, `internal` for bytes no server sends.
  /// After a failure the stream is lost.
  result<std::optional<redis_reply>> next();

private:
  struct closer {
    void operator()(redisReader* reader) const;
  };
  std::unique_ptr<redisReader, closer> reader_;
  std::int64_t budget_ = 0; ///< array elements the reply being read may still announce
};

} // namespace llumnix
