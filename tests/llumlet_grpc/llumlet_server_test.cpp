// gRPC's end of the llumlets' service, over loopback, with a handler that answers when it is told.
#include "integrations/llumlet_grpc/llumlet_server.hpp"
#include "llumlet.grpc.pb.h"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <grpcpp/grpcpp.h>
#include <mutex>
#include <thread>
#include <vector>

using namespace llumnix;
using namespace std::chrono_literals;

namespace {

struct told {
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;
  bool success = false;
};

/// A server whose calls wait in a list, unless they are answered at once.
struct waiting_server {
  explicit waiting_server(const std::string& key = {}, std::size_t calls_max = 256) {
    llumlet_server_options options;
    options.listen = "127.0.0.1:0";
    options.key = key;
    options.calls_max = calls_max;
    auto made
      = llumlet_server::make(options, [this](incoming_call call, llumlet_server::answer say) {
          if (at_once)
            say({call_code::ok, true, "done"});
          std::lock_guard guard{mutex};
          calls.push_back(std::move(call));
          answers.push_back(std::move(say));
          changed.notify_all();
        });
    REQUIRE(made.has_value());
    server = std::move(*made);
  }
  ~waiting_server() { server->stop(0ms); }

  /// False without so many calls in ten seconds.
  bool has(std::size_t count) {
    std::unique_lock guard{mutex};
    return changed.wait_for(guard, 10s, [&] { return calls.size() >= count; });
  }
  llumlet_server::answer take_answer(std::size_t number) {
    std::lock_guard guard{mutex};
    return std::exchange(answers[number], nullptr);
  }

  std::unique_ptr<llumlet::Llumlet::Stub> caller() const {
    return llumlet::Llumlet::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  }
  /// A call from another thread.
  std::future<told> call(std::shared_ptr<grpc::ClientContext> context = nullptr) const {
    if (!context)
      context = std::make_shared<grpc::ClientContext>();
    return std::async(std::launch::async, [stub = caller(), context] {
      llumlet::MigrateResponse response;
      auto status = stub->Migrate(context.get(), {}, &response);
      return told{
        status.error_code(), status.ok() ? response.message() : status.error_message(),
        response.success()};
    });
  }

  std::atomic<bool> at_once = false;
  std::mutex mutex; ///< guards the next two
  std::vector<incoming_call> calls;
  std::vector<llumlet_server::answer> answers;
  std::condition_variable changed;
  std::unique_ptr<llumlet_server> server;
};

bool eventually(const std::function<bool()>& holds) {
  auto until = std::chrono::steady_clock::now() + 10s;
  while (!holds() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(1ms);
  return holds();
}

} // namespace

TEST_CASE("so many calls are under way and no more; whoever is above is told so") {
  waiting_server one{"", 2};
  auto first = one.call(), second = one.call();
  REQUIRE(one.has(2));
  auto above = one.call().get();
  CHECK(above.code == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(above.message == "2 calls are under way already");
  CHECK(one.server->counters().open == 2);
  one.take_answer(0)({call_code::ok, true, "done"});
  one.take_answer(1)({call_code::ok, false, "none fits"});
  for (auto* each : {&first, &second}) {
    auto answer = each->get();
    CHECK(answer.code == grpc::StatusCode::OK);
    CHECK(answer.success == (answer.message == "done"));
  }
  REQUIRE(eventually([&] { return one.server->counters().open == 0; }));
  auto third = one.call();
  REQUIRE(one.has(3));
  one.take_answer(2)({call_code::invalid_argument, false, "no"});
  CHECK(third.get().message == "no");
  auto counters = one.server->counters();
  CHECK(counters.migrate_calls == 4);
  CHECK(counters.ended[0] == 2);
  CHECK(counters.ended[3] == 1);
  CHECK(counters.ended[8] == 1);
}

TEST_CASE("a call whose answer is dropped is answered, and one that was answered is not again") {
  waiting_server one;
  auto dropped = one.call();
  REQUIRE(one.has(1));
  one.take_answer(0) = nullptr;
  auto answer = dropped.get();
  CHECK(answer.code == grpc::StatusCode::UNAVAILABLE);
  CHECK(answer.message == "the llumlet ended meanwhile");
  auto twice = one.call();
  REQUIRE(one.has(2));
  auto say = one.take_answer(1);
  say({call_code::ok, true, "first"});
  say({call_code::internal, false, "second"});
  CHECK(twice.get().message == "first");
}

TEST_CASE("a caller that goes away is seen to, and a late answer harms nobody") {
  waiting_server one;
  auto context = std::make_shared<grpc::ClientContext>();
  auto call = one.call(context);
  REQUIRE(one.has(1));
  auto withdrawn = one.calls[0].withdrawn;
  CHECK(!*withdrawn);
  context->TryCancel();
  CHECK(call.get().code == grpc::StatusCode::CANCELLED);
  CHECK(eventually([&] { return withdrawn->load(); }));
  CHECK(eventually([&] { return one.server->counters().open == 0; }));
  one.take_answer(0)({call_code::ok, true, "late"});
  CHECK(one.server->counters().ended[1] == 1);
  CHECK(one.server->counters().ended[0] == 0);
}

TEST_CASE("who is told to refuse takes no call any more, and ends those it has when it stops") {
  waiting_server one;
  auto call = one.call();
  REQUIRE(one.has(1));
  one.server->refuse();
  auto refused = one.call().get();
  CHECK(refused.code == grpc::StatusCode::UNAVAILABLE);
  CHECK(refused.message == "the node stops");
  one.server->stop(20s);
  CHECK(call.get().message == "the node stops; what was chosen goes on");
  one.take_answer(0)({call_code::ok, true, "late"});
}

TEST_CASE("no call slips in between the refusal and the end, where nobody would answer it") {
  for (int round = 0; round < 4; ++round) {
    waiting_server one;
    one.at_once = true;
    std::atomic<bool> over = false;
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
      callers.emplace_back([&, stub = one.caller()] {
        while (!over) {
          grpc::ClientContext context;
          context.set_deadline(std::chrono::system_clock::now() + 60s);
          llumlet::MigrateResponse response;
          stub->Migrate(&context, {}, &response);
        }
      });
    CHECK(one.has(20));
    one.at_once = false; // what comes from now on waits, and more comes all the time
    auto began = std::chrono::steady_clock::now();
    one.server->stop(30s);
    CHECK(std::chrono::steady_clock::now() - began < 15s);
    over = true;
    for (auto& each : callers)
      each.join();
  }
}

TEST_CASE("who has no key is turned away") {
  waiting_server one{"open-sesame"};
  CHECK(one.call().get().code == grpc::StatusCode::UNAUTHENTICATED);
  auto context = std::make_shared<grpc::ClientContext>();
  context->AddMetadata("authorization", "Bearer open-sesame");
  auto call = one.call(context);
  REQUIRE(one.has(1));
  one.take_answer(0)({call_code::ok, true, "done"});
  CHECK(call.get().success);
}
