#include "apps/text_table.hpp"

#include <algorithm>
#include <cstdlib>
#include <unistd.h>

namespace llumnix {

namespace {

const char* code_of(tint colour) {
  switch (colour) {
    case tint::bold: return "\x1b[1m";
    case tint::dim: return "\x1b[2m";
    case tint::red: return "\x1b[31m";
    case tint::green: return "\x1b[32m";
    case tint::yellow: return "\x1b[33m";
    case tint::none: break;
  }
  return "";
}

bool is_number_or_dash(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789.,-+%/ ") == text.npos;
}

bool has_digit(const std::string& text) {
  return text.find_first_of("0123456789") != text.npos;
}

} // namespace

bool colour_allowed(std::FILE* stream) {
  auto* refused = std::getenv("NO_COLOR");
  return (refused == nullptr || *refused == '\0') && ::isatty(::fileno(stream)) != 0;
}

std::string painted(const std::string& text, tint colour, bool allowed) {
  return allowed && colour != tint::none ? code_of(colour) + text + "\x1b[0m" : text;
}

text_table::text_table(std::vector<std::string> titles) {
  std::vector<cell> row;
  for (auto& title : titles)
    row.emplace_back(std::move(title), tint::bold);
  rows_.push_back(std::move(row));
}

void text_table::add(std::vector<cell> row) {
  row.resize(rows_.front().size(), cell{""});
  rows_.push_back(std::move(row));
}

std::string text_table::render(bool colours, std::size_t indent) const {
  auto columns = rows_.front().size();
  std::vector<std::size_t> widths(columns);
  std::vector<bool> numeric(columns, true), digits(columns, false);
  for (std::size_t row = 0; row < rows_.size(); ++row)
    for (std::size_t column = 0; column < columns; ++column) {
      auto& text = rows_[row][column].text;
      widths[column] = std::max(widths[column], text.size());
      if (row > 0) {
        numeric[column] = numeric[column] && is_number_or_dash(text);
        digits[column] = digits[column] || has_digit(text);
      }
    }
  std::string out;
  for (auto& row : rows_) {
    std::string line(indent, ' ');
    for (std::size_t column = 0; column < columns; ++column) {
      auto& [text, paint] = row[column];
      std::string padding(widths[column] - text.size(), ' ');
      auto shown = painted(text, paint, colours);
      line += numeric[column] && digits[column] ? padding + shown : shown + padding;
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

} // namespace llumnix
