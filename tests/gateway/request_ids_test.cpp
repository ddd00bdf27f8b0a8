#include "gateway/request_ids.hpp"

#include <doctest/doctest.h>

#include <cctype>
#include <optional>
#include <set>
#include <string>
#include <thread>

namespace llumnix {
namespace {

/// xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx, x a lower-case hex digit, V one of 8 9 a b.
bool is_uuid_v4(const std::string& text) {
  const std::string form = "xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx";
  if (text.size() != form.size())
    return false;
  for (std::size_t i = 0; i < form.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    auto hex = std::isdigit(byte) || (byte >= 'a' && byte <= 'f');
    auto fits = form[i] == 'x'   ? hex
                : form[i] == 'V' ? std::string{"89ab"}.find(text[i]) != std::string::npos
                                 : text[i] == form[i];
    if (!fits)
      return false;
  }
  return true;
}

} // namespace

TEST_CASE("only names of the allowed characters and length are ids") {
  for (const auto& id : {std::string{"a"}, std::string{"A-z_0.9:x"}, std::string(128, 'x')})
    CHECK(valid_request_id(id));
  for (const auto& id :
       {std::string{}, std::string(129, 'x'), std::string{"a b"}, std::string{"a\n"},
        std::string{"\u00e9"}, std::string{"a/b"}, std::string{"a\"b"}, std::string{"a\0b", 3}})
    CHECK_FALSE(valid_request_id(id));
}

TEST_CASE("a missing or bad name is replaced by a fresh UUIDv4") {
  request_ids ids;
  std::mt19937_64 random{1};
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    auto id = ids.take(i % 2 ? "" : "not valid", random);
    CHECK(is_uuid_v4(id.text()));
    CHECK(seen.insert(id.text()).second);
  }
}

TEST_CASE("while a name runs others get a number behind it") {
  request_ids ids;
  std::mt19937_64 random{1};
  std::optional first{ids.take("job", random)};
  auto explicit_third = ids.take("job-3", random);
  std::optional second{ids.take("job", random)};
  auto fourth = ids.take("job", random);
  CHECK(first->text() == "job");
  CHECK(second->text() == "job-2");
  CHECK(explicit_third.text() == "job-3");
  CHECK(fourth.text() == "job-4"); // "job-3" runs already
  first.reset();
  auto again = ids.take("job", random);
  CHECK(again.text() == "job");
  second.reset();
  CHECK(
    ids.take("job", random).text() == "job-5"); // numbers are not used twice while the name runs
}

TEST_CASE("a name is free again once all of its requests have ended") {
  request_ids ids;
  std::mt19937_64 random{1};
  {
    auto a = ids.take("job", random);
    auto b = ids.take("job", random);
    auto moved = std::move(b);
    CHECK(moved.text() == "job-2");
  }
  auto a = ids.take("job", random);
  CHECK(a.text() == "job");
  CHECK(ids.take("job", random).text() == "job-2");
}

TEST_CASE("ids stay unique when several loops take the same name at once") {
  request_ids ids;
  std::vector<std::vector<request_ids::claim>> taken(4);
  std::vector<std::thread> loops;
  for (std::size_t i = 0; i < taken.size(); ++i)
    loops.emplace_back([&, i] {
      std::mt19937_64 random{i};
      for (int j = 0; j < 200; ++j)
        taken[i].push_back(ids.take("job", random));
    });
  for (auto& loop : loops)
    loop.join();
  std::set<std::string> seen;
  for (const auto& loop : taken)
    for (const auto& id : loop)
      CHECK(seen.insert(id.text()).second);
  CHECK(seen.size() == 800);
}

} // namespace llumnix
