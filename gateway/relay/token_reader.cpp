#include "gateway/relay/token_reader.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/json_cursor.hpp"

#include <utility>

namespace llumnix::relay {
namespace {

constexpr std::size_t reply_max = 256 * 1024; // of a few thousand tokens at most

} // namespace

token_reader::token_reader(
  net::upstream_pool& pool, std::string address, net::header_list headers, std::string_view model,
  hidden_text wanted, answer done)
  : pool_{pool}, model_{model}, wanted_{std::move(wanted)}, done_{std::move(done)} {
  question_.address = std::move(address);
  question_.target = "/detokenize";
  question_.headers = std::move(headers);
  question_.headers.emplace_back("content-type", "application/json");
  question_.max_body_bytes = reply_max;
  if (wanted_.of_prompt == 0)
    prompt_.emplace(); // nobody wants it
  ask(prompt_ ? wanted_.tokens.size() : wanted_.of_prompt);
}

void token_reader::ask(std::size_t tokens) {
  body_.clear();
  auto question = question_;
  question.body = detokenize_body(model_, std::span{wanted_.tokens}.first(tokens));
  call_ = pool_.send(std::move(question), *this);
}

void token_reader::on_head(const net::http_reply& head) {
  status_ = head.status;
}

void token_reader::on_body(std::string_view piece) {
  body_ += piece;
}

void token_reader::on_end(const error& failure) {
  std::optional<std::string> text;
  if (failure.code == errc::ok && status_ == 200)
    text = detokenized(body_);
  if (text && !prompt_) {
    prompt_ = std::move(text);
    return ask(wanted_.tokens.size());
  }
  auto done = std::move(done_); // which may destroy this
  done(text ? wanted_.found_in(*text, *prompt_) : std::nullopt);
}

std::string detokenize_body(std::string_view model, std::span<const token_id> tokens) {
  std::string body{"{"};
  if (!model.empty()) {
    body += R"("model":)";
    openai::append_quoted(body, model);
    body += ',';
  }
  body += R"("tokens":[)";
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0)
      body += ',';
    openai::append_number(body, std::uint64_t{tokens[i]});
  }
  return body + "]}";
}

std::optional<std::string> detokenized(std::string_view body) {
  json_cursor at{body};
  std::string_view text;
  at.enter_object();
  while (at.next_member()) {
    bool is_text = at.key() == "prompt";
    auto value = at.skip();
    if (is_text)
      text = value;
  }
  if (!at.finished() || !text.starts_with('"'))
    return std::nullopt;
  std::string told;
  append_unescaped(told, inside_quotes(text));
  return told;
}

} // namespace llumnix::relay
