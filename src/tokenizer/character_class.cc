#include "tokenizer/character_class.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tokenizer/unicode.h"

namespace llmc {

const absl::string_view kOnigurumaWordItems =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

namespace {

constexpr int kMaxDepth = 64;
constexpr char32_t kMaxCodePoint = 0x10FFFF;

constexpr absl::string_view kSpaceItems =
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";
// PCRE2's Unicode version does not know the marks in the tail as alphabetic.
constexpr absl::string_view kAlphabeticItems =
    "\\p{Alphabetic}\\x{363}-\\x{36F}\\x{C04}\\x{F82}\\x{F83}\\x{1DD3}-\\x{1DE6}\\x{11080}\\x{"
    "11081}";
constexpr absl::string_view kHexItems = "0-9A-Fa-f";

absl::Status Error(absl::string_view what, size_t pos) {
  return absl::InvalidArgumentError(absl::StrCat(what, " at byte ", pos));
}

std::string Item(char32_t c) { return absl::StrFormat("\\x{%X}", static_cast<uint32_t>(c)); }

// Names as \p{...} compares them: without case, blanks, '-' and '_'.
std::string LooseName(absl::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == ' ' || c == '-' || c == '_') continue;
    out.push_back(absl::ascii_tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

const std::map<std::string, std::string>& CategoryNames() {
  static const auto* const kNames =
      new std::map<std::string, std::string>{{"letter", "L"},
                                             {"uppercaseletter", "Lu"},
                                             {"lowercaseletter", "Ll"},
                                             {"titlecaseletter", "Lt"},
                                             {"modifierletter", "Lm"},
                                             {"otherletter", "Lo"},
                                             {"mark", "M"},
                                             {"combiningmark", "M"},
                                             {"nonspacingmark", "Mn"},
                                             {"spacingmark", "Mc"},
                                             {"enclosingmark", "Me"},
                                             {"number", "N"},
                                             {"decimalnumber", "Nd"},
                                             {"letternumber", "Nl"},
                                             {"othernumber", "No"},
                                             {"punctuation", "P"},
                                             {"connectorpunctuation", "Pc"},
                                             {"dashpunctuation", "Pd"},
                                             {"openpunctuation", "Ps"},
                                             {"closepunctuation", "Pe"},
                                             {"initialpunctuation", "Pi"},
                                             {"finalpunctuation", "Pf"},
                                             {"otherpunctuation", "Po"},
                                             {"symbol", "S"},
                                             {"mathsymbol", "Sm"},
                                             {"currencysymbol", "Sc"},
                                             {"modifiersymbol", "Sk"},
                                             {"othersymbol", "So"},
                                             {"separator", "Z"},
                                             {"spaceseparator", "Zs"},
                                             {"lineseparator", "Zl"},
                                             {"paragraphseparator", "Zp"},
                                             {"other", "C"},
                                             {"control", "Cc"},
                                             {"format", "Cf"},
                                             {"privateuse", "Co"},
                                             {"unassigned", "Cn"},
                                             {"l", "L"},
                                             {"lu", "Lu"},
                                             {"ll", "Ll"},
                                             {"lt", "Lt"},
                                             {"lm", "Lm"},
                                             {"lo", "Lo"},
                                             {"m", "M"},
                                             {"mn", "Mn"},
                                             {"mc", "Mc"},
                                             {"me", "Me"},
                                             {"n", "N"},
                                             {"nd", "Nd"},
                                             {"nl", "Nl"},
                                             {"no", "No"},
                                             {"p", "P"},
                                             {"pc", "Pc"},
                                             {"pd", "Pd"},
                                             {"ps", "Ps"},
                                             {"pe", "Pe"},
                                             {"pi", "Pi"},
                                             {"pf", "Pf"},
                                             {"po", "Po"},
                                             {"s", "S"},
                                             {"sm", "Sm"},
                                             {"sc", "Sc"},
                                             {"sk", "Sk"},
                                             {"so", "So"},
                                             {"z", "Z"},
                                             {"zs", "Zs"},
                                             {"zl", "Zl"},
                                             {"zp", "Zp"},
                                             {"c", "C"},
                                             {"cc", "Cc"},
                                             {"cf", "Cf"},
                                             {"cn", "Cn"},
                                             {"co", "Co"}};
  return *kNames;
}

// Sets that have the same name in \p{...} and in POSIX brackets.
const std::map<std::string, std::string>& SharedSets() {
  static const auto* const kSets =
      new std::map<std::string, std::string>{{"alnum", absl::StrCat(kAlphabeticItems, "\\p{Nd}")},
                                             {"alpha", std::string(kAlphabeticItems)},
                                             {"blank", "\\p{Zs}\\x{9}"},
                                             {"cntrl", "\\p{Cc}"},
                                             {"digit", "\\p{Nd}"},
                                             {"lower", "\\p{Lowercase}"},
                                             {"punct", "\\p{P}\\p{S}"},
                                             {"space", std::string(kSpaceItems)},
                                             {"upper", "\\p{Uppercase}"},
                                             {"xdigit", std::string(kHexItems)},
                                             {"word", std::string(kOnigurumaWordItems)},
                                             {"ascii", "\\x{0}-\\x{7F}"}};
  return *kSets;
}

std::string PropertyItems(absl::string_view name) {
  static const auto* const kOthers = new std::map<std::string, std::string>{
      {"any", "\\x{0}-\\x{10FFFF}"},
      {"assigned", "\\P{Cn}"},
      {"alphabetic", std::string(kAlphabeticItems)},
      {"uppercase", "\\p{Uppercase}"},
      {"lowercase", "\\p{Lowercase}"},
      {"whitespace", std::string(kSpaceItems)},
      {"ideographic", "\\p{Ideographic}"},
      {"emoji", "\\p{Emoji}"},
      {"emojipresentation", "\\p{Emoji_Presentation}"},
      {"extendedpictographic", "\\p{Extended_Pictographic}"}};
  const std::string loose = LooseName(name);
  for (const auto* sets : {&SharedSets(), kOthers}) {
    if (const auto it = sets->find(loose); it != sets->end()) return it->second;
  }
  const auto category = CategoryNames().find(loose);
  if (category != CategoryNames().end()) return absl::StrCat("\\p{", category->second, "}");
  // A script, or a name that PCRE2 will refuse. "sc" keeps it from adding the
  // script extensions.
  return absl::StrCat("\\p{sc:", name, "}");
}

absl::StatusOr<ClassEscape> ParseProperty(absl::string_view pattern, size_t* pos) {
  ClassEscape escape;
  escape.negated = pattern[*pos + 1] == 'P';
  size_t at = *pos + 2;
  if (at >= pattern.size() || pattern[at] != '{') return Error("\\p without '{'", *pos);
  ++at;
  if (at < pattern.size() && pattern[at] == '^') {
    escape.negated = !escape.negated;
    ++at;
  }
  const size_t close = pattern.find('}', at);
  if (close == absl::string_view::npos) return Error("\\p{ without '}'", *pos);
  const absl::string_view name = pattern.substr(at, close - at);
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != ' ' && c != '-') {
      return Error("property name with a strange character", *pos);
    }
  }
  escape.items = PropertyItems(name);
  *pos = close + 1;
  return escape;
}

absl::StatusOr<ClassEscape> CodePointEscape(absl::string_view digits, size_t at) {
  uint32_t value = 0;
  if (!absl::SimpleHexAtoi(digits, &value) || value > kMaxCodePoint) {
    return Error("code point out of range", at);
  }
  ClassEscape escape;
  escape.character = static_cast<char32_t>(value);
  escape.items = Item(value);
  return escape;
}

// "\x{H...}", "\xHH" (ASCII: above, Oniguruma means a byte) and "\uHHHH".
absl::StatusOr<ClassEscape> ParseHexadecimal(absl::string_view pattern, size_t* pos) {
  const size_t begin = *pos;
  const bool four = pattern[begin + 1] == 'u';
  size_t at = begin + 2;
  if (!four && at < pattern.size() && pattern[at] == '{') {
    const size_t close = pattern.find('}', at);
    if (close == absl::string_view::npos) return Error("\\x{ without '}'", begin);
    *pos = close + 1;
    return CodePointEscape(pattern.substr(at + 1, close - at - 1), begin);
  }
  const size_t width = four ? 4 : 2;
  while (at < pattern.size() && at - begin - 2 < width &&
         absl::ascii_isxdigit(static_cast<unsigned char>(pattern[at]))) {
    ++at;
  }
  if (at == begin + 2 || (four && at != begin + 6)) return Error("hexadecimal digits missing", at);
  *pos = at;
  LLMC_ASSIGN_OR_RETURN(ClassEscape escape,
                        CodePointEscape(pattern.substr(begin + 2, at - begin - 2), begin));
  if (!four && *escape.character > 0x7F) return Error("\\x of a byte above 7F", begin);
  return escape;
}

std::optional<char32_t> ControlCharacter(char letter) {
  switch (letter) {
    case 't':
      return '\t';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'a':
      return '\a';
    case 'e':
      return 0x1B;
    case '0':
      return 0;
    default:
      return std::nullopt;
  }
}

// A class under construction: a union of items and of atoms that cannot be items.
struct Union {
  std::string items;
  std::vector<std::string> atoms;

  void Add(const ClassEscape& escape) {
    if (escape.negated) {
      atoms.push_back(escape.Atom());
    } else {
      items += escape.items;
    }
  }
  std::string Atom() const {
    if (atoms.empty()) return items.empty() ? "(?!)" : absl::StrCat("[", items, "]");
    const std::string rest = absl::StrJoin(atoms, "|");
    if (items.empty()) return absl::StrCat("(?:", rest, ")");
    return absl::StrCat("(?:[", items, "]|", rest, ")");
  }
};

class ClassParser {
 public:
  ClassParser(absl::string_view pattern, size_t* pos) : in_(pattern), pos_(*pos) {}

  absl::StatusOr<std::string> Parse() {
    if (++depth_ > kMaxDepth) return Error("classes nested too deeply", pos_);
    const size_t begin = pos_++;
    const bool negated = Peek() == '^';
    if (negated) ++pos_;
    std::vector<Union> parts(1);
    const size_t first = pos_;
    while (pos_ < in_.size() && (Peek() != ']' || pos_ == first)) {
      if (in_.substr(pos_, 2) == "&&") {
        pos_ += 2;
        parts.emplace_back();
        continue;
      }
      LLMC_RETURN_IF_ERROR(ParseMember(&parts.back()));
    }
    if (pos_ >= in_.size()) return Error("class without ']'", begin);
    ++pos_;
    --depth_;
    return Combine(parts, negated);
  }

 private:
  char Peek() const { return pos_ < in_.size() ? in_[pos_] : '\0'; }

  static std::string Combine(const std::vector<Union>& parts, bool negated) {
    if (parts.size() == 1 && parts[0].atoms.empty() && !parts[0].items.empty()) {
      return absl::StrCat(negated ? "[^" : "[", parts[0].items, "]");
    }
    std::string all;
    for (size_t i = 0; i + 1 < parts.size(); ++i)
      absl::StrAppend(&all, "(?=", parts[i].Atom(), ")");
    all += parts.back().Atom();
    return negated ? absl::StrCat("(?:(?!", all, ")(?s:.))") : absl::StrCat("(?:", all, ")");
  }

  // One member: a nested class, a POSIX bracket, an escape, a character or a range.
  absl::Status ParseMember(Union* out) {
    if (Peek() == '[') {
      if (in_.substr(pos_, 2) == "[:" && in_.find(":]", pos_) != absl::string_view::npos) {
        return ParsePosix(out);
      }
      LLMC_ASSIGN_OR_RETURN(std::string nested, Parse());
      out->atoms.push_back(std::move(nested));
      return absl::OkStatus();
    }
    LLMC_ASSIGN_OR_RETURN(const ClassEscape low, ParseSingle());
    const bool range = low.character && Peek() == '-' && pos_ + 1 < in_.size() &&
                       in_[pos_ + 1] != ']' && in_[pos_ + 1] != '[';
    if (!range) {
      out->Add(low);
      return absl::OkStatus();
    }
    const size_t dash = pos_++;
    LLMC_ASSIGN_OR_RETURN(const ClassEscape high, ParseSingle());
    if (!high.character || *high.character < *low.character) {
      return Error("range without a proper end", dash);
    }
    absl::StrAppend(&out->items, low.items, "-", high.items);
    return absl::OkStatus();
  }

  absl::StatusOr<ClassEscape> ParseSingle() {
    if (Peek() == '\\') {
      if (in_.substr(pos_, 2) == "\\b") {
        pos_ += 2;
        return CodePointEscape("8", pos_);
      }
      return ParseClassEscape(in_, &pos_);
    }
    ClassEscape escape;
    escape.character = DecodeUtf8(in_, pos_);
    escape.items = Item(*escape.character);
    pos_ += Utf8Length(in_[pos_]);
    return escape;
  }

  absl::Status ParsePosix(Union* out) {
    const size_t close = in_.find(":]", pos_);
    absl::string_view name = in_.substr(pos_ + 2, close - pos_ - 2);
    ClassEscape escape;
    if (!name.empty() && name[0] == '^') {
      escape.negated = true;
      name.remove_prefix(1);
    }
    const auto it = SharedSets().find(std::string(name));
    if (it == SharedSets().end()) {
      return Error(absl::StrCat("[:", name, ":], which llmc does not support,"), pos_);
    }
    escape.items = it->second;
    out->Add(escape);
    pos_ = close + 2;
    return absl::OkStatus();
  }

  absl::string_view in_;
  size_t& pos_;
  int depth_ = 0;
};

}  // namespace

std::string ClassEscape::Atom() const { return absl::StrCat(negated ? "[^" : "[", items, "]"); }

absl::StatusOr<ClassEscape> ParseClassEscape(absl::string_view pattern, size_t* pos) {
  if (*pos + 1 >= pattern.size()) return Error("backslash at the end", *pos);
  const char letter = pattern[*pos + 1];
  if (letter == 'p' || letter == 'P') return ParseProperty(pattern, pos);
  if (letter == 'x' || letter == 'u') return ParseHexadecimal(pattern, pos);
  ClassEscape escape;
  escape.negated = absl::ascii_isupper(static_cast<unsigned char>(letter));
  switch (absl::ascii_tolower(static_cast<unsigned char>(letter))) {
    case 's':
      escape.items = std::string(kSpaceItems);
      break;
    case 'd':
      escape.items = "\\p{Nd}";
      break;
    case 'w':
      escape.items = std::string(kOnigurumaWordItems);
      break;
    case 'h':
      escape.items = std::string(kHexItems);
      break;
    default:
      escape.negated = false;
      escape.character = ControlCharacter(letter);
      if (!escape.character) {
        if (absl::ascii_isalnum(static_cast<unsigned char>(letter))) {
          return Error(absl::StrCat("\\", std::string(1, letter), ", which llmc does not support,"),
                       *pos);
        }
        escape.character = DecodeUtf8(pattern, *pos + 1);
      }
      escape.items = Item(*escape.character);
      *pos += 1 + Utf8Length(letter);
      return escape;
  }
  *pos += 2;
  return escape;
}

absl::StatusOr<std::string> ParseCharacterClass(absl::string_view pattern, size_t* pos) {
  return ClassParser(pattern, pos).Parse();
}

}  // namespace llmc
