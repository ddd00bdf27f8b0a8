#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::net {

using header_list = std::vector<std::pair<std::string, std::string>>;

/// One whole HTTP/1.1 request.
struct http_request {
  std::string method;  ///< upper case, as sent
  std::string path;    ///< percent-decoded path without the query, e.g. "/v1/models"
  std::string query;   ///< what follows '?', as sent
  header_list headers; ///< names lower-cased, values trimmed, in order
  std::string body;
  std::string peer; ///< client's address, HOST:PORT
  /// The share of a large body in what the server may hold of bodies: whoever keeps the body keeps
  /// this as long. Null for small ones.
  std::shared_ptr<const void> held{};

  /// The first header of that (lower-case) name, or empty.
  std::string_view header(std::string_view name) const;
};

/// One whole HTTP/1.1 reply; `content-length` and `connection` are added when it is written.
struct http_reply {
  int status = 200;
  header_list headers;
  std::string body;
};

/// `text` with its escapes resolved; nothing if one is malformed or stands for a NUL.
std::optional<std::string> percent_decode(std::string_view text);

/// `path` with what has no place in a URL escaped, and backslashes too; slashes stay.
std::string percent_encode_path(std::string_view path);

/// The same place without empty segments, "." and "..": "/a//./b/../c/" is "/a/c/". Begins with a
/// slash, whatever `path` does; one at the end stays.
std::string clean_path(std::string_view path);

/// The first value of `name` in a query string, percent-decoded; empty if absent.
std::string query_value(std::string_view query, std::string_view name);

/// The standard reason phrase of a status, e.g. "Not Found".
std::string_view reason_phrase(int status);

/// Whether `text` is `lower`, which is in lower case, in any case; of ASCII letters.
bool equal_ignoring_case(std::string_view text, std::string_view lower);
/// Whether a secret is the one that is wanted, without telling by its time where it differs.
bool same_secret(std::string_view given, std::string_view wanted);

/// Whether who sent this `authorization` may come in: with `Bearer KEY`, the scheme in any case, or
/// whatever it says where no key is wanted (`key` is empty).
bool bears_key(std::string_view authorization, std::string_view key);

/// Whether a header whose value is a list of tokens (`connection: close, x-a`) lists this one, in
/// any case.
bool lists_token(std::string_view value, std::string_view token);

} // namespace llumnix::net
