#include "apps/node_announcement.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <unistd.h>

namespace llumnix {

void announce(int fd, const node_ready& ready) {
  if (fd < 0)
    return;
  nlohmann::json line{{"listen", ready.listen},       {"http", ready.http}, {"admin", ready.admin},
                      {"scheduler", ready.scheduler}, {"grpc", ready.grpc}, {"roles", ready.roles},
                      {"instances", ready.instances}};
  auto text = line.dump() + "\n";
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    std::fprintf(stderr, "llumnix: nobody reads --ready-fd %d\n", fd);
  ::close(fd);
}

} // namespace llumnix
