#pragma once

#include "gateway/gateway_metrics.hpp"
#include "gateway/openai/api_error.hpp"
#include "gateway/openai/chunks.hpp"
#include "gateway/openai/generation_request.hpp"
#include "gateway/openai/logprobs.hpp"
#include "gateway/openai/replies.hpp"
#include "gateway/openai/tokenize.hpp"
#include "gateway/request_ids.hpp"
#include "net/http_server.hpp"
#include "runtime/serving/stream_table.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

class http_session;

/// What the sessions of one I/O loop share; outlives them.
struct session_services {
  stream_table& streams;
  executor& loop;
  request_probes& probes;
  openai::logprob_writer logprobs;
  /// Asks that the session, which is over, be destroyed once nothing of it, its streams or its
  /// exchange is on the stack. Called once for each.
  std::function<void(http_session&)> free_later;
};

/// A generating request as its client meets it: who it is and what it asks.
struct session_request {
  openai::generation_request wish;
  request_ids::claim id;
  std::string client; ///< its address
  time_point arrived;
  std::int64_t created = 0; ///< Unix seconds
  placement_wishes wishes{};
};

/// Answers one generating request: opens its streams in the loop's `stream_table`, shows their text
/// to the client as server-sent events or as one reply, and tells the streams how far the client
/// has read.
///
/// Confined to its loop. It is over once the answer has been handed to the exchange or the client
/// is gone. Streams it no longer wants are cancelled by its destructor only, never from within a
/// call of the stream table or of the exchange, which both call back here.
class http_session final : public net::exchange_watcher {
public:
  http_session(
    session_services& services, std::shared_ptr<net::exchange> client, session_request request);
  /// Cancels what is still open. The exchange is left as it is.
  ~http_session() override;
  http_session(const http_session&) = delete;
  http_session& operator=(const http_session&) = delete;

  /// Opens n streams per prompt. `seed` is used where the client gave none. Once.
  void start(std::vector<openai::tokenized_prompt> prompts, std::uint64_t seed);
  /// Gives the client up if it has accepted no byte for `limit`.
  void check_stalled(time_point now, std::chrono::milliseconds limit);
  /// The gateway itself ends the request, for its own reasons: the client gets an error in the form
  /// that suits what it has already seen.
  void give_up(const error& why);

  void on_gone() override;
  void on_drained() override;

private:
  /// One output sequence. `shown` is filled only for a reply that is sent whole.
  struct choice {
    std::uint64_t stream = 0;
    bool open = false;  ///< the stream has neither finished nor failed
    bool begun = false; ///< the client has seen a chunk of it
    std::uint32_t output_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::uint32_t unconsumed = 0;  ///< tokens shown and not yet accepted by the kernel
    std::uint64_t text_offset = 0; ///< characters before the next token
    time_point last_token;
    openai::whole_choice shown;
  };

  /// Receives the choices of one prompt: streams count their choices from 0, the client over all
  /// prompts.
  class prompt_sink final : public response_sink {
  public:
    prompt_sink(http_session& session, std::size_t first) : session_{&session}, first_{first} {}
    void on_update(const stream_update& update) override {
      session_->update(first_ + update.choice, update);
    }
    void on_failure(std::uint32_t which, const error& failure) override {
      session_->choices_[first_ + which].open = false;
      session_->fail(failure);
    }
    void flush() override { session_->flush(); }

  private:
    http_session* session_;
    std::size_t first_;
  };

  void update(std::size_t index, const stream_update& update);
  void note_tokens(choice& target, const stream_update& update);
  void show(std::size_t index, const stream_update& update);
  void collect(choice& target, const stream_update& update);
  void flush();
  void end_stream();
  void reply_whole();
  void fail(const error& why);
  void send_head();
  void acknowledge();
  void end(int status);
  void record(int status);
  openai::usage counts() const;

  session_services& services_;
  std::shared_ptr<net::exchange> client_;
  session_request request_;
  openai::reply_head head_;
  openai::chunk_writer chunks_;
  bool over_ = false;
  bool head_sent_ = false;
  std::size_t open_ = 0;                                         ///< choices not finished
  error why_cancelled_{errc::cancelled, "the client went away"}; ///< of streams open at the end
  std::vector<openai::tokenized_prompt> prompts_;
  std::vector<prompt_sink> sinks_;
  std::vector<choice> choices_; ///< prompt after prompt
  std::optional<time_point> first_token_;
  std::string out_;      ///< events of the updates since the last flush
  std::string rendered_; ///< log-probabilities of the update being shown
};

} // namespace llumnix
