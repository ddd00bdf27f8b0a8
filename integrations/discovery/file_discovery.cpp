#include "integrations/discovery/file_discovery.hpp"

#include "integrations/discovery/discovery_log.hpp"
#include "integrations/discovery/engine_list.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace llumnix {
namespace {

file_stamp stamp_of(const struct stat& is) {
  auto nanoseconds_of = [](const timespec& time) {
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return {
    static_cast<std::uint64_t>(is.st_dev), static_cast<std::uint64_t>(is.st_ino),
    static_cast<std::uint64_t>(is.st_size), nanoseconds_of(is.st_mtim), nanoseconds_of(is.st_ctim)};
}

error last_error() {
  return {
    errno == ENOENT ? errc::not_found : errc::invalid_argument,
    std::generic_category().message(errno)};
}

result<file_stamp> stamp_of(const std::string& path) {
  struct stat is {};
  if (::stat(path.c_str(), &is) != 0)
    return last_error();
  return stamp_of(is);
}

/// A file open for reading, if it is one: a pipe or a device could keep us waiting.
class open_file {
public:
  explicit open_file(const std::string& path)
    : file_{::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)} {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (file_ >= 0)
      ::close(file_);
  }
  bool is_open() const { return file_ >= 0; }

  result<file_stamp> stamp() const {
    struct stat is {};
    if (::fstat(file_, &is) != 0)
      return last_error();
    if (!S_ISREG(is.st_mode))
      return {errc::invalid_argument, "it is not a plain file"};
    return stamp_of(is);
  }

  result<std::string> text() const {
    std::string text;
    char piece[16 * 1024];
    for (;;) {
      auto count = ::read(file_, piece, sizeof(piece));
      if (count < 0 && errno == EINTR)
        continue;
      if (count < 0)
        return last_error();
      if (count == 0)
        return text;
      text.append(piece, static_cast<std::size_t>(count));
      if (text.size() > list_bytes_max)
        return {errc::too_long, "it is longer than 1 MiB"};
    }
  }

private:
  int file_;
};

/// The text of the file as long as it has that stamp; `stale` if it has another by now.
result<std::string> read_file(const std::string& path, const file_stamp& expected) {
  open_file file{path};
  if (!file.is_open())
    return last_error();
  auto before = file.stamp();
  if (!before)
    return std::move(before).error();
  if (before->size > list_bytes_max)
    return {errc::too_long, "it is longer than 1 MiB"};
  auto text = file.text();
  auto after = file.stamp();
  if (!after || *before != expected || *after != expected)
    return {errc::stale, "it is being written"};
  return text;
}

std::string describe(const std::vector<list_problem>& problems) {
  const auto& first = problems.front();
  auto text = "line " + std::to_string(first.line) + ": " + first.sentence;
  if (problems.size() > 1)
    text += " (and more)";
  return text;
}

} // namespace

file_watch::step file_watch::look(const file_stamp& now) {
  const bool settled = std::exchange(seen_, now) == now;
  if (read_ == now)
    return step::rest;
  return settled || first_ ? step::read : step::look_soon;
}

void file_watch::on_trouble() {
  first_ = false;
  seen_.reset();
  read_.reset();
}

void file_watch::on_read(const file_stamp& under) {
  if (!std::exchange(first_, false))
    read_ = under;
}

file_discovery::file_discovery(
  std::vector<std::string> paths, std::chrono::milliseconds interval, executor& loop)
  : interval_{interval}, loop_{loop} {
  for (auto& path : paths)
    files_.push_back({.path = std::move(path), .watch = {}, .trouble = {}});
  lists_.resize(files_.size());
}

void file_discovery::tick() {
  const bool all = loop_.now() >= due_;
  if (all)
    due_ = loop_.now() + interval_;
  for (std::size_t i = 0; i < files_.size(); ++i)
    if (all || files_[i].in_doubt)
      look(i);
  if (std::all_of(files_.begin(), files_.end(), [](const file& each) { return each.well; }))
    well_at_ = loop_.now();
  if (std::exchange(changed_, false))
    tell();
}

void file_discovery::look(std::size_t which) {
  auto& file = files_[which];
  auto stamp = stamp_of(file.path);
  file.in_doubt = false;
  if (!stamp)
    return take_trouble(file, stamp.error().context);
  switch (file.watch.look(*stamp)) {
    case file_watch::step::rest: return;
    case file_watch::step::look_soon: file.in_doubt = true; return;
    case file_watch::step::read: return read(which, *stamp);
  }
}

void file_discovery::read(std::size_t which, const file_stamp& stamp) {
  auto& file = files_[which];
  auto text = read_file(file.path, stamp);
  if (!text && text.error().code == errc::stale) {
    file.in_doubt = true;
    return;
  }
  if (!text)
    return take_trouble(file, text.error().context);
  file.watch.on_read(stamp);
  auto list = read_engine_list(*text);
  if (!list.problems.empty()) {
    file.well = false;
    return take_mistake(file, describe(list.problems));
  }
  if (!file.trouble.empty())
    log::discovery.warn("list-good", "{} is used again", file.path);
  file.trouble.clear();
  file.well = true;
  changed_ = true;
  lists_[which] = std::move(list.engines);
}

/// It says what it said before: nothing new.
void file_discovery::take_trouble(file& of, std::string what) {
  of.watch.on_trouble();
  take_mistake(of, std::move(what));
}

void file_discovery::take_mistake(file& of, std::string what) {
  of.well = false;
  if (what == of.trouble)
    return;
  ++errors_;
  log::discovery.warn("list-bad", "{} is not used, what it said before is: {}", of.path, what);
  of.trouble = std::move(what);
}

void file_discovery::tell() {
  auto merged = merge_lists(lists_);
  if (std::exchange(told_once_, true) && merged.engines == engines_)
    return;
  engines_ = std::move(merged.engines);
  told_(engines_);
}

discovery_health file_discovery::health() const {
  discovery_health health{"files", engines_.size(), errors_, -1};
  if (well_at_)
    health.answered_s_ago = std::chrono::duration<double>(loop_.now() - *well_at_).count();
  return health;
}

} // namespace llumnix
