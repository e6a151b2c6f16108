#include "llmc/failpoint.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace llmc {
namespace {

struct Rule {
  std::string action;
  int hit = 0;    // 0: every hit.
  int rank = -1;  // -1: every rank.
  int hits_seen = 0;
};

std::atomic<int> failpoint_rank{0};

// "kill@2/r1" -> {kill, 2, 1}.
Rule ParseRule(absl::string_view text) {
  Rule rule;
  if (const size_t slash = text.rfind("/r"); slash != absl::string_view::npos) {
    (void)absl::SimpleAtoi(text.substr(slash + 2), &rule.rank);
    text = text.substr(0, slash);
  }
  if (const size_t at = text.rfind('@'); at != absl::string_view::npos) {
    (void)absl::SimpleAtoi(text.substr(at + 1), &rule.hit);
    text = text.substr(0, at);
  }
  rule.action = std::string(text);
  return rule;
}

std::map<std::string, Rule, std::less<>>& Rules() {
  static auto* rules = [] {
    auto* parsed = new std::map<std::string, Rule, std::less<>>;
    const char* text = std::getenv("LLMC_FAILPOINTS");
    for (absl::string_view entry :
         absl::StrSplit(text == nullptr ? "" : text, ';', absl::SkipEmpty())) {
      const std::pair<absl::string_view, absl::string_view> pair =
          absl::StrSplit(entry, absl::MaxSplits('=', 1));
      parsed->emplace(std::string(pair.first), ParseRule(pair.second));
    }
    return parsed;
  }();
  return *rules;
}

absl::Status Act(absl::string_view name, absl::string_view action) {
  if (action == "kill") std::raise(SIGKILL);
  if (action == "term") std::raise(SIGTERM);
  if (action == "error") return absl::InternalError(absl::StrCat("failpoint ", name));
  if (action == "enospc")
    return absl::ResourceExhaustedError(
        absl::StrCat("failpoint ", name, ": no space left on device"));
  int milliseconds = 0;
  if (action.substr(0, 6) == "sleep(" &&
      absl::SimpleAtoi(action.substr(6, action.size() - 7), &milliseconds)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }
  return absl::OkStatus();
}

}  // namespace

void SetFailpointRank(int rank) { failpoint_rank = rank; }

absl::Status Failpoint(absl::string_view name) {
  static const bool enabled = !Rules().empty();
  if (!enabled) return absl::OkStatus();
  static std::mutex mutex;
  std::string action;
  {
    std::lock_guard<std::mutex> lock(mutex);
    auto it = Rules().find(name);
    if (it == Rules().end()) return absl::OkStatus();
    Rule& rule = it->second;
    if (rule.rank >= 0 && rule.rank != failpoint_rank) return absl::OkStatus();
    if (++rule.hits_seen != rule.hit && rule.hit != 0) return absl::OkStatus();
    action = rule.action;
  }
  return Act(name, action);
}

}  // namespace llmc
