#include "integrations/redis/resp_codec.hpp"

#include <hiredis/hiredis.h>

#include <cstdlib>
#include <new>

namespace llumnix {

namespace {

constexpr std::size_t buffered_bytes_max = 256u << 20;
constexpr std::size_t idle_buffer_bytes
  = 1u << 20; // kept between replies, so that MGETs do not reallocate
constexpr std::int64_t elements_max
  = 1 << 20; // of one reply, so that a few bytes cannot claim gigabytes

// hiredis builds replies through these, straight into ours. An element's home is its parent's
// vector, which has its full length before any element is made.
redis_reply* home_of(const redisReadTask* task) {
  if (task->parent == nullptr)
    return new (std::nothrow) redis_reply;
  return &static_cast<redis_reply*>(task->parent->obj)
            ->elements[static_cast<std::size_t>(task->idx)];
}

void* make_text(const redisReadTask* task, char* bytes, std::size_t length) {
  auto* reply = home_of(task);
  if (reply == nullptr)
    return nullptr;
  reply->kind
    = task->type == REDIS_REPLY_ERROR ? redis_reply::type::failure : redis_reply::type::text;
  reply->text.assign(bytes, length);
  return reply;
}

void* make_array(const redisReadTask* task, int length) {
  auto& budget = *static_cast<std::int64_t*>(task->privdata);
  if (length < 0 || (budget -= length) < 0)
    return nullptr; // hiredis reports it as out of memory
  auto* reply = home_of(task);
  if (reply == nullptr)
    return nullptr;
  reply->kind = redis_reply::type::array;
  reply->elements.resize(static_cast<std::size_t>(length));
  return reply;
}

void* make_integer(const redisReadTask* task, long long value) {
  auto* reply = home_of(task);
  if (reply == nullptr)
    return nullptr;
  reply->kind = redis_reply::type::integer;
  reply->integer = value;
  return reply;
}

void* make_nil(const redisReadTask* task) {
  return home_of(task);
}

void destroy(void* reply) {
  delete static_cast<redis_reply*>(reply);
}

redisReplyObjectFunctions builders{make_text, make_array, make_integer, make_nil, destroy};

} // namespace

void append_command(std::string& out, std::span<const std::string> words) {
  std::vector<const char*> starts;
  std::vector<std::size_t> lengths;
  for (const auto& word : words) {
    starts.push_back(word.data());
    lengths.push_back(word.size());
  }
  char* bytes = nullptr;
  auto length
    = redisFormatCommandArgv(&bytes, static_cast<int>(words.size()), starts.data(), lengths.data());
  if (length < 0)
    throw std::bad_alloc{};
  out.append(bytes, static_cast<std::size_t>(length));
  std::free(bytes);
}

void resp_reader::closer::operator()(redisReader* reader) const {
  redisReaderFree(reader);
}

resp_reader::resp_reader() : reader_{redisReaderCreateWithFunctions(&builders)} {
  if (!reader_)
    throw std::bad_alloc{};
  reader_->maxbuf = idle_buffer_bytes;
}

result<void> resp_reader::feed(std::string_view bytes) {
  if (reader_->len + bytes.size() > buffered_bytes_max)
    return {errc::internal, "a reply is larger than any of ours"};
  if (redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK)
    return {errc::internal, reader_->errstr};
  return {};
}

result<std::optional<redis_reply>> resp_reader::next() {
  if (reader_->ridx < 0) // between two replies
    budget_ = elements_max;
  reader_->privdata = &budget_;
  void* raw = nullptr;
  if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK)
    return error{errc::internal, reader_->errstr};
  std::unique_ptr<redis_reply> reply{static_cast<redis_reply*>(raw)};
  if (!reply)
    return std::optional<redis_reply>{};
  return std::optional{std::move(*reply)};
}

} // namespace llumnix
