#include "net/chunk_decoder.hpp"

#include <algorithm>

namespace llumnix::net {

namespace {

constexpr std::size_t max_framing = 8 * 1024; // of one size line, and of all trailers

int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

bool control(char c) {
  return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
}

/// Whether a header's name may have it.
bool token(char c) {
  constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
         || marks.find(c) != std::string_view::npos;
}

} // namespace

chunk_decoder::status chunk_decoder::feed(std::string_view& data, std::string& body) {
  for (;;) {
    std::string_view piece;
    auto outcome = next(data, piece);
    if (piece.empty())
      return outcome;
    body += piece;
  }
}

chunk_decoder::status chunk_decoder::next(std::string_view& data, std::string_view& piece) {
  piece = {};
  while (!data.empty() && state_ != state::done) {
    if (state_ == state::content) {
      piece
        = data.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(chunk_, data.size())));
      data.remove_prefix(piece.size());
      chunk_ -= piece.size();
      if (chunk_ == 0)
        state_ = state::content_cr;
      return status::need_more;
    }
    auto outcome = on_framing(data.front());
    if (outcome != status::need_more)
      return outcome;
    data.remove_prefix(1);
  }
  return state_ == state::done ? status::complete : status::need_more;
}

chunk_decoder::status chunk_decoder::on_size(char c) {
  if (auto digit = hex_digit(c); digit >= 0) {
    if (chunk_ >> 60 != 0)
      return status::malformed;
    chunk_ = chunk_ * 16 + static_cast<std::uint64_t>(digit);
    state_ = state::size;
    return status::need_more;
  }
  if (state_ == state::size_start)
    return status::malformed;
  if (c == '\r')
    state_ = state::size_lf;
  else if (c == ';' || c == ' ' || c == '\t')
    state_ = state::extension;
  else
    return status::malformed;
  return status::need_more;
}

chunk_decoder::status chunk_decoder::on_framing(char c) {
  auto expect = [&](char wanted, state next) {
    if (c != wanted)
      return status::malformed;
    state_ = next;
    return status::need_more;
  };
  if (++framing_ > max_framing)
    return status::malformed;
  switch (state_) {
    case state::size_start:
    case state::size: return on_size(c);
    case state::extension:
      if (c == '\r')
        state_ = state::size_lf;
      else if (control(c))
        return status::malformed;
      return status::need_more;
    case state::size_lf:
      framing_ = 0;
      if (chunk_ > room_)
        return c == '\n' ? status::too_long : status::malformed;
      room_ -= static_cast<std::size_t>(chunk_);
      return expect('\n', chunk_ == 0 ? state::trailer_start : state::content);
    case state::content_cr: return expect('\r', state::content_lf);
    case state::content_lf: framing_ = 0; return expect('\n', state::size_start);
    case state::trailer_start:
      if (c == '\r')
        return expect('\r', state::last_lf);
      state_ = state::trailer_name;
      return token(c) ? status::need_more : status::malformed;
    case state::trailer_name:
      if (c == ':')
        state_ = state::trailer_value;
      return c == ':' || token(c) ? status::need_more : status::malformed;
    case state::trailer_value:
      if (c == '\r')
        state_ = state::trailer_lf;
      return c == '\r' || !control(c) ? status::need_more : status::malformed;
    case state::trailer_lf: return expect('\n', state::trailer_start);
    case state::last_lf: return expect('\n', state::done);
    case state::content:
    case state::done: break;
  }
  return status::malformed;
}

} // namespace llumnix::net
