#pragma once

#include <spdlog/fmt/fmt.h>

#include <string>
#include <string_view>

/// Logging: one logger per area, a stable event name to search for, then a sentence. Goes to
/// stderr.
namespace llumnix::log {

enum class level { debug, info, warn, error, off };

/// How the process logs. Set once, before any thread logs.
struct options {
  level threshold = level::info;
  bool json = false; ///< one JSON object per line
  std::string node;  ///< written in each line, so that lines of several processes can be told apart
};

void configure(const options& how);
bool enabled(level at);
/// Writes one line. `area` and `event` are identifiers; `sentence` is for people.
void write(level at, std::string_view area, std::string_view event, std::string_view sentence);

/// The logger of one area of the system.
class logger {
public:
  explicit constexpr logger(std::string_view area) : area_{area} {}

  template <class... Ts>
  void debug(std::string_view event, fmt::format_string<Ts...> text, Ts&&... xs) const {
    emit(level::debug, event, text, std::forward<Ts>(xs)...);
  }
  template <class... Ts>
  void info(std::string_view event, fmt::format_string<Ts...> text, Ts&&... xs) const {
    emit(level::info, event, text, std::forward<Ts>(xs)...);
  }
  template <class... Ts>
  void warn(std::string_view event, fmt::format_string<Ts...> text, Ts&&... xs) const {
    emit(level::warn, event, text, std::forward<Ts>(xs)...);
  }
  template <class... Ts>
  void error(std::string_view event, fmt::format_string<Ts...> text, Ts&&... xs) const {
    emit(level::error, event, text, std::forward<Ts>(xs)...);
  }

private:
  template <class... Ts>
  void emit(level at, std::string_view event, fmt::format_string<Ts...> text, Ts&&... xs) const {
    if (enabled(at))
      write(at, area_, event, fmt::format(text, std::forward<Ts>(xs)...));
  }
  std::string_view area_;
};

inline constexpr logger node{"node"};
inline constexpr logger gateway{"gateway"};
inline constexpr logger http{"http"};
inline constexpr logger scheduler{"scheduler"};
inline constexpr logger llumlet{"llumlet"};
inline constexpr logger engine{"engine"};
inline constexpr logger cms{"cms"};
inline constexpr logger redis{"redis"};

} // namespace llumnix::log
