#include "formats/target.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace llmc {
namespace {

constexpr size_t kMaxTargetBytes = 4096;
// Far above what names of a few hundred bytes need, far below a visible delay.
constexpr uint32_t kMatchLimit = 200'000;
constexpr uint32_t kHeapLimitKiB = 4096;

std::string Pcre2Message(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0) return "unknown error";
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Target::Pattern {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;

  Pattern() = default;
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  ~Pattern() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
};

absl::StatusOr<Target> Target::Compile(absl::string_view text) {
  if (text.empty() || text.size() > kMaxTargetBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("target of ", text.size(), " bytes, expected 1 to ", kMaxTargetBytes));
  }
  Target target;
  target.text_ = std::string(text);
  if (!absl::ConsumePrefix(&text, "re:")) return target;
  auto pattern = std::make_shared<Pattern>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  pattern->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                &error, &offset, nullptr);
  if (pattern->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", target.text_, "': ", Pcre2Message(error), " at character ", offset + 1,
                     " of the pattern, expected a regular expression"));
  }
  pattern->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(pattern->limits, kMatchLimit);
  pcre2_set_heap_limit(pattern->limits, kHeapLimitKiB);
  target.pattern_ = std::move(pattern);
  return target;
}

absl::StatusOr<TargetMatch> Target::Match(absl::string_view name,
                                          absl::string_view class_name) const {
  if (pattern_ == nullptr) {
    if (name == text_) return TargetMatch::kName;
    return ClassMatches(class_name, text_) ? TargetMatch::kClass : TargetMatch::kNone;
  }
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> matched(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  const int rc = pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(),
                             0, 0, matched.get(), pattern_->limits);
  if (rc >= 0) return TargetMatch::kPattern;
  if (rc == PCRE2_ERROR_NOMATCH) return TargetMatch::kNone;
  return absl::InvalidArgumentError(absl::StrCat("'", text_, "' on module name '",
                                                 name.substr(0, 200), "': ", Pcre2Message(rc),
                                                 ", expected a simpler pattern"));
}

absl::Status TargetSet::Add(absl::string_view text, int owner) {
  const std::string key(text);
  if (const auto at = patterns_.find(key); at != patterns_.end()) {
    at->second.owner = owner;
    return absl::OkStatus();
  }
  LLMC_ASSIGN_OR_RETURN(Target target, Target::Compile(text));
  if (target.is_pattern()) {
    patterns_.emplace(key, Pattern{std::move(target), owner});
  } else {
    names_[key] = owner;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<TargetSet::Hit>> TargetSet::Find(absl::string_view name,
                                                              absl::string_view class_name) const {
  if (const auto at = names_.find(std::string(name)); at != names_.end()) {
    return Hit{at->second, at->first, TargetMatch::kName};
  }
  for (const auto& [text, pattern] : patterns_) {
    LLMC_ASSIGN_OR_RETURN(const TargetMatch match, pattern.target.Match(name, class_name));
    if (match != TargetMatch::kNone) return Hit{pattern.owner, text, match};
  }
  std::set<std::string> classes = {std::string(class_name), "Linear", "Module"};
  for (const std::string& candidate : classes) {
    const auto at = names_.find(candidate);
    if (at == names_.end() || !ClassMatches(class_name, candidate)) continue;
    return Hit{at->second, candidate, TargetMatch::kClass};
  }
  return std::nullopt;
}

bool ClassMatches(absl::string_view class_name, absl::string_view target) {
  if (class_name.empty()) return false;
  if (class_name == target || target == "Module") return true;
  return target == "Linear" &&
         (class_name == "LinearBase" || class_name == "NonDynamicallyQuantizableLinear");
}

std::string ServingClassName(absl::string_view class_name) {
  const std::string name(class_name);
  if (name.find("ExpertMLP") != std::string::npos) return name;
  if (name.find("Router") != std::string::npos || name.find("Gating") != std::string::npos) {
    return "Linear";
  }
  for (size_t at = name.find("Gate"); at != std::string::npos; at = name.find("Gate", at + 1)) {
    const char next = at + 4 < name.size() ? name[at + 4] : '\0';
    if (next < 'a' || next > 'z') return "Linear";
  }
  return name;
}

}  // namespace llmc
