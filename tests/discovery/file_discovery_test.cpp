#include "discovery_rig.hpp"
#include "integrations/discovery/file_discovery.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

namespace llumnix::testing {
namespace {

namespace fs = std::filesystem;

/// A folder of the test's own, gone at the end.
struct scratch_folder {
  scratch_folder() {
    std::string pattern = fs::temp_directory_path() / "llumnix-files-XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  ~scratch_folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const { return path / name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream{path / name, std::ios::trunc | std::ios::binary} << text;
  }
  fs::path path;
};

struct files_rig {
  explicit files_rig(std::vector<std::string> names) {
    for (auto& name : names)
      name = folder.file(name);
    files = std::make_unique<file_discovery>(std::move(names), 1s, loop);
  }
  void start() {
    files->start(heard.listener());
    CHECK(heard.times() == 0);
  }
  void pass(std::chrono::milliseconds time) {
    for (auto end = loop.time + time; loop.time < end; loop.time += 100ms)
      files->tick();
  }
  double answered_s_ago() const { return files->health().answered_s_ago; }

  hand_loop loop;
  scratch_folder folder;
  heard_lists heard;
  std::unique_ptr<file_discovery> files;
};

} // namespace

TEST_CASE("a file is read when two looks in a row find it the same") {
  using step = file_watch::step;
  const file_stamp a{1, 1, 10, 5, 5};
  auto other = [&](auto change) {
    auto stamp = a;
    change(stamp);
    return stamp;
  };
  const file_stamp rows[] = {
    other([](file_stamp& x) { ++x.device; }), other([](file_stamp& x) { ++x.inode; }),
    other([](file_stamp& x) { ++x.size; }), other([](file_stamp& x) { --x.written_ns; }),
    other([](file_stamp& x) { ++x.changed_ns; })};
  for (const auto& b : rows) {
    file_watch watch;
    CHECK(watch.look(a) == step::read); // the first time at once
    watch.on_read(a);
    CHECK(watch.look(a) == step::read); // and once more, for it may have been written just then
    watch.on_read(a);
    CHECK(watch.look(a) == step::rest);
    CHECK(watch.look(b) == step::look_soon);
    CHECK(watch.look(a) == step::rest);
    CHECK(watch.look(b) == step::look_soon);
    CHECK(watch.look(b) == step::read);
    watch.on_read(b);
    CHECK(watch.look(b) == step::rest);
    watch.on_trouble();
    CHECK(watch.look(b) == step::look_soon);
    CHECK(watch.look(b) == step::read);
  }
}

TEST_CASE("engines come from a file, and others when it changes") {
  files_rig rig{{"a"}};
  rig.folder.write("a", "# ours\nh:1\ntype=prefill@h:2\n");
  CHECK(rig.answered_s_ago() < 0);
  rig.start();
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "h:1 h:2");
  CHECK(rig.heard.lists[0][1].role == "prefill");
  rig.pass(10s);
  CHECK(rig.heard.times() == 1);
  CHECK(rig.files->health().source == "files");
  CHECK(rig.files->health().engines == 2);
  CHECK(rig.files->health().errors == 0);
  CHECK(rig.answered_s_ago() < 1.1);

  SUBCASE("written again") {
    rig.folder.write("a", "h:3");
    rig.pass(1200ms);
    CHECK(rig.heard.ids() == "h:3");
  }
  SUBCASE("renamed over, as editors do") {
    rig.folder.write("b", "h:4");
    fs::rename(rig.folder.file("b"), rig.folder.file("a"));
    rig.pass(1200ms);
    CHECK(rig.heard.ids() == "h:4");
  }
  SUBCASE("emptied") {
    rig.folder.write("a", "");
    rig.pass(1200ms);
    CHECK(rig.heard.ids() == "");
  }
  SUBCASE("touched") {
    rig.folder.write("a", "h:2@h:1");
    rig.folder.write("a", "h:1,type=prefill@h:2");
    rig.pass(5s);
    CHECK(rig.heard.times() == 1);
  }
}

TEST_CASE("a mounted ConfigMap shows its changes") { // a link to a link to a folder
  files_rig rig{{"engines"}};
  fs::create_directory(rig.folder.path / "..1");
  fs::create_directory(rig.folder.path / "..2");
  rig.folder.write("..1/engines", "h:1");
  rig.folder.write("..2/engines", "h:2");
  fs::create_symlink("..1", rig.folder.path / "..data");
  fs::create_symlink("..data/engines", rig.folder.path / "engines");
  rig.start();
  rig.pass(3s);
  CHECK(rig.heard.ids() == "h:1");
  fs::create_symlink("..2", rig.folder.path / "..tmp");
  fs::rename(rig.folder.path / "..tmp", rig.folder.path / "..data");
  rig.pass(1200ms);
  CHECK(rig.heard.ids() == "h:2");
}

TEST_CASE("a file that is missing or wrong leaves what it said in force") {
  using spoil = void (*)(const scratch_folder&);
  const std::pair<const char*, spoil> rows[] = {
    {"missing", [](const scratch_folder& in) { fs::remove(in.file("a")); }},
    {"a mistake", [](const scratch_folder& in) { in.write("a", "h:1\nh:2\nweight=1@h:3"); }},
    {"too long",
     [](const scratch_folder& in) { in.write("a", std::string(list_bytes_max + 1, '\n')); }},
    {"a folder",
     [](const scratch_folder& in) {
       fs::remove(in.file("a"));
       fs::create_directory(in.path / "a");
     }},
    {"a pipe without anybody",
     [](const scratch_folder& in) {
       fs::remove(in.file("a"));
       ::mkfifo(in.file("a").c_str(), 0600);
     }},
    {"a link into nothing",
     [](const scratch_folder& in) {
       fs::remove(in.file("a"));
       fs::create_symlink("nothing", in.path / "a");
     }},
  };
  for (const auto& [name, spoil_file] : rows) {
    CAPTURE(name);
    files_rig rig{{"a", "b"}};
    rig.folder.write("a", "h:1");
    rig.folder.write("b", "h:8");
    rig.start();
    rig.pass(3s);
    CHECK(rig.heard.ids() == "h:1 h:8");
    spoil_file(rig.folder);
    rig.pass(10s);
    CHECK(rig.heard.times() == 1);
    CHECK(rig.files->health().errors == 1); // not one each second
    CHECK(rig.answered_s_ago() > 8);
    rig.folder.write("b", "h:9\n"); // the others go on; of another size, for all is one instant
    rig.pass(1200ms);
    CHECK(rig.heard.ids() == "h:1 h:9");
    fs::remove_all(rig.folder.path / "a");
    rig.folder.write("a", "h:2");
    rig.pass(1200ms);
    CHECK(rig.heard.ids() == "h:2 h:9");
    CHECK(rig.answered_s_ago() < 1.1);
    CHECK(rig.files->health().errors <= 2); // missing for a moment is another thing
  }
}

TEST_CASE("a source of files answers with the first of them that is good") {
  files_rig rig{{"a", "b"}};
  rig.start();
  rig.pass(5s);
  CHECK(rig.heard.times() == 0);
  CHECK(rig.files->health().errors == 2);
  rig.folder.write("b", "h:2,h:1");
  rig.pass(1200ms);
  CHECK(rig.heard.ids() == "h:1 h:2");
  CHECK(rig.answered_s_ago() < 0); // not all of them yet
  rig.folder.write("a", "model=m@h:1");
  rig.pass(1200ms);
  CHECK(rig.heard.ids() == "h:1 h:2"); // the first file tells of it
  CHECK(rig.heard.times() == 2);
  CHECK(rig.heard.lists.back()[0].model == "m");
  CHECK(rig.answered_s_ago() < 1.1);
}

TEST_CASE("a file is not read while somebody writes it") {
  files_rig rig{{"a"}};
  rig.folder.write("a", "h:1");
  rig.start();
  rig.pass(3s);
  for (int i = 2; i < 30; ++i) { // longer than a look's interval, never at rest
    std::ofstream{rig.folder.path / "a", std::ios::app} << ",h:" << i;
    rig.pass(100ms);
    CHECK(rig.heard.times() == 1);
  }
  rig.pass(1200ms);
  CHECK(rig.heard.times() == 2);
  CHECK(rig.heard.lists.back().size() == 29);
}

} // namespace llumnix::testing
