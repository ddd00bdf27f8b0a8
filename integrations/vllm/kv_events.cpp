#include "integrations/vllm/kv_events.hpp"

#include "runtime/scheduling/prefix_index.hpp"

#define XXH_INLINE_ALL
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <string>
#include <utility>
#include <xxhash.h>

namespace llumnix {
namespace {

constexpr std::size_t depth_max = 16;
constexpr std::uint64_t block_tokens_max = 65'536;

/// Something that is no list.
struct scalar {
  enum class type { nothing, truth, whole, negative, real, text, bytes };
  type is = type::nothing;
  std::uint64_t number = 0; ///< its bits
  std::string_view text = {};

  bool is_integer() const { return is == type::whole || is == type::negative; }
};

std::uint64_t digest(const scalar& it) {
  auto seed = static_cast<std::uint64_t>(it.is) + 1;
  if (it.is == scalar::type::text || it.is == scalar::type::bytes)
    return XXH3_64bits_withSeed(it.text.data(), it.text.size(), seed);
  return XXH3_64bits_withSeed(&it.number, sizeof(it.number), seed);
}

std::uint64_t fold(std::uint64_t before, std::uint64_t next) {
  return XXH3_64bits_withSeed(&next, sizeof(next), before);
}

enum class field : std::uint8_t {
  type,
  hashes,
  parent,
  tokens,
  block_tokens,
  lora_id,
  medium,
  lora_name,
  extras,
  group,
  attention,
  locality,
  other,
};

constexpr std::array<std::string_view, 12> field_names{
  "type",   "block_hashes", "parent_block_hash", "token_ids", "block_size",         "lora_id",
  "medium", "lora_name",    "extra_keys",        "group_idx", "kv_cache_spec_kind", "locality"};

// Events as arrays: the fields by position.
constexpr std::array stored_fields{
  field::type,      field::hashes, field::parent,    field::tokens, field::block_tokens,
  field::lora_id,   field::medium, field::lora_name, field::extras, field::group,
  field::attention, field::other,  field::locality};
constexpr std::array removed_fields{
  field::type, field::hashes, field::medium, field::group, field::locality};

field field_named(std::string_view name) {
  auto at = std::find(field_names.begin(), field_names.end(), name);
  return static_cast<field>(at - field_names.begin());
}

template <std::size_t N>
field field_at(const std::array<field, N>& fields, std::size_t position) {
  return position < N ? fields[position] : field::other;
}

/// An event while it is read.
struct draft {
  enum class kind { none, unknown, stored, removed, cleared };
  kind is = kind::none;
  bool wrong = false; ///< a field is not what it should be, if we know the event at all
  bool has_hashes = false;
  bool has_tokens = false;
  kv_event event;
  std::uint64_t group = 0;
  std::uint64_t lora_id = 0;          ///< its digest; 0: none
  std::uint64_t lora_name = 0;        ///< likewise
  std::vector<std::uint64_t> entries; ///< digests of all extra keys
  std::vector<std::size_t> ends;      ///< of each block's entries

  void take(field of, const scalar& it);
  void take_element(field of, const scalar& it);
  void finish();

private:
  void take_type(std::string_view name);
  bool sound() const;
};

/// An engine's name for a block: a whole number, or bytes.
std::uint64_t name_of(const scalar& it) {
  return it.is == scalar::type::bytes ? digest(it) : it.number;
}

bool is_name(const scalar& it) {
  return it.is_integer() || it.is == scalar::type::bytes;
}

void draft::take_type(std::string_view name) {
  is = name == "BlockStored"        ? kind::stored
       : name == "BlockRemoved"     ? kind::removed
       : name == "AllBlocksCleared" ? kind::cleared
                                    : kind::unknown;
}

void draft::take(field of, const scalar& it) {
  using type = scalar::type;
  auto nothing = it.is == type::nothing;
  auto text = it.is == type::text;
  bool good = nothing;
  switch (of) {
    case field::type:
      good = text;
      if (text)
        take_type(it.text);
      break;
    case field::hashes:
    case field::tokens: good = false; break;
    case field::parent:
      good = nothing || is_name(it);
      event.parent = nothing ? std::nullopt : std::optional{name_of(it)};
      break;
    case field::block_tokens:
      good = it.is == type::whole && it.number >= 1 && it.number <= block_tokens_max;
      event.block_tokens = good ? static_cast<std::uint32_t>(it.number) : 0;
      break;
    case field::lora_id:
      good = nothing || it.is_integer();
      lora_id = nothing ? 0 : digest(it);
      break;
    case field::lora_name:
      good = nothing || text;
      lora_name = nothing ? 0 : digest(it);
      break;
    case field::medium:
      good = nothing || text;
      event.counts = event.counts && (nothing || it.text == "GPU");
      break;
    case field::locality:
      good = nothing || text;
      event.counts = event.counts && it.text != "REMOTE";
      break;
    case field::attention:
      good = nothing || text;
      event.counts
        = event.counts
          && (nothing || it.text.ends_with("full_attention") || it.text == "mla_attention" || it.text == "unknown");
      break;
    case field::group:
      good = nothing || it.is == type::whole;
      group = it.number;
      break;
    case field::extras: break;
    case field::other: good = true; break;
  }
  wrong = wrong || !good;
}

void draft::take_element(field of, const scalar& it) {
  if (of == field::hashes) {
    wrong = wrong || !is_name(it);
    event.hashes.push_back(name_of(it));
  } else if (of == field::tokens) {
    wrong
      = wrong || it.is != scalar::type::whole || it.number > std::numeric_limits<token_id>::max();
    event.tokens.push_back(static_cast<token_id>(it.number));
  } else {
    if (it.is != scalar::type::nothing)
      entries.push_back(digest(it));
    ends.push_back(entries.size());
  }
}

bool draft::sound() const {
  switch (is) {
    case kind::none: return false;
    case kind::unknown: return true;
    case kind::stored: return !wrong && has_hashes && has_tokens && event.block_tokens > 0;
    case kind::removed: return !wrong && has_hashes;
    case kind::cleared: return !wrong;
  }
  return false;
}

/// Makes the event whole, or `wrong`.
void draft::finish() {
  wrong = !sound();
  event.happened = is == kind::stored    ? kv_event::what::stored
                   : is == kind::removed ? kv_event::what::removed
                                         : kv_event::what::cleared;
  event.adapter = lora_name != 0 ? lora_name : lora_id;
  if (group != 0) { // each group of layers has blocks of its own under the same names
    for (auto& hash : event.hashes)
      hash = fold(group, hash);
    if (event.parent)
      event.parent = fold(group, *event.parent);
  }
  bool any = false;
  for (std::size_t at = 0; auto end : ends) {
    std::uint64_t extra = 0;
    for (; at < end; ++at)
      if (entries[at] != lora_name) // which is the adapter already
        extra = fold(extra, entries[at]);
    event.extras.push_back(extra);
    any = any || extra != 0;
  }
  if (!any)
    event.extras.clear();
}

/// Hears the parts of a payload in order. By depth: 1 the batch, 2 its events, 3 an event's fields,
/// 4 a field's list, 5 one block's extra keys, 6 and beyond an extra key that is a list itself.
class payload_reader final : public nlohmann::json_sax<nlohmann::json> {
public:
  kv_event_batch batch;
  bool has_events = false;

  bool null() override { return take({}); }
  bool boolean(bool it) override { return take({scalar::type::truth, it}); }
  bool number_integer(std::int64_t it) override {
    return take(
      {it < 0 ? scalar::type::negative : scalar::type::whole, static_cast<std::uint64_t>(it)});
  }
  bool number_unsigned(std::uint64_t it) override { return take({scalar::type::whole, it}); }
  bool number_float(double it, const std::string&) override {
    return take({scalar::type::real, std::bit_cast<std::uint64_t>(it)});
  }
  bool string(std::string& it) override { return take({scalar::type::text, 0, it}); }
  bool binary(nlohmann::json::binary_t& it) override {
    return take({scalar::type::bytes, 0, {reinterpret_cast<const char*>(it.data()), it.size()}});
  }
  bool start_object(std::size_t) override { return enter(true); }
  bool start_array(std::size_t) override { return enter(false); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(std::string& name) override;
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

private:
  enum class part : std::uint8_t { time, events, rank, other };
  bool take(const scalar& it);
  bool take_part(const scalar& it);
  bool enter(bool map);
  bool enter_field(bool map);
  bool leave();
  bool leave_event();
  part current_part() const { return batch_map_ ? part_ : static_cast<part>(std::min(at_, 3)); }
  field current_field() const;

  std::size_t depth_ = 0;
  std::size_t skipped_ = 0; ///< depth of what is not listened to; 0: nothing
  bool batch_map_ = false;
  part part_ = part::other;
  int at_ = 0; ///< position in a batch that is an array
  bool event_map_ = false;
  field field_ = field::other;
  std::size_t position_ = 0; ///< in an event that is an array
  draft draft_;
  std::uint64_t nested_ = 0; ///< digest of an extra key that is a list, so far
};

field payload_reader::current_field() const {
  if (event_map_)
    return field_;
  if (position_ == 0)
    return field::type;
  if (draft_.is == draft::kind::stored)
    return field_at(stored_fields, position_);
  if (draft_.is == draft::kind::removed)
    return field_at(removed_fields, position_);
  return field::other;
}

bool payload_reader::key(std::string& name) {
  if (skipped_ != 0)
    return true;
  if (depth_ == 1)
    part_ = name == "ts"                   ? part::time
            : name == "events"             ? part::events
            : name == "data_parallel_rank" ? part::rank
                                           : part::other;
  else if (depth_ == 3)
    field_ = field_named(name);
  else
    return take({scalar::type::text, 0, name}); // of an extra key
  return true;
}

bool payload_reader::take(const scalar& it) {
  if (skipped_ != 0)
    return true;
  switch (depth_) {
    case 1: return take_part(it);
    case 3:
      draft_.take(current_field(), it);
      ++position_;
      return true;
    case 4: draft_.take_element(current_field(), it); return true;
    case 5: draft_.entries.push_back(digest(it)); return true;
    case 0:
    case 2: return false; // no batch, no event
    default: nested_ = fold(nested_, digest(it)); return true;
  }
}

bool payload_reader::take_part(const scalar& it) {
  using type = scalar::type;
  bool good = true;
  switch (current_part()) {
    case part::time: good = it.is_integer() || it.is == type::real; break;
    case part::events: good = false; break;
    case part::rank:
      good = it.is == type::nothing
             || (it.is == type::whole && it.number <= std::numeric_limits<std::uint32_t>::max());
      if (good && it.is == type::whole)
        batch.rank = static_cast<std::uint32_t>(it.number);
      break;
    case part::other: break;
  }
  at_ = std::min(at_ + 1, 3);
  return good;
}

bool payload_reader::enter(bool map) {
  if (++depth_ > depth_max)
    return false;
  if (skipped_ != 0)
    return true;
  switch (depth_) {
    case 1: batch_map_ = map; return true;
    case 2:
      if (current_part() == part::other)
        skipped_ = depth_;
      else if (current_part() != part::events || map || has_events)
        return false;
      else
        has_events = true;
      return true;
    case 3:
      draft_ = {};
      event_map_ = map;
      field_ = field::other;
      position_ = 0;
      return true;
    case 4: return enter_field(map);
    case 5:
      if (current_field() != field::extras) {
        draft_.wrong = true;
        skipped_ = depth_;
      }
      return true;
    case 6: nested_ = 0; [[fallthrough]];
    default: nested_ = fold(nested_, map ? 2 : 1); return true;
  }
}

bool payload_reader::enter_field(bool map) {
  auto of = current_field();
  auto list = !map && (of == field::hashes || of == field::tokens || of == field::extras);
  if (!list) {
    draft_.wrong = draft_.wrong || of != field::other;
    skipped_ = depth_;
  } else if (of == field::hashes) {
    draft_.wrong = draft_.wrong || draft_.has_hashes;
    draft_.has_hashes = true;
  } else if (of == field::tokens) {
    draft_.wrong = draft_.wrong || draft_.has_tokens;
    draft_.has_tokens = true;
  }
  return true;
}

bool payload_reader::leave() {
  auto left = depth_--;
  if (skipped_ != 0 && skipped_ != left)
    return true;
  auto skipped = std::exchange(skipped_, 0) != 0;
  switch (left) {
    case 1: return true;
    case 2: at_ = std::min(at_ + 1, 3); return true;
    case 3: return leave_event();
    case 4: ++position_; return true;
    case 5:
      if (!skipped)
        draft_.ends.push_back(draft_.entries.size());
      return true;
    case 6: draft_.entries.push_back(nested_); return true;
    default: nested_ = fold(nested_, 3); return true;
  }
}

bool payload_reader::leave_event() {
  draft_.finish();
  if (draft_.wrong)
    return false;
  if (draft_.is == draft::kind::unknown)
    ++batch.unknown;
  else
    batch.events.push_back(std::move(draft_.event));
  return true;
}

} // namespace

result<kv_event_batch> read_kv_events(std::string_view payload) {
  if (payload.size() > kv_payload_max)
    return {errc::too_long, "KV events of more bytes than allowed"};
  payload_reader reader;
  auto whole = nlohmann::json::sax_parse(
    payload.begin(), payload.end(), &reader, nlohmann::json::input_format_t::msgpack);
  if (!whole || !reader.has_events)
    return {errc::bad_message, "KV events that cannot be understood"};
  return std::move(reader.batch);
}

std::uint64_t adapter_digest(std::string_view name) {
  return digest({scalar::type::text, 0, name});
}

void apply(const kv_event& event, const instance_id& instance, prefix_index& index) {
  if (!event.counts)
    return;
  switch (event.happened) {
    case kv_event::what::stored:
      index.stored(
        instance, {event.hashes, event.parent, event.tokens, event.block_tokens, event.adapter,
                   event.extras});
      break;
    case kv_event::what::removed: index.removed(instance, event.hashes); break;
    case kv_event::what::cleared: index.cleared(instance); break;
  }
}

} // namespace llumnix
