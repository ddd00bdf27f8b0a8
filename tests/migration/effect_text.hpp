#pragma once

#include <initializer_list>
#include <string>

namespace llumnix::testing {

/// What several effects are called, each as `name` has it.
template <class Effects, class Name>
std::string listed(const Effects& effects, Name name) {
  std::string text;
  for (const auto& effect : effects)
    text += (text.empty() ? "" : ", ") + name(effect);
  return text;
}

/// What several events brought, in their order.
inline std::string joined(std::initializer_list<std::string> parts) {
  std::string text;
  for (const auto& part : parts)
    text += (&part == parts.begin() ? "" : " | ") + part;
  return text;
}

} // namespace llumnix::testing
