#include "tokenizer/oniguruma.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "tokenizer/character_class.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

constexpr int kMaxDepth = 64;
constexpr int kMaxRepeat = 65535;
constexpr int kUnbounded = -1;

struct Flags {
  bool caseless = false;
  bool dot_all = false;
  bool extended = false;
};

struct Interval {
  int min = 0;
  int max = kUnbounded;
  bool braces = false;
};

// Recursive descent over the pattern; each Parse... appends PCRE2 text for what it
// consumed.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    LLMC_ASSIGN_OR_RETURN(std::string out, ParseAlternation());
    if (!AtEnd()) return Error("unmatched ')'");
    return out;
  }

 private:
  bool AtEnd() const { return pos_ >= in_.size(); }
  char Peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool Take(absl::string_view text) {
    if (in_.substr(pos_, text.size()) != text) return false;
    pos_ += text.size();
    return true;
  }
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(what, " at byte ", pos_));
  }

  absl::StatusOr<std::string> ParseAlternation();
  absl::StatusOr<std::string> ParseBranch();
  absl::StatusOr<std::string> ParseAtom();
  absl::StatusOr<std::string> ParseGroup();
  absl::StatusOr<std::string> ParseGroupBody(absl::string_view opening);
  absl::StatusOr<std::string> ParseOptions();
  absl::StatusOr<std::string> ParseNamedGroup();
  absl::StatusOr<std::string> ParseEscape();
  absl::StatusOr<std::string> ParseQuantifiers(std::string atom);
  std::optional<Interval> ParseInterval();
  absl::StatusOr<bool> SkipIgnored();
  std::string TakeLiteral();

  absl::string_view in_;
  size_t pos_ = 0;
  int depth_ = 0;
  Flags flags_;
};

absl::StatusOr<std::string> Translator::ParseAlternation() {
  if (++depth_ > kMaxDepth) return Error("groups nested too deeply");
  LLMC_ASSIGN_OR_RETURN(std::string out, ParseBranch());
  while (Take("|")) {
    LLMC_ASSIGN_OR_RETURN(const std::string branch, ParseBranch());
    absl::StrAppend(&out, "|", branch);
  }
  --depth_;
  return out;
}

absl::StatusOr<std::string> Translator::ParseBranch() {
  std::string out;
  while (!AtEnd() && Peek() != '|' && Peek() != ')') {
    LLMC_ASSIGN_OR_RETURN(const bool skipped, SkipIgnored());
    if (skipped) continue;
    LLMC_ASSIGN_OR_RETURN(std::string atom, ParseAtom());
    LLMC_ASSIGN_OR_RETURN(atom, ParseQuantifiers(std::move(atom)));
    out += atom;
  }
  return out;
}

// Comments, and in extended mode blanks, which stand for nothing.
absl::StatusOr<bool> Translator::SkipIgnored() {
  if (Take("(?#")) {
    while (!AtEnd() && Peek() != ')') ++pos_;
    if (!Take(")")) return Error("comment without end");
    return true;
  }
  if (!flags_.extended) return false;
  if (absl::ascii_isspace(static_cast<unsigned char>(Peek()))) {
    ++pos_;
    return true;
  }
  if (Peek() != '#') return false;
  while (!AtEnd() && Peek() != '\n') ++pos_;
  return true;
}

std::string Translator::TakeLiteral() {
  const size_t length = std::min(Utf8Length(in_[pos_]), in_.size() - pos_);
  const absl::string_view character = in_.substr(pos_, length);
  pos_ += length;
  if (length == 1 && absl::ascii_ispunct(static_cast<unsigned char>(character[0]))) {
    return absl::StrCat("\\", character);
  }
  return std::string(character);
}

absl::StatusOr<std::string> Translator::ParseAtom() {
  switch (Peek()) {
    case '(':
      return ParseGroup();
    case '[':
      return ParseCharacterClass(in_, &pos_);
    case '\\':
      return ParseEscape();
    case '.':
    case '^':
    case '$':
      return std::string(1, in_[pos_++]);
    case '*':
    case '+':
    case '?':
      return Error("nothing to repeat");
    default:
      return TakeLiteral();
  }
}

absl::StatusOr<std::string> Translator::ParseGroup() {
  for (const absl::string_view opening : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
    if (Take(opening)) return ParseGroupBody(opening);
  }
  if (Take("(?<")) return ParseNamedGroup();
  if (Take("(?")) return ParseOptions();
  Take("(");
  return ParseGroupBody("(?:");
}

absl::StatusOr<std::string> Translator::ParseGroupBody(absl::string_view opening) {
  const Flags outer = flags_;
  LLMC_ASSIGN_OR_RETURN(const std::string body, ParseAlternation());
  if (!Take(")")) return Error("group without ')'");
  flags_ = outer;
  return absl::StrCat(opening, body, ")");
}

absl::StatusOr<std::string> Translator::ParseNamedGroup() {
  while (!AtEnd() && Peek() != '>') ++pos_;
  if (!Take(">")) return Error("group name without '>'");
  return ParseGroupBody("(?:");
}

// "(?imx-imx:...)", or "(?imx-imx)", which holds to the end of the group and takes
// the alternatives that follow into itself.
absl::StatusOr<std::string> Translator::ParseOptions() {
  const Flags outer = flags_;
  bool on = true;
  for (; Peek() != ':' && Peek() != ')'; ++pos_) {
    if (Peek() == '-') {
      on = false;
    } else if (Peek() == 'i') {
      flags_.caseless = on;
    } else if (Peek() == 'm') {
      flags_.dot_all = on;
    } else if (Peek() == 'x') {
      flags_.extended = on;
    } else {
      return Error("group of a kind that llmc does not support");
    }
  }
  const bool isolated = Peek() == ')';
  ++pos_;
  const std::string opening =
      absl::StrCat("(?", flags_.caseless ? "i" : "", flags_.dot_all ? "s" : "", "-",
                   flags_.caseless ? "" : "i", flags_.dot_all ? "" : "s", ":");
  LLMC_ASSIGN_OR_RETURN(const std::string body, ParseAlternation());
  if (!isolated && !Take(")")) return Error("group without ')'");
  flags_ = outer;
  return absl::StrCat(opening, body, ")");
}

absl::StatusOr<std::string> Translator::ParseEscape() {
  static const auto* const kAnchors = new std::map<char, absl::string_view>{
      {'A', "\\A"}, {'z', "\\z"}, {'Z', "\\Z"},    {'G', "\\G"},
      {'R', "\\R"}, {'X', "\\X"}, {'N', "[^\\n]"}, {'O', "(?s:.)"}};
  const char letter = Peek(1);
  if (const auto it = kAnchors->find(letter); it != kAnchors->end()) {
    pos_ += 2;
    return std::string(it->second);
  }
  if (letter == 'b' || letter == 'B') {
    pos_ += 2;
    const std::string word = absl::StrCat("[", kOnigurumaWordItems, "]");
    return letter == 'b'
               ? absl::StrCat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))")
               : absl::StrCat("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))");
  }
  if ((letter >= '1' && letter <= '9') || letter == 'k' || letter == 'g' || letter == 'K' ||
      letter == 'y' || letter == 'Y') {
    return Error(
        absl::StrCat("\\", absl::string_view(&letter, 1), ", which llmc does not support,"));
  }
  LLMC_ASSIGN_OR_RETURN(const ClassEscape escape, ParseClassEscape(in_, &pos_));
  return escape.Atom();
}

// "{n}", "{n,}", "{n,m}" or "{,m}"; any other brace is a literal.
std::optional<Interval> Translator::ParseInterval() {
  size_t at = pos_ + 1;
  const auto number = [&]() -> std::optional<int> {
    const size_t begin = at;
    int value = 0;
    for (; at < in_.size() && absl::ascii_isdigit(static_cast<unsigned char>(in_[at])); ++at) {
      value = std::min(kMaxRepeat + 1, value * 10 + (in_[at] - '0'));
    }
    if (at == begin) return std::nullopt;
    return value;
  };
  Interval interval{.braces = true};
  const std::optional<int> min = number();
  std::optional<int> max = min;
  if (at < in_.size() && in_[at] == ',') {
    ++at;
    max = number();
    if (!min && !max) return std::nullopt;
    interval.max = max.value_or(kUnbounded);
  } else {
    if (!min) return std::nullopt;
    interval.max = *min;
  }
  if (at >= in_.size() || in_[at] != '}') return std::nullopt;
  interval.min = min.value_or(0);
  pos_ = at + 1;
  return interval;
}

absl::StatusOr<std::string> Translator::ParseQuantifiers(std::string atom) {
  bool quantified = false;
  while (!AtEnd()) {
    std::string repeat;
    bool exact = false;
    bool braces = false;
    if (Peek() == '*' || Peek() == '+' || Peek() == '?') {
      repeat = std::string(1, in_[pos_++]);
    } else if (Peek() == '{') {
      const std::optional<Interval> interval = ParseInterval();
      if (!interval) break;
      if (interval->min > kMaxRepeat || interval->max > kMaxRepeat ||
          (interval->max != kUnbounded && interval->max < interval->min)) {
        return Error("repeat count out of range");
      }
      braces = true;
      exact = interval->max == interval->min;
      const std::string max =
          interval->max == kUnbounded ? std::string() : absl::StrCat(interval->max);
      repeat = absl::StrCat("{", interval->min, ",", max, "}");
    } else {
      break;
    }
    // "{n}?" and "{n,m}+" are a second quantifier in Oniguruma, not a mode of the first.
    if (!exact && Take("?")) {
      repeat += '?';
    } else if (!braces && Take("+")) {
      repeat += '+';
    }
    atom = quantified ? absl::StrCat("(?:", atom, ")", repeat) : absl::StrCat(atom, repeat);
    quantified = true;
  }
  return atom;
}

}  // namespace

absl::StatusOr<std::string> PatternFromOniguruma(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace llmc
