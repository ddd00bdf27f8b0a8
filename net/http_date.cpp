#include "net/http_date.hpp"

#include <ctime>
#include <string>
#include <time.h>

namespace llumnix::net {

std::optional<std::int64_t> parse_http_date(std::string_view text) {
  constexpr std::size_t longest = 64; // beyond any of the forms
  if (text.size() > longest)
    return std::nullopt;
  const std::string whole{text};
  for (const char* form :
       {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"}) {
    std::tm parts{};
    const char* end = ::strptime(whole.c_str(), form, &parts);
    if (end == whole.c_str() + whole.size() && !whole.empty())
      return std::int64_t{::timegm(&parts)};
  }
  return std::nullopt;
}

} // namespace llumnix::net
