#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace llumnix {

enum class tint { none, bold, dim, red, green, yellow };

/// Whether `stream` may be coloured: a terminal, and NO_COLOR is not set.
bool colour_allowed(std::FILE* stream);

/// `text` in that tint where colours are allowed.
std::string painted(const std::string& text, tint colour, bool allowed);

/// Rows of cells, printed in columns as wide as their widest cell. Numbers stand to the right.
class text_table {
public:
  struct cell {
    cell(std::string content, tint colour = tint::none) : text{std::move(content)}, paint{colour} {}
    cell(const char* content) : text{content} {}
    std::string text;
    tint paint = tint::none;
  };

  explicit text_table(std::vector<std::string> titles);
  void add(std::vector<cell> row);
  bool empty() const { return rows_.size() == 1; }
  /// All rows, each ended by a newline, each begun with `indent` spaces.
  std::string render(bool colours, std::size_t indent = 0) const;

private:
  std::vector<std::vector<cell>> rows_; ///< the first one holds the titles
};

} // namespace llumnix
