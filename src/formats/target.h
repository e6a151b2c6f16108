// The target strings of recipes and quantization_config: an exact module name,
// "re:PATTERN" anchored at the start of the name, or a class name.
#ifndef LLMC_FORMATS_TARGET_H_
#define LLMC_FORMATS_TARGET_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// How a target matches a module, strongest first.
enum class TargetMatch : uint8_t { kName, kPattern, kClass, kNone };

// One compiled target. Cheap to copy (the pattern is shared), safe to share
// between threads.
class Target {
 public:
  // kInvalidArgument: a pattern that does not compile, is longer than 4096 bytes
  // or an empty target.
  static absl::StatusOr<Target> Compile(absl::string_view text);

  const std::string& text() const { return text_; }
  bool is_pattern() const { return pattern_ != nullptr; }

  // Patterns see the full name and are anchored at its start, not at its end,
  // like Python's re.match. `class_name` may be "" (unknown: matches no class).
  // kInvalidArgument: the pattern backtracks beyond the match limit.
  absl::StatusOr<TargetMatch> Match(absl::string_view name, absl::string_view class_name) const;

 private:
  struct Pattern;
  std::string text_;
  std::shared_ptr<const Pattern> pattern_;
};

// The targets of several groups (or one ignore list) with the reference's
// priority: exact name, then the alphabetically first matching pattern, then the
// class. The order in which they were added decides nothing.
class TargetSet {
 public:
  // A text that was added before keeps its place and takes the new `owner`.
  absl::Status Add(absl::string_view text, int owner);

  struct Hit {
    int owner = 0;     // As given to Add.
    std::string text;  // The target that decided.
    TargetMatch match = TargetMatch::kNone;
  };
  // nullopt: nothing matches.
  absl::StatusOr<std::optional<Hit>> Find(absl::string_view name,
                                          absl::string_view class_name) const;

 private:
  struct Pattern {
    Target target;
    int owner;
  };
  std::map<std::string, int> names_;         // Exact names and classes -> owner.
  std::map<std::string, Pattern> patterns_;  // By text: the first match decides.
};

// True for a class that a target of that name reaches: itself, its base classes
// as far as names tell (LinearBase and NonDynamicallyQuantizableLinear are
// Linear, everything is Module).
bool ClassMatches(absl::string_view class_name, absl::string_view target);

// The class name under which serving clients see a module: mixture-of-experts
// routers ("...Router...", "...Gating...", "Gate" not followed by a lower-case
// letter, unless "ExpertMLP") count as "Linear".
std::string ServingClassName(absl::string_view class_name);

}  // namespace llmc

#endif  // LLMC_FORMATS_TARGET_H_
