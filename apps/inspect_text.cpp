#include "apps/inspect_text.hpp"

#include "apps/moves_summary.hpp"
#include "apps/text_table.hpp"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cmath>

namespace llumnix {

namespace {

using row = std::vector<text_table::cell>;

/// The member of that name; null if there is none.
const admin_document& member(const admin_document& from, const std::string& name) {
  static const admin_document nothing;
  auto found = from.is_object() ? from.find(name) : from.end();
  return found == from.end() ? nothing : *found;
}

/// What stands at `path` (members separated by '/') below `from`; null if nothing does.
const admin_document& at(const admin_document& from, std::string_view path) {
  auto slash = path.find('/');
  auto& found = member(from, std::string{path.substr(0, slash)});
  return slash == path.npos ? found : at(found, path.substr(slash + 1));
}

std::string number_text(double value) {
  return std::abs(value - std::round(value)) < 1e-9 && std::abs(value) < 1e15
           ? fmt::format("{:.0f}", value)
           : fmt::format("{:.4g}", value);
}

std::string plain(const admin_document& value) {
  if (value.is_null())
    return "-";
  if (value.is_string())
    return value.get_ref<const std::string&>().empty() ? "-" : value.get<std::string>();
  if (value.is_number_float())
    return number_text(value.get<double>());
  if (!value.is_array())
    return value.dump();
  std::string list;
  for (auto& item : value)
    list += (list.empty() ? "" : ",") + plain(item);
  return list.empty() ? "-" : list;
}

/// A time span as one number and one unit: "340ms", "12.4s", "7.5m", "3.2h".
std::string span(const admin_document& milliseconds) {
  if (!milliseconds.is_number())
    return "-";
  auto value = milliseconds.get<double>();
  if (value < 1000)
    return number_text(value) + "ms";
  if (value < 60e3)
    return fmt::format("{:.1f}s", value / 1e3);
  return value < 3600e3 ? fmt::format("{:.1f}m", value / 60e3)
                        : fmt::format("{:.1f}h", value / 3600e3);
}

/// "0B", "640KiB", "1.2MiB".
std::string size_text(const admin_document& bytes) {
  if (!bytes.is_number())
    return "-";
  auto value = bytes.get<double>();
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit)
    value /= 1024;
  return fmt::format("{:.{}f}{}", value, value < 10 && unit > 0 ? 1 : 0, units[unit]);
}

std::string counted(const admin_document& number, const char* one, const char* many) {
  return plain(number) + " " + (number == 1 ? one : many);
}

tint tint_of(const std::string& state) {
  if (state == "ready" || state == "running" || state == "finished" || state == "moved")
    return tint::green;
  if (state == "draining" || state == "moving" || state == "replaying" || state == "replayed")
    return tint::yellow;
  return state == "lost" || state == "refused" || state == "move_failed" || state == "failed"
           ? tint::red
           : tint::none;
}

text_table::cell state_cell(const admin_document& state) {
  auto text = plain(state);
  return {text, tint_of(text)};
}

/// The list of that name; an empty one if there is none.
const admin_document& list(const admin_document& document, const char* name) {
  static const admin_document none = admin_document::array();
  auto& found = at(document, name);
  return found.is_array() ? found : none;
}

std::string metric_values(const admin_document& metrics) {
  std::string text;
  if (metrics.is_object())
    for (auto& [name, value] : metrics.items())
      text += (text.empty() ? "" : "  ") + name + " " + plain(value);
  return text;
}

std::string dropped_text(const admin_document& dropped) {
  auto text = "not " + plain(at(dropped, "first"));
  if (auto& count = at(dropped, "count"); count.is_number_integer() && count.get<long long>() > 1)
    text += fmt::format(" and {} more", count.get<long long>() - 1);
  text += ": filter " + plain(at(dropped, "filter"));
  if (at(dropped, "metric").is_string())
    text += fmt::format(
      ", {} {} against {}", plain(at(dropped, "metric")), plain(at(dropped, "value")),
      plain(at(dropped, "threshold")));
  if (auto& role = at(dropped, "reserved"); role.is_string())
    text += ", reserved for " + plain(role);
  return text + (at(dropped, "pass") == 2 ? ", in the fallback" : "");
}

/// The reasons of one placement, one thought per line, but for what was `said` already. A scheduler
/// outside of the cluster does not tell its candidates.
std::string reasons_text(
  const admin_document& reasons, const std::string& chosen, const std::string& said, bool colours) {
  constexpr auto indent = "             ";
  std::string text;
  if (auto& considered = at(reasons, "considered"); considered.is_number())
    text += fmt::format(
      "{}policy {}{}{}\n", indent, plain(at(reasons, "policy")),
      considered == 0 ? "" : ", " + counted(considered, "candidate", "candidates"),
      at(reasons, "fallback") == true ? ", by its fallback" : "");
  auto ranked = list(reasons, "ranking");
  if (auto& metrics = at(reasons, "metrics"); ranked.empty() && metrics.is_object())
    for (auto& [instance, values] : metrics.items())
      ranked.push_back(instance);
  for (auto& instance : ranked) {
    auto name = plain(instance);
    auto line = fmt::format(
      "{} {}  {}", name == chosen ? "->" : "  ", name,
      metric_values(member(at(reasons, "metrics"), name)));
    text += indent + painted(line, name == chosen ? tint::bold : tint::none, colours) + "\n";
  }
  for (auto& each : list(reasons, "dropped"))
    text += indent + painted(dropped_text(each), tint::dim, colours) + "\n";
  if (auto predicted = metric_values(at(reasons, "predicted")); !predicted.empty())
    text += fmt::format("{}predicted {}\n", indent, predicted);
  if (auto wishes = metric_values(at(reasons, "wishes")); !wishes.empty())
    text += fmt::format("{}asked for {}\n", indent, wishes);
  for (auto key : {"sentence", "note"})
    if (auto& words = at(reasons, key); words.is_string() && words != "" && words != said)
      text += indent + plain(words) + "\n";
  return text;
}

/// What a request took, beside what was predicted: "first token after 41.2ms (0.3ms until it was
/// placed, 40ms predicted from there on)".
std::string times_text(const admin_document& times) {
  constexpr auto indent = "             ";
  std::string text;
  if (auto& ttft = at(times, "ttft_ms"); ttft.is_number()) {
    text += fmt::format(
      "{}first token after {}, {} of it until it was placed", indent, span(ttft),
      span(at(times, "placed_ms")));
    if (auto& predicted = at(times, "predicted_ttft_ms"); predicted.is_number())
      text += fmt::format("; from there on {} were predicted", span(predicted));
    text += "\n";
  }
  if (auto& tpot = at(times, "tpot_ms"); tpot.is_number()) {
    text += fmt::format("{}{} for each token after it", indent, span(tpot));
    if (auto& predicted = at(times, "predicted_tpot_ms"); predicted.is_number())
      text += fmt::format("; {} were predicted", span(predicted));
    text += "\n";
  }
  return text;
}

} // namespace

std::string status_text(const admin_document& cluster, bool colours) {
  text_table nodes{{"NODE", "LIFE", "PID", "ADDRESS", "ROLES"}};
  for (auto& each : list(cluster, "nodes"))
    nodes.add(
      {plain(at(each, "node")), plain(at(each, "incarnation")), plain(at(each, "pid")),
       plain(at(each, "address")), plain(at(each, "roles"))});
  text_table instances{
    {"INSTANCE", "NODE", "LIFE", "ROLE", "STATE", "RUNNING", "WAITING", "KV USED", "KV TOTAL",
     "STATUS AGE", "ENGINE"}};
  for (auto& each : list(cluster, "instances"))
    instances.add(
      {plain(at(each, "id")), plain(at(each, "node")), plain(at(each, "incarnation")),
       plain(at(each, "role")), state_cell(at(each, "state")),
       plain(at(each, "scheduling/running")), plain(at(each, "scheduling/waiting")),
       plain(at(each, "kv_blocks/used")), plain(at(each, "kv_blocks/total")),
       span(at(each, "status_age_ms")), plain(at(each, "engine"))});
  auto text = nodes.render(colours) + "\n"
              + (instances.empty() ? "No instance is known\n" : instances.render(colours));
  if (auto& leader = at(cluster, "terms/rescheduler"); leader.is_object())
    text += fmt::format(
      "\nThe rescheduler of {} leads, under term {}\n", plain(at(leader, "node")),
      plain(at(leader, "term")));
  return text;
}

std::string actors_text(const admin_document& actors, bool colours) {
  text_table table{
    {"ACTOR", "NAME", "ROLE", "NODE", "MAILBOX", "MESSAGES", "BUSY", "RESTARTS", "UP"}};
  for (auto& each : list(actors, "actors"))
    table.add(
      {plain(at(each, "id")), plain(at(each, "name")), plain(at(each, "role")),
       plain(at(each, "node")), plain(at(each, "mailbox")), plain(at(each, "messages")),
       span(at(each, "busy_ms")), plain(at(each, "restarts")), span(at(each, "up_ms"))});
  return table.empty() ? "No actor is known\n" : table.render(colours);
}

std::string requests_text(const admin_document& requests, bool colours) {
  text_table table{{"REQUEST", "INSTANCE", "STATE", "EPOCH", "PROMPT", "OUTPUT", "AGE", "CLIENT"}};
  for (auto& each : list(requests, "requests"))
    table.add(
      {plain(at(each, "id")), plain(at(each, "instance")), state_cell(at(each, "state")),
       plain(at(each, "epoch")), plain(at(each, "prompt_tokens")), plain(at(each, "output_tokens")),
       span(at(each, "age_ms")), plain(at(each, "client"))});
  return table.empty() ? "No request is running\n" : table.render(colours);
}

std::string why_text(const admin_document& record, bool colours) {
  auto text = painted("Request " + plain(at(record, "id")), tint::bold, colours) + "\n";
  auto& events = list(record, "events");
  bool several = list(record, "requests").size() > 1;
  auto begin = events.empty() ? admin_document(0) : at(events.front(), "at_ms");
  for (auto& each : events) {
    auto kind = plain(at(each, "kind"));
    auto& when = at(each, "at_ms");
    auto since
      = when.is_number() && begin.is_number() ? when.get<double>() - begin.get<double>() : 0;
    auto line = fmt::format("{:>10}  {}", "+" + span(since), painted(kind, tint_of(kind), colours));
    auto instance = plain(at(each, "instance"));
    if (instance != "-")
      line += " on " + instance;
    if (at(each, "epoch").is_number())
      line += ", epoch " + plain(at(each, "epoch"));
    if (several)
      line += ", " + plain(at(each, "request"));
    auto note = plain(at(each, "note"));
    if (note != "-")
      line += ": " + note;
    text += line + "\n" + reasons_text(at(each, "reasons"), instance, note, colours)
            + times_text(at(each, "times"));
  }
  return text;
}

/// One line for each move, and one that counts where some of the requests were there already.
std::string moves_text(const admin_document& moves, bool colours) {
  std::string text;
  auto& all = list(moves, "moves");
  auto sum = summary_of(moves);
  for (auto& each : all) {
    auto outcome = sum.there > 0 && was_there(each) ? "stays" : plain(at(each, "outcome"));
    auto request = plain(at(each, "request"));
    text += request == "-" ? "from " + plain(at(each, "from")) : request;
    text += " " + painted(outcome, tint_of(outcome), colours);
    if (outcome == "moved" && plain(at(each, "path")) == "replay")
      text += fmt::format(
        " from {} to {} by replay: {} computed anew, {} without one", plain(at(each, "from")),
        plain(at(each, "to")), counted(at(each, "tail_tokens"), "token", "tokens"),
        span(at(each, "downtime_ms")));
    else if (outcome == "moved")
      text += fmt::format(
        " from {} to {} by {}: {}, {}, {} between two steps", plain(at(each, "from")),
        plain(at(each, "to")), plain(at(each, "path")),
        counted(at(each, "rounds"), "round", "rounds"), size_text(at(each, "bytes")),
        span(at(each, "downtime_ms")));
    if (auto reason = plain(at(each, "reason")); reason != "-")
      text += (outcome == "moved" ? "; " : ": ") + reason;
    text += "\n";
  }
  if (sum.there > 0)
    text += fmt::format(
      "{} moved, {} {} there already\n", sum.moved, sum.there, sum.there == 1 ? "was" : "were");
  return all.empty() ? "Nothing moved: no request there fits; `llumnix requests` lists them\n"
                     : text;
}

std::string drain_text(const admin_document& drained) {
  auto reason = plain(at(drained, "reason"));
  return fmt::format(
    "{}: {} moved, {} finished, {} left{}\n", plain(at(drained, "instance")),
    plain(at(drained, "moved")), plain(at(drained, "finished")), plain(at(drained, "left")),
    reason == "-" ? "" : "; " + reason);
}

std::string bare_request_id(const std::string& id) {
  for (std::string_view prefix : {"chatcmpl-", "cmpl-"})
    if (id.starts_with(prefix) && id.size() > prefix.size())
      return id.substr(prefix.size());
  return id;
}

} // namespace llumnix
