#include "apps/reference/scheduler_flags.hpp"

#include "apps/reference/common_flags.hpp"
#include "apps/reference/extra_args.hpp"
#include "apps/reference/scheduler_rules.hpp"
#include "config/near_name.hpp"
#include "runtime/base/assert.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

namespace llumnix {

namespace {

using json = nlohmann::json;

/// Those whose text is a list with commas.
constexpr std::string_view lists[] = {
  "rescheduling-policies", "llm-backend-endpoints", "scheduler-endpoints",
  "discovery-etcd-endpoints", "kvs-metadata-service-redis-cluster-hosts"};

template <class T>
const T& as(const flag_value& value) {
  const auto* held = std::get_if<T>(&value);
  LLUMNIX_ASSERT(held != nullptr);
  return *held;
}

std::string no_such_flag(std::string_view name) {
  constexpr std::size_t name_size_max = 64;
  std::vector<std::string_view> known;
  for (const auto& flag : scheduler_flags())
    known.push_back(flag.name);
  bool small = !name.empty() && name.size() <= name_size_max;
  auto near = small ? nearest_name(name, known) : std::string_view{};
  return "is no flag" + (near.empty() ? "" : "; did you mean " + std::string{near} + "?");
}

/// An array of strings as one text with commas; nothing if it is no such array.
std::optional<flag_value> read_list(const reference_flag& flag, const json& items) {
  if (std::ranges::find(lists, flag.name) == std::end(lists))
    return {};
  std::string text;
  for (const auto& item : items) {
    const auto* word = item.get_ptr<const std::string*>();
    if (!word || word->find(',') != word->npos)
      return {};
    text += (&item == &items.front() ? "" : ",") + *word;
  }
  return text;
}

std::optional<flag_value> read_number(flag_form form, const json& value) {
  constexpr double end = 9223372036854775808.0; // 2 to the 63rd
  auto number = value.get<double>();
  if (form == flag_form::number)
    return number;
  if (form != flag_form::whole)
    return {};
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
    return {};
  if (value.is_number_integer())
    return value.get<std::int64_t>();
  if (std::trunc(number) == number && number >= -end && number < end)
    return static_cast<std::int64_t>(number);
  return {};
}

/// A value of a scene; nothing if it is none of the flag's form.
std::optional<flag_value> read_json(const reference_flag& flag, const json& value) {
  if (const auto* text = value.get_ptr<const std::string*>())
    return read_flag(flag.form, *text);
  if (value.is_boolean() && flag.form == flag_form::toggle)
    return value.get<bool>();
  if (value.is_number())
    return read_number(flag.form, value);
  if (value.is_array())
    return read_list(flag, value);
  return {};
}

/// A value as part of a message, whatever it is.
std::string written(const json& value) {
  if (const auto* text = value.get_ptr<const std::string*>())
    return *text;
  return value.is_structured() ? "a JSON " + std::string{value.type_name()} : value.dump();
}

std::optional<flag_value> read_json(const reference_flag& flag, const std::string& text) {
  return read_flag(flag.form, text);
}
const std::string& written(const std::string& text) {
  return text;
}

template <class Value>
void read_one(const std::string& name, const Value& given, scheduler_flags_read& flags) {
  const auto* flag = find_flag(scheduler_flags(), name);
  if (!flag) {
    flags.problems.push_back({name, no_such_flag(name)});
    return;
  }
  if (auto value = read_json(*flag, given))
    flags.values.set(name, *std::move(value));
  else
    flags.problems.push_back({name, wrong_form(flag->form, written(given))});
}

/// What comes after all that was given is read.
scheduler_flags_read finished(scheduler_flags_read flags) {
  given_flags extra{{"extra-args", flags.values.text("extra-args")}};
  for (const auto& warning : put_extra_args_on_top(scheduler_flags(), extra))
    flags.warnings.push_back("--extra-args: " + warning);
  for (const auto& [name, text] : extra)
    read_one(name, text, flags);
  apply_scheduler_rules(flags);
  return flags;
}

} // namespace

scheduler_flag_values::scheduler_flag_values() {
  for (const auto& flag : scheduler_flags()) {
    auto value = read_flag(flag.form, flag.preset);
    LLUMNIX_ASSERT(value.has_value());
    values_.emplace(flag.name, *std::move(value));
  }
}

const flag_value& scheduler_flag_values::at(std::string_view name) const {
  auto found = values_.find(name);
  LLUMNIX_ASSERT(found != values_.end());
  return found->second;
}

bool scheduler_flag_values::toggle(std::string_view name) const {
  return as<bool>(at(name));
}

std::int64_t scheduler_flag_values::whole(std::string_view name) const {
  return as<std::int64_t>(at(name));
}

double scheduler_flag_values::number(std::string_view name) const {
  return as<double>(at(name));
}

const std::string& scheduler_flag_values::text(std::string_view name) const {
  return as<std::string>(at(name));
}

void scheduler_flag_values::set(std::string_view name, flag_value value) {
  auto found = values_.find(name);
  LLUMNIX_ASSERT(found != values_.end() && found->second.index() == value.index());
  found->second = std::move(value);
}

nlohmann::json scheduler_flag_values::to_json() const {
  auto all = json::object();
  for (const auto& [name, value] : values_) {
    const auto* number = std::get_if<double>(&value);
    if (find_flag(common_flags::log, name))
      continue;
    if (number && std::isinf(*number))
      all[name] = *number > 0 ? "inf" : "-inf";
    else
      std::visit([&all, &name = name](const auto& held) { all[name] = held; }, value);
  }
  return all;
}

scheduler_flags_read read_scheduler_flags(const given_flags& given) {
  scheduler_flags_read flags;
  for (const auto& [name, text] : given)
    read_one(name, text, flags);
  return finished(std::move(flags));
}

scheduler_flags_read read_scheduler_flags(const nlohmann::json& given) {
  scheduler_flags_read flags;
  if (!given.is_object())
    flags.problems.push_back({"", "is no object of flags and values"});
  else
    for (const auto& [name, value] : given.items())
      read_one(name, value, flags);
  return finished(std::move(flags));
}

} // namespace llumnix
