#include "tests/redis/redis_server.hpp"

#include "integrations/redis/cms_codec.hpp"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <arpa/inet.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace llumnix::testing {

namespace {

std::uint16_t free_port() {
  int probe = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (
    ::bind(probe, reinterpret_cast<sockaddr*>(&address), length) != 0
    || ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    throw std::runtime_error{"no free port"};
  ::close(probe);
  return ntohs(address.sin_port);
}

std::string told(const redisReply& reply) {
  if (reply.type == REDIS_REPLY_INTEGER)
    return std::to_string(reply.integer);
  if (reply.type != REDIS_REPLY_ARRAY)
    return {reply.str, reply.len};
  std::string all;
  for (std::size_t i = 0; i < reply.elements; ++i)
    all += (i > 0 ? " " : "") + told(*reply.element[i]);
  return all;
}

} // namespace

redis_server::redis_server(std::string password) : password_{std::move(password)} {
  start();
}

redis_server::~redis_server() {
  kill();
}

bool redis_server::available() {
  static const bool found = std::system("command -v redis-server >/dev/null 2>&1") == 0;
  if (!found)
    std::puts("skipped: there is no redis-server on this machine");
  return found;
}

void redis_server::kill() {
  connection_.reset();
  if (process_ < 0)
    return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
}

void redis_server::start() {
  const bool any_port = port_ == 0;
  for (int attempt = 0; attempt < 5 && process_ < 0; ++attempt) {
    if (any_port)
      port_ = free_port();
    auto port = std::to_string(port_);
    std::vector<const char*> words{"redis-server", "--port", port.c_str(), "--bind",
                                   "127.0.0.1",    "--save", "",           "--appendonly",
                                   "no",           "--dir",  "/"};
    if (!password_.empty())
      words.insert(words.end(), {"--requirepass", password_.c_str()});
    words.push_back(nullptr);
    process_ = ::fork();
    if (process_ == 0) { // only async-signal-safe calls: other threads may hold locks
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      int nowhere = ::open("/dev/null", O_RDWR);
      for (int fd : {0, 1, 2})
        ::dup2(nowhere, fd);
      ::execvp("redis-server", const_cast<char**>(words.data()));
      ::_exit(127);
    }
    const auto answers = [&] { return ask({"PING"}) == "PONG"; };
    const auto ended = [&] { return ::waitpid(process_, nullptr, WNOHANG) == process_; };
    bool taken = false; // the port, by somebody faster
    if (
      eventually([&] { return answers() || (taken = ended()); }, std::chrono::seconds{20})
      && !taken)
      return;
    if (taken)
      process_ = -1;
    kill();
  }
  throw std::runtime_error{"redis-server does not start"};
}

void redis_server::signal(int number) const {
  ::kill(process_, number);
}

std::optional<std::string> redis_server::ask(const std::vector<std::string>& words) const {
  if (!connection_ || connection_->err != 0) {
    connection_.reset(::redisConnectWithTimeout("127.0.0.1", port_, timeval{5, 0}));
    if (connection_ && connection_->err == 0)
      ::redisSetTimeout(connection_.get(), timeval{5, 0});
    if (!password_.empty())
      ::freeReplyObject(::redisCommand(connection_.get(), "AUTH %s", password_.c_str()));
  }
  std::vector<const char*> starts;
  std::vector<std::size_t> lengths;
  for (const auto& word : words)
    starts.push_back(word.data()), lengths.push_back(word.size());
  std::unique_ptr<redisReply, void (*)(void*)> reply{
    static_cast<redisReply*>(::redisCommandArgv(
      connection_.get(), static_cast<int>(words.size()), starts.data(), lengths.data())),
    ::freeReplyObject};
  if (!reply || reply->type == REDIS_REPLY_NIL)
    return std::nullopt;
  return told(*reply);
}

std::uint64_t redis_server::calls(const std::string& command) const {
  auto stats = ask({"INFO", "commandstats"}).value_or("");
  auto at = stats.find("cmdstat_" + command + ":calls=");
  return at == std::string::npos ? 0 : std::stoull(stats.substr(stats.find('=', at) + 1));
}

void redis_server::closer::operator()(redisContext* context) const {
  ::redisFree(context);
}

std::unique_ptr<redis_cms_store>
make_store(const redis_server& server, cms_config cms, redis_config redis) {
  if (redis.address.empty())
    redis.address = server.address();
  auto store = redis_cms_store::make(redis, cms);
  REQUIRE(store);
  return std::move(*store);
}

result<std::vector<stored_instance>> read(redis_cms_store& store) {
  auto wait = [](auto coming) {
    REQUIRE(coming.wait_for(std::chrono::seconds{10}) == std::future_status::ready);
    return coming.get();
  };
  auto all = std::make_shared<std::promise<result<std::vector<instance_metadata>>>>();
  store.read_metadata([all](auto found) { all->set_value(std::move(found)); });
  auto metadata = wait(all->get_future());
  if (!metadata)
    return std::move(metadata).error();
  std::vector<stored_instance> instances;
  std::vector<instance_id> ids;
  for (auto& one : *metadata) {
    ids.push_back(one.instance_id);
    instances.push_back({std::move(one), {}, false});
  }
  auto loads = std::make_shared<std::promise<result<stored_statuses>>>();
  store.read_statuses(ids, [loads](auto found) { loads->set_value(std::move(found)); });
  auto statuses = wait(loads->get_future());
  if (!statuses)
    return std::move(statuses).error();
  for (auto& status : statuses->found) {
    auto at = std::ranges::lower_bound(ids, status.instance_id) - ids.begin();
    instances[static_cast<std::size_t>(at)].has_status = true;
    instances[static_cast<std::size_t>(at)].status = std::move(status);
  }
  return instances;
}

instance_metadata metadata_of(const instance_id& id) {
  instance_metadata metadata;
  metadata.instance_id = id;
  metadata.instance_type = "neutral";
  metadata.ip = "127.0.0.1";
  metadata.utc_create = metadata.utc_update = 1700000000.25;
  return metadata;
}

instance_status status_of(const instance_id& id, std::int32_t update) {
  instance_status status;
  status.instance_id = id;
  status.schedulable = true;
  status.timestamp_ms = 1700000000000 + update;
  status.update_id = update;
  return status;
}

std::int32_t stored_update(const redis_server& server, const instance_id& id) {
  auto bytes = server.ask({"GET", std::string{status_key_prefix} + id});
  auto status = decode_status(bytes.value_or(""));
  return bytes && status ? status->update_id : -1;
}

bool holds_metadata(const redis_server& server, const instance_id& id) {
  return server.ask({"EXISTS", std::string{metadata_key_prefix} + id}) == "1";
}

captured_log::captured_log() {
  std::FILE* scratch = std::tmpfile();
  if (scratch == nullptr)
    throw std::runtime_error{"no temporary file"};
  file_ = ::dup(::fileno(scratch));
  std::fclose(scratch);
  stderr_before_ = ::dup(2);
  ::dup2(file_, 2);
}

captured_log::~captured_log() {
  ::dup2(stderr_before_, 2);
  ::close(stderr_before_);
  ::close(file_);
}

std::string captured_log::text() const {
  std::string all(static_cast<std::size_t>(::lseek(file_, 0, SEEK_END)), '\0');
  auto got = ::pread(file_, all.data(), all.size(), 0);
  all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return all;
}

std::size_t captured_log::count(const std::string& words) const {
  const auto all = text();
  std::size_t found = 0;
  for (auto at = all.find(words); at != std::string::npos; at = all.find(words, at + 1))
    ++found;
  return found;
}

} // namespace llumnix::testing
