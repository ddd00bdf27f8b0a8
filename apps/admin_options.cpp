#include "apps/admin_options.hpp"

#include "apps/cli_common.hpp"
#include "apps/exit_codes.hpp"

#include <cstdio>

namespace llumnix {

void add_admin_options(CLI::App& command, admin_options& options) {
  command.add_option("--admin", options.endpoint.address, "operators' address of the cluster")
    ->check(CLI::Validator{wrong_admin_address, ""})
    ->type_name("HOST:PORT")
    ->capture_default_str();
  command.add_option("--key", options.endpoint.key, "operators' key, where the cluster wants one")
    ->envname("LLUMNIX_ADMIN_KEY")
    ->type_name("KEY");
  command.add_flag("--json", options.json, "print the document as it came, and nothing else");
}

int explain(const admin_endpoint& endpoint, const error& failure) {
  auto& at = endpoint.address;
  switch (failure.code) {
    case errc::not_found:
      std::fprintf(stderr, "llumnix: %s\n", failure.context.c_str());
      return exit_code::failed;
    case errc::invalid_argument:
      std::fprintf(stderr, "llumnix: %s refused: %s\n", at.c_str(), failure.context.c_str());
      return exit_code::refused;
    case errc::internal:
      std::fprintf(
        stderr,
        "llumnix: %s is not the operators' address of a cluster (%s); `llumnix up` prints that "
        "address beside \"operators\", and --admin takes it\n",
        at.c_str(), failure.context.c_str());
      return exit_code::unreachable;
    default:
      std::fprintf(
        stderr,
        "llumnix: no cluster answers at %s (%s); start one with `llumnix up`, or name its address "
        "with --admin\n",
        at.c_str(), failure.context.c_str());
      return exit_code::unreachable;
  }
}

} // namespace llumnix
