#pragma once

#include "gateway/openai/api_error.hpp"

#include <cstdint>
#include <optional>
#include <simdjson.h>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::openai {

/// Checked reading of one JSON object's fields. The first failure is kept and everything after it
/// reads as absent, so that a parser is a list of fields with one look at `failure` at its end. For
/// the sources of this folder only: it shows simdjson.
class json_fields {
public:
  /// `path` is put before the names in errors ("messages[0]."). `failure` is shared by nested
  /// objects.
  json_fields(simdjson::dom::object object, std::string path, std::optional<api_error>& failure);

  /// The field's last value; none if it is absent or null, or if something failed before.
  std::optional<simdjson::dom::element> find(std::string_view name) const;

  bool boolean(std::string_view name, bool otherwise);
  std::optional<std::string> text(std::string_view name);
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t low, std::int64_t high);
  std::optional<double> number(std::string_view name, double low, double high);
  std::optional<simdjson::dom::array> array(std::string_view name);
  std::optional<simdjson::dom::object> object(std::string_view name);

  void fail(std::string_view name, std::string code, std::string message);
  void wrong_type(std::string_view name, std::string_view expected);
  bool failed() const { return failure_.has_value(); }
  std::optional<api_error>& failure() { return failure_; }
  std::string path(std::string_view name) const { return path_ + std::string{name}; }

private:
  std::vector<std::pair<std::string_view, simdjson::dom::element>> fields_;
  std::string path_;
  std::optional<api_error>& failure_;
};

/// The value as an integer, 5.0 included; none for other types, fractions and what 64 bits do not
/// hold.
std::optional<std::int64_t> as_integer(simdjson::dom::element value);

/// Whether the value is a number without a fraction, however large.
bool is_whole(simdjson::dom::element value);

} // namespace llumnix::openai
