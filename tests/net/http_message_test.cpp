#include "net/http_client.hpp"
#include "net/http_date.hpp"
#include "net/http_message.hpp"
#include "net/http_writer.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>

using namespace llumnix;
using namespace llumnix::net;

TEST_CASE("a url is taken apart, or refused") {
  struct row {
    const char* url;
    const char* host;
    const char* port;
    const char* path;
  };
  for (auto [url, host, port, path] :
       {row{"http://a", "a", "80", "/"}, row{"http://a:8089", "a", "8089", "/"},
        row{"http://a:1/b/c?d=e", "a", "1", "/b/c?d=e"}, row{"http://a?d", "a", "80", "/?d"},
        row{"http://[::1]:80/x", "::1", "80", "/x"}, row{"http://[::1]", "::1", "80", "/"},
        row{"http://a/b#c", "a", "80", "/b"}, row{"http://a/x:y", "a", "80", "/x:y"}}) {
    CAPTURE(url);
    auto parsed = parse_url(url);
    REQUIRE(parsed.has_value());
    CHECK(parsed->host == host);
    CHECK(parsed->port == port);
    CHECK(parsed->path == path);
  }
  for (auto url :
       {"", "a", "https://a", "http://", "http:///x", "http://:80", "http://a:", "http://a:0",
        "http://a:65536", "http://a:8x", "http://u@a", "http://a b", "http://a/b\r\nx: y",
        "http://::1", "http://[::1", "http://[::1]x"}) {
    CAPTURE(url);
    auto parsed = parse_url(url);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().code == errc::invalid_argument);
  }
}

TEST_CASE("escapes of a path are resolved, and malformed ones refused") {
  using row = std::pair<const char*, std::optional<std::string>>;
  for (auto [text, decoded] :
       {row{"/a", "/a"}, row{"/%41%2fb", "/A/b"}, row{"%C3%A9", "\xc3\xa9"}, row{"/a+b", "/a+b"},
        row{"%", {}}, row{"%4", {}}, row{"%4g", {}}, row{"a%00b", {}}}) {
    CAPTURE(text);
    CHECK(percent_decode(text) == decoded);
  }
}

TEST_CASE("a clean path has no empty segments and no dots, and stays where it was") {
  using row = std::pair<const char*, const char*>;
  for (auto [path, clean] :
       {row{"/", "/"}, row{"", "/"}, row{"/a/b", "/a/b"}, row{"/a/b/", "/a/b/"}, row{"//", "/"},
        row{"//a", "/a"}, row{"/a//b", "/a/b"}, row{"/a///", "/a/"}, row{"/.", "/"},
        row{"/./a/./", "/a/"}, row{"/a/.", "/a"}, row{"/a/..", "/"}, row{"/a/b/../c", "/a/c"},
        row{"/a/../../..", "/"}, row{"/../a", "/a"}, row{"/...", "/..."}, row{"/.a/b.", "/.a/b."},
        row{"/a/../", "/"}, row{"a/b", "/a/b"}}) {
    CAPTURE(path);
    CHECK(clean_path(path) == clean);
    CHECK(clean_path(clean) == clean);
  }
}

TEST_CASE("a path is escaped so that it reads back") {
  using row = std::pair<std::string, const char*>;
  for (auto& [path, escaped] :
       {row{"/a-b_c.d~e/1:2", "/a-b_c.d~e/1:2"}, row{"/a b?c#d%e", "/a%20b%3Fc%23d%25e"},
        row{"/\\\r\n\"<>", "/%5C%0D%0A%22%3C%3E"}, row{"/\xc3\xa9", "/%C3%A9"}}) {
    CAPTURE(path);
    CHECK(percent_encode_path(path) == escaped);
    CHECK(percent_decode(escaped) == path);
  }
}

TEST_CASE("a query value is the first of its name") {
  struct row {
    const char* query;
    const char* value;
  };
  for (auto [query, value] :
       {row{"a=1", "1"}, row{"b=2&a=1&a=3", "1"}, row{"", ""}, row{"aa=1", ""}, row{"a", ""},
        row{"a=x+y%21", "x y!"}, row{"%61=1", "1"}, row{"a=%zz", "%zz"}, row{"a=b=c", "b=c"}}) {
    CAPTURE(query);
    CHECK(query_value(query, "a") == value);
  }
}

TEST_CASE("a reply says what is true of it whatever its headers claim") {
  std::string out;
  append_reply(
    out, {404, {{"Content-Length", "7"}, {"connection", "upgrade"}, {"x", "a\r\nevil: b"}}, "no"},
    {});
  CHECK(out == "HTTP/1.1 404 Not Found\r\nx: a  evil: b\r\ncontent-length: 2\r\n\r\nno");
  out.clear();
  append_reply(out, {204, {}, "ignored"}, {.keep_alive = false});
  CHECK(out == "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
  out.clear();
  append_reply(out, {200, {}, "body"}, {.keep_alive = true, .http_1_0 = true, .head_only = true});
  CHECK(out == "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\n");
}

TEST_CASE("a key is borne behind its scheme in any case, and not needed where none is wanted") {
  struct row {
    std::string_view authorization, key;
    bool may;
  };
  for (auto [authorization, key, may] :
       {row{"", "", true}, row{"Basic x", "", true}, row{"Bearer secret", "secret", true},
        row{"bEARER secret", "secret", true}, row{"Bearer se cret", "se cret", true},
        row{"", "secret", false}, row{"secret", "secret", false}, row{"Bearer", "secret", false},
        row{"Bearer ", "secret", false}, row{"Bearer secre", "secret", false},
        row{"Bearer secret ", "secret", false}, row{"Bearer  secret", "secret", false},
        row{"Bearer Secret", "secret", false}, row{"Basic secret", "secret", false}}) {
    CAPTURE(authorization);
    CHECK(bears_key(authorization, key) == may);
  }
}

TEST_CASE("a list of tokens lists each of them, in any case, and nothing else") {
  struct row {
    std::string_view value, token;
    bool listed;
  };
  for (auto [value, token, listed] :
       {row{"close", "close", true}, row{"Keep-Alive,\t X-Session-Id", "x-session-id", true},
        row{"x-session", "x-session-id", false}, row{"", "close", false},
        row{"x-session-id-2", "x-session-id", false}}) {
    CAPTURE(value);
    CHECK(lists_token(value, token) == listed);
  }
}

TEST_CASE("dates are read in the three forms there are") {
  using row = std::pair<const char*, std::optional<std::int64_t>>;
  for (auto [text, seconds] : // the example of RFC 9110 5.6.7; 784111777 by `date -u +%s`
       {row{"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        row{"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        row{"Sun Nov  6 08:49:37 1994", 784111777}, row{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        row{"Sun, 06 Nov 1994 08:49:37 GMT ", std::nullopt},
        row{"Sun, 06 Nov 1994 08:49:37 CET", std::nullopt},
        row{"Sun, 06 Nov 1994 25:49:37 GMT", std::nullopt}, row{"", std::nullopt},
        row{"120", std::nullopt}, row{"tomorrow", std::nullopt}}) {
    CAPTURE(text);
    CHECK(parse_http_date(text) == seconds);
  }
  CHECK_FALSE(parse_http_date(std::string(1'000'000, ' ')));
  CHECK_FALSE(parse_http_date(std::string_view{"Sun, 06 Nov 1994 08:49:37 GMT\0", 30}));
}
