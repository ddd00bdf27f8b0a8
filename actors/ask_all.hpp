#pragma once

#include <caf/all.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace llumnix {

/// How long an actor of the cluster has to answer a question of people.
inline constexpr std::chrono::milliseconds answer_time{1000};

/// Asks every actor the same question and hands over the answers once all have answered, failed or
/// been silent for `timeout`; those without an answer are left out. Order is that of `actors`.
template <class Answer, class Self, class Actor, class Question>
void ask_all(
  Self* self, const std::vector<Actor>& actors, const Question& question,
  std::chrono::milliseconds timeout, std::function<void(std::vector<Answer>)> done) {
  struct round {
    std::vector<std::unique_ptr<Answer>> answers;
    std::size_t open = 0;
    std::function<void(std::vector<Answer>)> done;
    void settle() {
      if (--open > 0)
        return;
      std::vector<Answer> all;
      for (auto& one : answers)
        if (one)
          all.push_back(std::move(*one));
      done(std::move(all));
    }
  };
  auto shared = std::make_shared<round>();
  shared->answers.resize(actors.size());
  shared->open = actors.size() + 1; // one for us, so that no actors at all is an answer too
  shared->done = std::move(done);
  for (std::size_t i = 0; i < actors.size(); ++i)
    self->request(actors[i], timeout, question)
      .then(
        [shared, i](Answer& answer) {
          shared->answers[i] = std::make_unique<Answer>(std::move(answer));
          shared->settle();
        },
        [shared](const caf::error&) { shared->settle(); });
  shared->settle();
}

} // namespace llumnix
