#include "runtime/scheduling/chunk_keys.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <openssl/evp.h>
#include <string_view>
#include <utility>
#include <xxhash.h>

namespace llumnix {
namespace {

using bytes = std::vector<std::uint8_t>;
using digest = std::array<std::uint8_t, 32>;
using keys = std::vector<std::string>;

constexpr std::string_view rank_suffix = "_0"; // of tensor-parallel rank 0

// ---- SHA-256

/// One context for all digests of a prompt.
class sha256 {
public:
  /// False where OpenSSL has none to give.
  bool hash(std::span<const std::uint8_t> text, digest& made) {
    return context_ && EVP_DigestInit_ex(context_.get(), algorithm(), nullptr) == 1
           && EVP_DigestUpdate(context_.get(), text.data(), text.size()) == 1
           && EVP_DigestFinal_ex(context_.get(), made.data(), nullptr) == 1;
  }

private:
  /// Looked up once: OpenSSL 3 takes its time for it.
  static const EVP_MD* algorithm() {
    static const std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> found{
      EVP_MD_fetch(nullptr, "SHA256", nullptr), &EVP_MD_free};
    return found.get();
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{
    EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

error no_sha256() {
  return {errc::internal, "OpenSSL has no SHA-256"};
}

std::string hex(const digest& from, std::string_view suffix) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * from.size() + suffix.size());
  for (auto byte : from) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text += suffix;
}

// ---- chunks

/// Calls `each(chunk)` in order, the tail last; ends when it says false.
template <class Each>
bool walk_chunks(
  std::span<const token_id> tokens, const chunk_key_options& options, const Each& each) {
  for (; tokens.size() >= options.chunk_tokens; tokens = tokens.subspan(options.chunk_tokens))
    if (!each(tokens.first(options.chunk_tokens)))
      return false;
  return tokens.empty() || !options.save_unfull_chunk || each(tokens);
}

std::size_t longest_chunk(std::span<const token_id> tokens, const chunk_key_options& options) {
  return std::min<std::size_t>(tokens.size(), options.chunk_tokens);
}

// ---- sha256_cbor

enum cbor_kind : std::uint8_t { cbor_number = 0x00, cbor_text = 0x60, cbor_array = 0x80 };
constexpr std::uint8_t cbor_null = 0xf6;
constexpr std::size_t head_bytes_max = 5;

/// Writes the shortest head that says `value`, a number itself or the length of what follows;
/// returns its end.
std::uint8_t* write_head(std::uint8_t* at, cbor_kind kind, std::uint32_t value) {
  auto write = [&](std::uint8_t form, int width) {
    *at++ = static_cast<std::uint8_t>(kind | form);
    for (auto shift = 8 * (width - 1); shift >= 0; shift -= 8)
      *at++ = static_cast<std::uint8_t>(value >> shift);
    return at;
  };
  if (value < 24)
    return write(static_cast<std::uint8_t>(value), 0);
  if (value <= 0xff)
    return write(24, 1);
  if (value <= 0xffff)
    return write(25, 2);
  return write(26, 4);
}

bool hash_seed(sha256& with, std::string_view seed, digest& made) {
  if (seed.empty())
    seed = "0";
  bytes text(head_bytes_max);
  auto* end = write_head(text.data(), cbor_text, static_cast<std::uint32_t>(seed.size()));
  text.resize(static_cast<std::size_t>(end - text.data()));
  text.insert(text.end(), seed.begin(), seed.end());
  return with.hash(text, made);
}

result<keys> cbor_keys(std::span<const token_id> tokens, const chunk_key_options& options) {
  sha256 with;
  keys made;
  digest last{};
  if (!hash_seed(with, options.hash_seed, last))
    return no_sha256();
  bytes text{0x83, 0x58, static_cast<std::uint8_t>(last.size())}; // [bytes, tokens, null]
  const auto begin = text.size();
  text.resize(begin + last.size() + head_bytes_max * (1 + longest_chunk(tokens, options)) + 1);
  auto add = [&](std::span<const token_id> chunk) {
    auto* at = std::copy(last.begin(), last.end(), text.data() + begin);
    at = write_head(at, cbor_array, static_cast<std::uint32_t>(chunk.size()));
    for (auto token : chunk)
      at = write_head(at, cbor_number, token);
    *at++ = cbor_null;
    if (!with.hash({text.data(), at}, last))
      return false;
    made.push_back(hex(last, rank_suffix));
    return true;
  };
  if (!walk_chunks(tokens, options, add))
    return no_sha256();
  return made;
}

// ---- sha256_hex

/// Little-endian, each in `Width` bytes; returns the end.
template <std::size_t Width>
std::uint8_t* write_tokens(std::uint8_t* at, std::span<const token_id> tokens) {
  for (std::uint64_t token : tokens)
    for (std::size_t i = 0; i < Width; ++i)
      *at++ = static_cast<std::uint8_t>(token >> (8 * i));
  return at;
}

result<keys> hex_keys(std::span<const token_id> tokens, const chunk_key_options& options) {
  sha256 with;
  keys made;
  digest last{};
  bytes text(last.size() + sizeof(token_id) * longest_chunk(tokens, options));
  auto add = [&](std::span<const token_id> chunk) {
    auto* at = text.data();
    if (!made.empty())
      at = std::copy(last.begin(), last.end(), at);
    at = write_tokens<sizeof(token_id)>(at, chunk);
    if (!with.hash({text.data(), at}, last))
      return false;
    bool is_tail = chunk.size() < options.chunk_tokens;
    made.push_back(hex(last, is_tail ? rank_suffix : ""));
    return true;
  };
  if (!walk_chunks(tokens, options, add))
    return no_sha256();
  return made;
}

// ---- xxhash

result<keys> xxhash_keys(std::span<const token_id> tokens, const chunk_key_options& options) {
  std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> state{
    XXH64_createState(), &XXH64_freeState};
  if (!state)
    return error{errc::internal, "no memory for XXH64"};
  XXH64_reset(state.get(), 0);
  keys made;
  bytes text(sizeof(std::int64_t) * options.chunk_tokens);
  walk_chunks(tokens, options, [&](std::span<const token_id> chunk) {
    auto* end = write_tokens<sizeof(std::int64_t)>(text.data(), chunk);
    std::fill(end, text.data() + text.size(), std::uint8_t{0}); // a tail is filled up
    XXH64_update(state.get(), text.data(), text.size());
    made.push_back(
      options.iris_prefix + options.block_prefix + std::to_string(XXH64_digest(state.get())));
    return true;
  });
  return made;
}

/// Why there can be no chunks of that size; empty if there can.
std::string refuse_chunk(std::uint32_t chunk_tokens) {
  if (chunk_tokens >= 1 && chunk_tokens <= chunk_tokens_max)
    return {};
  return "a chunk of " + std::to_string(chunk_tokens) + " tokens is not within 1 and "
         + std::to_string(chunk_tokens_max);
}

} // namespace

result<chunk_key_options> make_chunk_key_options(const scheduler_config& config) {
  constexpr std::pair<std::string_view, chunk_hash> known[]{
    {"sha256_cbor", chunk_hash::sha256_cbor},
    {"sha256_hex", chunk_hash::sha256_hex},
    {"xxhash", chunk_hash::xxhash}};
  auto found = std::find_if(
    std::begin(known), std::end(known), [&](auto& each) { return each.first == config.kv_hash; });
  if (found == std::end(known))
    return error{errc::invalid_argument, "there is no hash named '" + config.kv_hash + "'"};
  if (auto refusal = refuse_chunk(config.kv_chunk_tokens); !refusal.empty())
    return error{errc::invalid_argument, std::move(refusal)};
  return chunk_key_options{
    found->second,         config.kv_chunk_tokens, config.kv_save_unfull_chunk,
    config.kv_iris_prefix, config.kv_block_prefix, config.kv_hash_seed};
}

result<std::vector<std::string>>
chunk_keys(std::span<const token_id> tokens, const chunk_key_options& options) {
  if (tokens.empty())
    return error{errc::invalid_argument, "there are no tokens"};
  if (auto refusal = refuse_chunk(options.chunk_tokens); !refusal.empty())
    return error{errc::invalid_argument, std::move(refusal)};
  switch (options.hash) {
    case chunk_hash::sha256_cbor: return cbor_keys(tokens, options);
    case chunk_hash::sha256_hex: return hex_keys(tokens, options);
    case chunk_hash::xxhash: return xxhash_keys(tokens, options);
  }
  return error{errc::invalid_argument, "there is no such hash"};
}

} // namespace llumnix
