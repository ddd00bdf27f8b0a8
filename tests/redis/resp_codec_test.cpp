#include "integrations/redis/resp_codec.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace llumnix {

using type = redis_reply::type;

TEST_CASE("commands carry words of any bytes") {
  std::string out = "x";
  append_command(out, std::vector<std::string>{"SET", std::string{"a\0\r\n", 4}, ""});
  CHECK(out == std::string{"x*3\r\n$3\r\nSET\r\n$4\r\na\0\r\n\r\n$0\r\n\r\n", 30});
}

TEST_CASE("replies come out whole however the bytes arrive") {
  const std::string stream
    = "+PONG\r\n:-7\r\n$-1\r\n-ERR no\r\n*2\r\n$1\r\n0\r\n*2\r\n$2\r\n\r\n\r\n$-1\r\n*0\r\n";
  for (std::size_t piece : {std::size_t{1}, std::size_t{3}, stream.size()}) {
    CAPTURE(piece);
    resp_reader reader;
    std::vector<redis_reply> replies;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      REQUIRE(reader.feed(std::string_view{stream}.substr(at, piece)));
      for (;;) {
        auto reply = reader.next();
        REQUIRE(reply);
        if (!*reply)
          break;
        replies.push_back(**reply);
      }
    }
    REQUIRE(replies.size() == 6);
    CHECK(replies[0].text == "PONG");
    CHECK(replies[1].integer == -7);
    CHECK(replies[2].kind == type::nil);
    CHECK(replies[3].kind == type::failure);
    CHECK(replies[3].text == "ERR no");
    REQUIRE(replies[4].elements.size() == 2);
    CHECK(replies[4].elements[0].text == "0");
    REQUIRE(replies[4].elements[1].elements.size() == 2);
    CHECK(replies[4].elements[1].elements[0].text == "\r\n");
    CHECK(replies[4].elements[1].elements[1].kind == type::nil);
    CHECK(replies[5].kind == type::array);
  }
}

TEST_CASE("bytes no server sends end the stream with an error") {
  struct row {
    const char* what;
    const char* bytes;
  };
  for (auto [what, bytes] :
       {row{"RESP3", "%1\r\n"}, row{"HTTP", "HTTP/1.1 400 Bad Request\r\n"},
        row{"an array of gigabytes", "*2000000000\r\n"},
        row{"arrays that add up", "*900000\r\n*900000\r\n"},
        row{"an array of negative length", "*-5\r\n"}, row{"a length that is none", "$x\r\n"}}) {
    CAPTURE(what);
    resp_reader reader;
    REQUIRE(reader.feed(bytes));
    auto reply = reader.next();
    for (int i = 0; i < 3 && reply; ++i)
      reply = reader.next();
    CHECK_FALSE(reply);
  }
}

} // namespace llumnix
