#include "net/http_writer.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <iterator>

namespace llumnix::net {

namespace {

void append_number(std::string& out, std::size_t value, int base) {
  char digits[20];
  auto end = std::to_chars(digits, std::end(digits), value, base).ptr;
  out.append(digits, end);
}

void append_status_line(std::string& out, int status) {
  if (status == 200) {
    out += "HTTP/1.1 200 OK\r\n";
    return;
  }
  out += "HTTP/1.1 ";
  append_number(out, static_cast<std::size_t>(status), 10);
  out += ' ';
  out += reason_phrase(status);
  out += "\r\n";
}

// The headers whose truth only the writer knows.
bool written_here(std::string_view name) {
  switch (name.size()) {
    case 10: return equal_ignoring_case(name, "connection");
    case 14: return equal_ignoring_case(name, "content-length");
    case 17: return equal_ignoring_case(name, "transfer-encoding");
    default: return false;
  }
}

// A line end in a value would let whoever chose the value write headers, or a reply, of his own.
void append_on_one_line(std::string& out, std::string_view text) {
  auto start = out.size();
  out += text;
  constexpr std::string_view breaking{"\r\n\0", 3};
  if (text.find_first_of(breaking) == std::string_view::npos)
    return;
  for (auto i = start; i < out.size(); ++i)
    if (breaking.find(out[i]) != std::string_view::npos)
      out[i] = ' ';
}

void append_headers(std::string& out, const header_list& headers) {
  for (const auto& [name, value] : headers) {
    if (written_here(name))
      continue;
    append_on_one_line(out, name);
    out += ": ";
    append_on_one_line(out, value);
    out += "\r\n";
  }
}

void append_connection(std::string& out, const reply_form& form) {
  if (!form.keep_alive)
    out += "connection: close\r\n";
  else if (form.http_1_0)
    out += "connection: keep-alive\r\n";
}

} // namespace

bool bodiless(int status) {
  return status < 200 || status == 204 || status == 304;
}

bool asks_to_close(const header_list& headers) {
  return std::any_of(headers.begin(), headers.end(), [](const auto& header) {
    return header.first.size() == 10 && equal_ignoring_case(header.first, "connection")
           && equal_ignoring_case(header.second, "close");
  });
}

void append_reply(std::string& out, const http_reply& reply, const reply_form& form) {
  append_status_line(out, reply.status);
  append_headers(out, reply.headers);
  append_connection(out, form);
  if (!bodiless(reply.status)) {
    out += "content-length: ";
    append_number(out, reply.body.size(), 10);
    out += "\r\n";
  }
  out += "\r\n";
  if (!bodiless(reply.status) && !form.head_only)
    out += reply.body;
}

void append_stream_head(
  std::string& out, int status, const header_list& headers, const reply_form& form) {
  append_status_line(out, status);
  append_headers(out, headers);
  append_connection(out, form);
  if (!form.http_1_0 && !bodiless(status))
    out += "transfer-encoding: chunked\r\n";
  out += "\r\n";
}

void append_chunk(std::string& out, std::string_view text) {
  if (text.empty())
    return;
  append_number(out, text.size(), 16);
  out += "\r\n";
  out += text;
  out += "\r\n";
}

} // namespace llumnix::net
