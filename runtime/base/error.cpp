#include "runtime/base/error.hpp"

namespace llumnix {

std::string_view to_string(errc code) {
  switch (code) {
    case errc::ok: return "ok";
    case errc::invalid_argument: return "invalid_argument";
    case errc::not_found: return "not_found";
    case errc::too_long: return "too_long";
    case errc::queue_full: return "queue_full";
    case errc::no_instance: return "no_instance";
    case errc::out_of_blocks: return "out_of_blocks";
    case errc::draining: return "draining";
    case errc::stale: return "stale";
    case errc::cancelled: return "cancelled";
    case errc::timeout: return "timeout";
    case errc::unreachable: return "unreachable";
    case errc::unsupported: return "unsupported";
    case errc::internal: return "internal";
    case errc::disconnected: return "disconnected";
    case errc::bad_message: return "bad_message";
  }
  return "internal";
}

int http_status(errc code) {
  switch (code) {
    case errc::ok: return 200;
    case errc::invalid_argument:
    case errc::too_long: return 400;
    case errc::not_found: return 404;
    case errc::queue_full: return 429;
    case errc::cancelled: return 499;
    case errc::no_instance:
    case errc::out_of_blocks:
    case errc::draining:
    case errc::stale:
    case errc::unreachable: return 503;
    case errc::timeout: return 504;
    case errc::unsupported: return 501;
    case errc::internal: return 500;
    case errc::disconnected:
    case errc::bad_message: return 502;
  }
  return 500;
}

error error::while_doing(std::string_view what) && {
  return error{code, std::string{what} + ": " + context};
}

std::string to_string(const error& failure) {
  return std::string{to_string(failure.code)} + ": " + failure.context;
}

} // namespace llumnix
