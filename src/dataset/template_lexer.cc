#include "dataset/template_lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"

namespace llmc::dataset {
namespace {

std::string NormalizeLineEnds(absl::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text.push_back(source[i]);
      continue;
    }
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    text.push_back('\n');
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Escapes of a Python string literal.
class Unescaper {
 public:
  explicit Unescaper(absl::string_view body) : body_(body) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < body_.size()) {
      if (body_[position_] != '\\' || position_ + 1 == body_.size()) {
        out_ += body_[position_++];
        continue;
      }
      ++position_;
      LLMC_RETURN_IF_ERROR(Escape(body_[position_++]));
    }
    return std::move(out_);
  }

 private:
  absl::Status Escape(char c) {
    static constexpr absl::string_view kNames = "\\'\"abfnrtv";
    static constexpr absl::string_view kBytes = "\\'\"\a\b\f\n\r\t\v";
    const size_t at = kNames.find(c);
    if (at != absl::string_view::npos) {
      out_ += kBytes[at];
      return absl::OkStatus();
    }
    if (c == '\n') return absl::OkStatus();
    if (c == 'x') return Hex(2);
    if (c == 'u') return Hex(4);
    if (c == 'U') return Hex(8);
    if (c >= '0' && c <= '7') return Octal(c);
    if (c == 'N') return absl::InvalidArgumentError("\\N{...} in a string is not supported");
    out_ += '\\';
    out_ += c;
    return absl::OkStatus();
  }

  absl::Status Hex(size_t digits) {
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int digit = position_ < body_.size() ? HexDigit(body_[position_]) : -1;
      if (digit < 0) return absl::InvalidArgumentError("a hex escape in a string is too short");
      code = code * 16 + static_cast<uint32_t>(digit);
      ++position_;
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      return absl::InvalidArgumentError("an escape in a string is not a Unicode character");
    }
    AppendUtf8(code, &out_);
    return absl::OkStatus();
  }

  absl::Status Octal(char first) {
    uint32_t code = static_cast<uint32_t>(first - '0');
    for (int i = 0; i < 2 && position_ < body_.size(); ++i) {
      const char c = body_[position_];
      if (c < '0' || c > '7') break;
      code = code * 8 + static_cast<uint32_t>(c - '0');
      ++position_;
    }
    AppendUtf8(code, &out_);
    return absl::OkStatus();
  }

  absl::string_view body_;
  size_t position_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(NormalizeLineEnds(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      const absl::Status status = Step();
      if (!status.ok()) return At(absl::StrCat(line_), status);
    }
    Emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::string_view rest() const { return absl::string_view(source_).substr(position_); }

  void Emit(TokenKind kind, absl::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }

  // Moves past `size` bytes, counting lines.
  void Skip(size_t size) {
    const auto from = source_.begin() + static_cast<int64_t>(position_);
    line_ += static_cast<int>(std::count(from, from + static_cast<int64_t>(size), '\n'));
    position_ += size;
  }

  void SkipSpace() { Skip(rest().size() - Strip(rest(), {.right = false}).size()); }

  // Text up to the next tag, then that tag.
  absl::Status Step() {
    const size_t tag = FindTag();
    const absl::string_view text = rest().substr(0, tag);
    const bool ends = tag == absl::string_view::npos;
    const char type = ends ? '\0' : rest()[tag + 1];
    const char sign = ends || tag + 2 >= rest().size() ? '\0' : rest()[tag + 2];
    const std::string kept(ends ? text : TrimBefore(text, type, sign));
    if (!kept.empty()) Emit(TokenKind::kText, kept);
    if (ends) {
      Skip(text.size());
      return absl::OkStatus();
    }
    Skip(tag + 2);
    if (sign == '-' || sign == '+') Skip(1);
    if (type == '#') return Comment();
    if (type == '%' && SkipRawBegin()) return Raw();
    Emit(type == '%' ? TokenKind::kBlockBegin : TokenKind::kOutputBegin, "");
    return Inside(type);
  }

  size_t FindTag() const {
    const absl::string_view text = rest();
    for (size_t i = text.find('{'); i != absl::string_view::npos; i = text.find('{', i + 1)) {
      if (i + 1 < text.size() &&
          absl::string_view("%{#").find(text[i + 1]) != absl::string_view::npos)
        return i;
    }
    return absl::string_view::npos;
  }

  absl::string_view TrimBefore(absl::string_view text, char type, char sign) const {
    if (sign == '-') return Strip(text, {.left = false});
    if (sign == '+' || type == '{') return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == absl::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !at_line_start_) return text;
    const bool blank = Strip(text.substr(line_start)).empty();
    return blank ? text.substr(0, line_start) : text;
  }

  absl::Status Comment() {
    const size_t end = rest().find("#}");
    if (end == absl::string_view::npos) return absl::InvalidArgumentError("unclosed comment {#");
    const char sign = end == 0 ? '\0' : rest()[end - 1];
    Skip(end + 2);
    AfterBlock(sign);
    return absl::OkStatus();
  }

  // White space after a block or comment tag whose end bears `sign`.
  void AfterBlock(char sign) {
    if (sign == '-') {
      SkipSpace();
    } else if (sign != '+' && absl::StartsWith(rest(), "\n")) {
      Skip(1);
    }
    at_line_start_ = source_[position_ - 1] == '\n';
  }

  // Skips `word` and its tag end after "{%"; false, and nothing skipped, otherwise.
  bool SkipWordTag(absl::string_view word, char* sign) {
    absl::string_view text = Strip(rest(), {.right = false});
    if (!absl::StartsWith(text, word)) return false;
    text = Strip(text.substr(word.size()), {.right = false});
    *sign = text.empty() ? '\0' : text[0];
    if (*sign == '-' || *sign == '+') text.remove_prefix(1);
    if (!absl::StartsWith(text, "%}")) return false;
    Skip(rest().size() - text.size() + 2);
    return true;
  }

  bool SkipRawBegin() {
    char sign = '\0';
    if (!SkipWordTag("raw", &sign)) return false;
    if (sign == '-') SkipSpace();
    at_line_start_ = source_[position_ - 1] == '\n';
    return true;
  }

  absl::Status Raw() {
    const size_t start = position_;
    while (true) {
      const size_t tag = rest().find("{%");
      if (tag == absl::string_view::npos) return absl::InvalidArgumentError("unclosed {% raw %}");
      const absl::string_view text =
          absl::string_view(source_).substr(start, position_ + tag - start);
      Skip(tag + 2);
      const char before = rest().empty() ? '\0' : rest()[0];
      if (before == '-' || before == '+') Skip(1);
      char sign = '\0';
      if (!SkipWordTag("endraw", &sign)) continue;
      const absl::string_view kept = TrimBefore(text, '%', before);
      if (!kept.empty()) Emit(TokenKind::kText, kept);
      AfterBlock(sign);
      return absl::OkStatus();
    }
  }

  // Tokens up to the end of a {% or {{ tag.
  absl::Status Inside(char type) {
    brackets_.clear();
    const absl::string_view end = type == '%' ? "%}" : "}}";
    while (true) {
      SkipSpace();
      if (rest().empty()) {
        return absl::InvalidArgumentError(absl::StrCat("unclosed tag, expected ", end));
      }
      if (brackets_.empty() && SkipTagEnd(type, end)) return absl::OkStatus();
      LLMC_RETURN_IF_ERROR(Lexeme());
    }
  }

  bool SkipTagEnd(char type, absl::string_view end) {
    char sign = rest()[0];
    const bool sign_allowed = sign == '-' || (sign == '+' && type == '%');
    if (!sign_allowed) sign = '\0';
    if (!absl::StartsWith(rest().substr(sign_allowed ? 1 : 0), end)) return false;
    Emit(type == '%' ? TokenKind::kBlockEnd : TokenKind::kOutputEnd, "");
    Skip(sign_allowed ? 3 : 2);
    if (type == '%') {
      AfterBlock(sign);
      return true;
    }
    if (sign == '-') SkipSpace();
    at_line_start_ = source_[position_ - 1] == '\n';
    return true;
  }

  absl::Status Lexeme() {
    const auto c = static_cast<unsigned char>(rest()[0]);
    if (c == '"' || c == '\'') return StringLiteral(static_cast<char>(c));
    if (absl::ascii_isdigit(c)) return Number();
    if (absl::ascii_isalpha(c) || c == '_') {
      size_t size = 1;
      while (size < rest().size() && IsNameByte(rest()[size])) ++size;
      Emit(TokenKind::kName, rest().substr(0, size));
      Skip(size);
      return absl::OkStatus();
    }
    return OperatorToken();
  }

  static bool IsNameByte(char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
  }

  absl::Status StringLiteral(char quote) {
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) return absl::InvalidArgumentError("unclosed string");
    LLMC_ASSIGN_OR_RETURN(const std::string text, Unescaper(rest().substr(1, end - 1)).Run());
    Emit(TokenKind::kString, text);
    Skip(end + 1);
    return absl::OkStatus();
  }

  size_t CountDigits(size_t from) const {
    size_t end = from;
    while (end < rest().size() && (absl::ascii_isdigit(static_cast<unsigned char>(rest()[end])) ||
                                   (rest()[end] == '_' && end > from))) {
      ++end;
    }
    return end - from;
  }

  // "0x1f", "0o17", "0b11".
  absl::StatusOr<bool> PrefixedInteger() {
    static constexpr absl::string_view kPrefixes = "xXoObB";
    const size_t which = rest().size() < 2 ? absl::string_view::npos : kPrefixes.find(rest()[1]);
    if (rest()[0] != '0' || which == absl::string_view::npos) return false;
    const int radix = which < 2 ? 16 : which < 4 ? 8 : 2;
    size_t end = 2;
    while (end < rest().size() && IsNameByte(rest()[end])) ++end;
    std::string digits(rest().substr(2, end - 2));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    int64_t value = 0;
    const char* last = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), last, value, radix);
    if (parsed.ec != std::errc() || parsed.ptr != last) {
      return absl::InvalidArgumentError("a number is broken");
    }
    Emit(TokenKind::kInteger, absl::StrCat(value));
    Skip(end);
    return true;
  }

  absl::Status Number() {
    LLMC_ASSIGN_OR_RETURN(const bool prefixed, PrefixedInteger());
    if (prefixed) return absl::OkStatus();
    size_t size = CountDigits(0);
    bool is_float = false;
    if (size < rest().size() && rest()[size] == '.' && CountDigits(size + 1) > 0) {
      is_float = true;
      size += 1 + CountDigits(size + 1);
    }
    if (size < rest().size() && (rest()[size] == 'e' || rest()[size] == 'E')) {
      const size_t sign =
          size + 1 < rest().size() && (rest()[size + 1] == '+' || rest()[size + 1] == '-');
      const size_t digits = CountDigits(size + 1 + sign);
      is_float = is_float || digits > 0;
      if (digits > 0) size += 1 + sign + digits;
    }
    std::string text(rest().substr(0, size));
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    if (!is_float && text[0] == '0' && text.find_first_not_of('0') != std::string::npos) {
      return absl::InvalidArgumentError("a number begins with 0");
    }
    Emit(is_float ? TokenKind::kFloat : TokenKind::kInteger, text);
    Skip(size);
    return absl::OkStatus();
  }

  absl::Status OperatorToken() {
    for (absl::string_view op : {"//", "**", "==", "!=", ">=", "<="}) {
      if (!absl::StartsWith(rest(), op)) continue;
      Emit(TokenKind::kOperator, op);
      Skip(2);
      return absl::OkStatus();
    }
    const char c = rest()[0];
    if (absl::string_view("+-/*%~[](){}><=.:|,;").find(c) == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected character \"", absl::string_view(&c, 1), "\" in a tag"));
    }
    LLMC_RETURN_IF_ERROR(Balance(c));
    Emit(TokenKind::kOperator, absl::string_view(&c, 1));
    Skip(1);
    return absl::OkStatus();
  }

  absl::Status Balance(char c) {
    if (c == '(' || c == '[' || c == '{') {
      brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty() || brackets_.back() != c) {
        return absl::InvalidArgumentError(
            absl::StrCat("unexpected \"", absl::string_view(&c, 1), "\""));
      }
      brackets_.pop_back();
    }
    return absl::OkStatus();
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // The last tag ended with a newline.
  std::string brackets_;       // Closing brackets still to come.
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> LexTemplate(absl::string_view source) {
  return Lexer(source).Run();
}

}  // namespace llmc::dataset
