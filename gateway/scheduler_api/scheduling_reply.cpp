#include "gateway/scheduler_api/scheduling_reply.hpp"

#include "gateway/openai/json_text.hpp"

#include <algorithm>
#include <iterator>

namespace llumnix::scheduler_api {

namespace {

/// Writes `"name":` after what came before, and a value.
class writer {
public:
  explicit writer(std::string& out) : out_{out} {}

  writer& key(std::string_view name) {
    if (out_.back() != '{')
      out_ += ',';
    out_.append(1, '"').append(name).append("\":");
    return *this;
  }
  void text(std::string_view name, std::string_view value) {
    key(name);
    append_go_string(out_, value);
  }
  void number(std::string_view name, std::int64_t value) {
    key(name);
    openai::append_number(out_, value);
  }

private:
  std::string& out_;
};

bool is_space(char byte) {
  return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

void append_tokens(std::string& out, std::string_view ids) {
  if (ids.empty())
    out += "null";
  else if (std::ranges::none_of(ids, is_space))
    out += ids;
  else
    std::ranges::remove_copy_if(ids, std::back_inserter(out), is_space);
}

void append_instance(std::string& out, const told_instance& instance) {
  const auto& x = instance.chosen;
  writer fields{out};
  out += '{';
  fields.number("version", instance.version);
  fields.text("id", x.id);
  fields.text("model", instance.model);
  fields.text("infer_type", to_string(x.role));
  fields.key("endpoint");
  out += '{';
  fields.text("host", x.host);
  fields.number("port", x.port);
  out += '}';
  fields.text("aux_ip", x.auxiliary_host);
  fields.number("aux_port", x.auxiliary_port);
  fields.number("dp_rank", x.dp_rank);
  fields.number("dp_size", x.dp_size);
  out += '}';
}

} // namespace

void append_go_string(std::string& out, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  auto as_code = [&](unsigned char byte) {
    out += "\\u00";
    out += digits[byte >> 4];
    out += digits[byte & 15];
  };
  out += '"';
  while (!text.empty()) {
    auto length = openai::utf8_sequence(text);
    auto sequence = text.substr(0, std::max<std::size_t>(length, 1));
    text.remove_prefix(sequence.size());
    auto byte = static_cast<unsigned char>(sequence.front());
    if (length == 0)
      out += "\\ufffd";
    else if (sequence == "\u2028")
      out += "\\u2028";
    else if (sequence == "\u2029")
      out += "\\u2029";
    else if (byte == '"' || byte == '\\')
      out.append(1, '\\').append(sequence);
    else if (byte == '\n')
      out += "\\n";
    else if (byte == '\r')
      out += "\\r";
    else if (byte == '\t')
      out += "\\t";
    else if (byte == '\b')
      out += "\\b";
    else if (byte == '\f')
      out += "\\f";
    else if (byte < 0x20 || byte == '<' || byte == '>' || byte == '&')
      as_code(byte);
    else
      out += sequence;
  }
  out += '"';
}

std::string
render_scheduled(const scheduling_request& request, const std::vector<told_instance>& instances) {
  std::string out;
  out.reserve(512 + request.token_ids.size());
  writer fields{out};
  out += '{';
  fields.text("id", request.id);
  fields.text("model", request.model);
  if (!request.gateway_id.empty())
    fields.text("gateway_id", request.gateway_id);
  fields.text("scheduling_mode", request.mode);
  fields.text("scheduling_stage", request.stage);
  if (request.prompt_num_tokens != 0)
    fields.number("prompt_num_tokens", request.prompt_num_tokens);
  fields.key("prompt_token_ids");
  append_tokens(out, request.token_ids);
  if (!instances.empty()) {
    fields.key("scheduling_result");
    for (const auto& each : instances) {
      out += &each == &instances.front() ? '[' : ',';
      append_instance(out, each);
    }
    out += ']';
  }
  out += '}';
  return out;
}

} // namespace llumnix::scheduler_api
