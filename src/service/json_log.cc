#include "service/json_log.h"

#include <unistd.h>

#include <chrono>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace llmc {

void LogJson(absl::string_view level, absl::string_view message,
             const std::vector<LogField>& fields) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t millis = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  nlohmann::ordered_json line = {{"time", absl::StrFormat("%d.%03d", millis / 1000, millis % 1000)},
                                 {"level", std::string(level)},
                                 {"message", std::string(message)}};
  for (const auto& [name, value] : fields) line[name] = value;
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

void LogChange(const Change& change) {
  for (const auto& [id, event] : change.events) {
    if (event.has_state_change()) {
      const v1::StateChange& moved = event.state_change();
      LogJson("info", moved.reason(),
              {{"job", id},
               {"from", std::string(StateName(moved.from()))},
               {"to", std::string(StateName(moved.to()))},
               {"pool", moved.pool()},
               {"incarnation", absl::StrCat(moved.incarnation())}});
      continue;
    }
    for (const v1::StepRecord& step : event.steps().steps()) {
      if (step.kind() != v1::StepRecord::KIND_WARNING) continue;
      LogJson("warning", step.message(),
              {{"job", id}, {"rank", absl::StrCat(step.rank())}, {"step", step.step()}});
    }
  }
}

}  // namespace llmc
