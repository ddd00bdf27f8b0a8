#include "actors/protocol/caf_error.hpp"

#include <caf/all.hpp>

namespace llumnix {

namespace {
constexpr auto category = caf::atom("llumnix");
}

caf::error to_caf(const error& failure) {
  return caf::error{
    static_cast<std::uint8_t>(failure.code), category, caf::make_message(failure.context)};
}

error from_caf(const caf::error& failure) {
  if (failure.category() == category) {
    const auto& context = failure.context();
    return {
      static_cast<errc>(failure.code()),
      context.match_elements<std::string>() ? context.get_as<std::string>(0) : std::string{}};
  }
  if (failure == caf::sec::request_timeout)
    return {errc::timeout, "no answer in time"};
  if (failure == caf::sec::request_receiver_down || failure == caf::sec::remote_linking_failed)
    return {errc::unreachable, "the actor asked has ended"};
  return {errc::internal, caf::to_string(failure)};
}

} // namespace llumnix
