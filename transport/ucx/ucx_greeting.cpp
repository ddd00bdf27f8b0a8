#include "transport/ucx/ucx_greeting.hpp"

#include "runtime/base/assert.hpp"

#include <spdlog/fmt/fmt.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

namespace llumnix::ucx {

proof prove(
  const std::string& cluster_key, std::string_view role, const token& client_nonce,
  const token& server_nonce, const token& life) {
  auto text = fmt::format("{}", role);
  for (const auto& x : {client_nonce, server_nonce, life})
    text += fmt::format("/{:016x}{:016x}", x.high, x.low);
  proof made{};
  unsigned size = 0;
  // HMAC takes no key of no bytes; the prefix gives it one.
  auto key = "kv:" + cluster_key;
  auto* done = HMAC(
    EVP_sha256(), key.data(), static_cast<int>(key.size()),
    reinterpret_cast<const unsigned char*>(text.data()), text.size(),
    reinterpret_cast<unsigned char*>(made.data()), &size);
  LLUMNIX_ASSERT(done != nullptr && size == made.size());
  return made;
}

bool same(const proof& a, const proof& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

} // namespace llumnix::ucx
