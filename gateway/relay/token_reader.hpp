#pragma once

#include "gateway/relay/hidden_text.hpp"
#include "net/upstream_pool.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace llumnix::relay {

/// Asks an engine for the text of tokens, by vLLM's `/detokenize`, to find out what another held
/// back. Destroying it gives the question up.
class token_reader final : public net::upstream_watcher {
public:
  /// Called once, never from within the constructor; the reader may be destroyed in it. Nothing:
  /// the engine does not say it, or something else.
  using answer = std::function<void(std::optional<std::string> found)>;

  /// `model`: empty where the request names none. The pool must outlive this.
  token_reader(
    net::upstream_pool& pool, std::string address, net::header_list headers, std::string_view model,
    hidden_text wanted, answer done);

  // Of the engine.
  void on_head(const net::http_reply& head) override;
  void on_body(std::string_view piece) override;
  void on_pause() override {}
  void on_end(const error& failure) override;

private:
  void ask(std::size_t tokens);

  net::upstream_pool& pool_;
  net::upstream_request question_;
  std::string model_;
  hidden_text wanted_;
  answer done_;
  std::optional<std::string> prompt_; ///< the text of its tokens
  int status_ = 0;
  std::string body_;
  std::unique_ptr<net::upstream_call> call_;
};

/// The body of the question for the text of these tokens.
std::string detokenize_body(std::string_view model, std::span<const token_id> tokens);

/// The text that an answer to it tells, if it does.
std::optional<std::string> detokenized(std::string_view body);

} // namespace llumnix::relay
