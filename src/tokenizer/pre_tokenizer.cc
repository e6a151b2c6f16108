#include "tokenizer/pre_tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/split.h"
#include "tokenizer/split_pattern.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

constexpr int kMaxDepth = 16;

// GPT-2's pattern (Radford et al., 2019).
constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Words and runs of symbols; here \w is that of Unicode's TR18, with the joiners.
constexpr absl::string_view kWordsPattern =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|)"
    R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\s]+)";

// `piece` with `prefix` before it.
Piece WithPrefix(absl::string_view prefix, const Piece& piece, Pieces* out) {
  const size_t head = piece.head > 0 ? piece.head + prefix.size() : 0;
  return {out->Keep(absl::StrCat(prefix, piece.text)), head, kNoToken};
}

class RegexSplit final : public PreTokenizerStep {
 public:
  RegexSplit(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    out->matches.clear();
    LLMC_RETURN_IF_ERROR(pattern_.FindAll(piece.text, &out->matches));
    SplitAt(piece, out->matches, behavior_, invert_, &out->list);
    return absl::OkStatus();
  }

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Every character of a set is a match of its own.
template <typename IsMember>
void CutAtCharacters(const Piece& piece, IsMember is_member, SplitBehavior behavior, Pieces* out) {
  out->matches.clear();
  for (size_t i = 0; i < piece.text.size();) {
    const size_t end = i + Utf8Length(piece.text[i]);
    if (is_member(DecodeUtf8(piece.text, i))) out->matches.push_back({i, end});
    i = end;
  }
  SplitAt(piece, out->matches, behavior, /*invert=*/false, &out->list);
}

class CharacterSplit final : public PreTokenizerStep {
 public:
  CharacterSplit(bool (*is_member)(char32_t), SplitBehavior behavior)
      : is_member_(is_member), behavior_(behavior) {}

  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    CutAtCharacters(piece, is_member_, behavior_, out);
    return absl::OkStatus();
  }

 private:
  bool (*is_member_)(char32_t);
  SplitBehavior behavior_;
};

class DelimiterSplit final : public PreTokenizerStep {
 public:
  explicit DelimiterSplit(char32_t delimiter) : delimiter_(delimiter) {}

  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    CutAtCharacters(
        piece, [this](char32_t c) { return c == delimiter_; }, SplitBehavior::kRemoved, out);
    return absl::OkStatus();
  }

 private:
  char32_t delimiter_;
};

class FixedLengthSplit final : public PreTokenizerStep {
 public:
  explicit FixedLengthSplit(int64_t num_characters) : num_characters_(num_characters) {}

  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    for (size_t begin = 0; begin < piece.text.size();) {
      size_t end = begin;
      for (int64_t n = 0; n < num_characters_ && end < piece.text.size(); ++n) {
        end += Utf8Length(piece.text[end]);
      }
      out->list.push_back(piece.Part(begin, end));
      begin = end;
    }
    return absl::OkStatus();
  }

 private:
  int64_t num_characters_;
};

// A space before a text that has none. ByteLevel is this, a pattern and the byte
// alphabet, each a step of its own.
class ByteLevelPrefix final : public PreTokenizerStep {
 public:
  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    const bool has_space = piece.text[0] == ' ';
    out->list.push_back(has_space ? piece : WithPrefix(" ", piece, out));
    return absl::OkStatus();
  }
};

class ByteAlphabetStep final : public PreTokenizerStep {
 public:
  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    const size_t head = ToByteAlphabet(piece.text.substr(0, piece.head)).size();
    out->list.push_back({out->Keep(ToByteAlphabet(piece.text)), head, kNoToken});
    return absl::OkStatus();
  }
};

enum class PrependScheme { kFirst, kNever, kAlways };

class Metaspace final : public PreTokenizerStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  absl::Status Cut(const Piece& piece, Pieces* out) const override {
    const Piece spaced = Prefixed(WithoutSpaces(piece, out), out);
    out->matches.clear();
    if (split_) {
      const absl::string_view text = spaced.text;
      for (size_t i = text.find(replacement_); i != absl::string_view::npos;
           i = text.find(replacement_, i + replacement_.size())) {
        out->matches.push_back({i, i + replacement_.size()});
      }
    }
    SplitAt(spaced, out->matches, SplitBehavior::kMergedWithNext, /*invert=*/false, &out->list);
    return absl::OkStatus();
  }

 private:
  Piece WithoutSpaces(const Piece& piece, Pieces* out) const {
    std::string text;
    text.reserve(piece.text.size() + piece.text.size() / 2);
    size_t head = 0;
    for (size_t i = 0; i < piece.text.size(); ++i) {
      if (piece.text[i] == ' ') {
        text += replacement_;
      } else {
        text += piece.text[i];
      }
      if (i < piece.head) head = text.size();
    }
    return {out->Keep(std::move(text)), head, kNoToken};
  }

  Piece Prefixed(const Piece& piece, Pieces* out) const {
    const bool wanted =
        scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && piece.head > 0);
    const bool has = piece.text.substr(0, replacement_.size()) == replacement_;
    return wanted && !has ? WithPrefix(replacement_, piece, out) : piece;
  }

  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

using Steps = std::vector<std::unique_ptr<PreTokenizerStep>>;

absl::Status ParseByteLevel(const Json& json, const std::string& where, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(const bool prefix, BoolField(json, "add_prefix_space", where));
  LLMC_ASSIGN_OR_RETURN(const bool use_regex, BoolFieldOr(json, "use_regex", true, where));
  if (prefix) steps->push_back(std::make_unique<ByteLevelPrefix>());
  if (use_regex) {
    LLMC_ASSIGN_OR_RETURN(Regex pattern, Regex::Compile(kGpt2Pattern));
    steps->push_back(
        std::make_unique<RegexSplit>(std::move(pattern), SplitBehavior::kIsolated, false));
  }
  steps->push_back(std::make_unique<ByteAlphabetStep>());
  return absl::OkStatus();
}

absl::StatusOr<PrependScheme> ParsePrependScheme(const Json& json, const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(const auto name, OptionalStringField(json, "prepend_scheme", where));
  const std::string scheme = name.value_or("always");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ".prepend_scheme: \"", scheme, "\", expected always, first or never"));
  }
  LLMC_ASSIGN_OR_RETURN(const bool prefix, BoolFieldOr(json, "add_prefix_space", true, where));
  if (!prefix && scheme != "never") {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ".add_prefix_space: false, expected prepend_scheme \"never\" with it"));
  }
  return scheme == "always"  ? PrependScheme::kAlways
         : scheme == "first" ? PrependScheme::kFirst
                             : PrependScheme::kNever;
}

absl::StatusOr<std::string> CharacterField(const Json& json, const char* key,
                                           const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(std::string text, StringField(json, key, where));
  if (text.empty() || text.size() != Utf8Length(text[0])) {
    return absl::InvalidArgumentError(absl::StrCat(where, ".", key, ": expected one character"));
  }
  return text;
}

absl::Status ParseMetaspace(const Json& json, const std::string& where, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(std::string replacement, CharacterField(json, "replacement", where));
  LLMC_ASSIGN_OR_RETURN(const PrependScheme scheme, ParsePrependScheme(json, where));
  LLMC_ASSIGN_OR_RETURN(const bool split, BoolFieldOr(json, "split", true, where));
  steps->push_back(std::make_unique<Metaspace>(std::move(replacement), scheme, split));
  return absl::OkStatus();
}

absl::Status ParseSplit(const Json& json, const std::string& where, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(Regex pattern, ParseSplitPattern(json, where));
  LLMC_ASSIGN_OR_RETURN(const std::string name, StringField(json, "behavior", where));
  LLMC_ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseSplitBehavior(name, where));
  LLMC_ASSIGN_OR_RETURN(const bool invert, BoolField(json, "invert", where));
  steps->push_back(std::make_unique<RegexSplit>(std::move(pattern), behavior, invert));
  return absl::OkStatus();
}

absl::Status ParseWhitespace(Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(Regex pattern, Regex::Compile(kWordsPattern));
  steps->push_back(std::make_unique<RegexSplit>(std::move(pattern), SplitBehavior::kRemoved, true));
  return absl::OkStatus();
}

absl::Status ParseDigits(const Json& json, const std::string& where, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(const bool individual, BoolField(json, "individual_digits", where));
  const auto behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  steps->push_back(std::make_unique<CharacterSplit>(IsNumeric, behavior));
  return absl::OkStatus();
}

absl::Status ParsePunctuation(const Json& json, const std::string& where, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(const auto name, OptionalStringField(json, "behavior", where));
  LLMC_ASSIGN_OR_RETURN(const SplitBehavior behavior,
                        ParseSplitBehavior(name.value_or("Isolated"), where));
  steps->push_back(std::make_unique<CharacterSplit>(IsPunctuation, behavior));
  return absl::OkStatus();
}

absl::Status ParseFixedLength(const Json& json, const std::string& where, Steps* steps) {
  const Json& length = Member(json, "length");
  if (!length.is_null() && !(length.is_number_unsigned() && length.get<uint64_t>() > 0 &&
                             length.get<uint64_t>() < (uint64_t{1} << 32))) {
    return absl::InvalidArgumentError(absl::StrCat(where, ".length: expected a positive integer"));
  }
  steps->push_back(
      std::make_unique<FixedLengthSplit>(length.is_null() ? 5 : length.get<int64_t>()));
  return absl::OkStatus();
}

absl::Status ParseStep(const Json& json, const std::string& where, int depth, Steps* steps);

absl::Status ParseSequence(const Json& json, const std::string& where, int depth, Steps* steps) {
  if (depth >= kMaxDepth) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": sequences nested too deeply"));
  }
  LLMC_ASSIGN_OR_RETURN(const Json* members, ArrayField(json, "pretokenizers", where));
  for (size_t i = 0; i < members->size(); ++i) {
    LLMC_RETURN_IF_ERROR(
        ParseStep((*members)[i], absl::StrCat(where, "[", i, "]"), depth + 1, steps));
  }
  return absl::OkStatus();
}

absl::Status ParseStep(const Json& json, const std::string& where, int depth, Steps* steps) {
  LLMC_ASSIGN_OR_RETURN(const std::string type, StringField(json, "type", where));
  if (type == "Sequence") return ParseSequence(json, where, depth, steps);
  if (type == "ByteLevel") return ParseByteLevel(json, where, steps);
  if (type == "Metaspace") return ParseMetaspace(json, where, steps);
  if (type == "Split") return ParseSplit(json, where, steps);
  if (type == "Whitespace") return ParseWhitespace(steps);
  if (type == "Digits") return ParseDigits(json, where, steps);
  if (type == "Punctuation") return ParsePunctuation(json, where, steps);
  if (type == "FixedLength") return ParseFixedLength(json, where, steps);
  if (type == "WhitespaceSplit" || type == "BertPreTokenizer") {
    steps->push_back(std::make_unique<CharacterSplit>(IsWhiteSpace, SplitBehavior::kRemoved));
    if (type == "BertPreTokenizer") {
      steps->push_back(std::make_unique<CharacterSplit>(IsPunctuation, SplitBehavior::kIsolated));
    }
    return absl::OkStatus();
  }
  if (type == "CharDelimiterSplit" || type == "Delimiter") {
    LLMC_ASSIGN_OR_RETURN(const std::string text, CharacterField(json, "delimiter", where));
    steps->push_back(std::make_unique<DelimiterSplit>(DecodeUtf8(text, 0)));
    return absl::OkStatus();
  }
  return UnsupportedType(where, type,
                         "ByteLevel, Metaspace, Split, Whitespace, WhitespaceSplit, Digits, "
                         "Punctuation, CharDelimiterSplit, FixedLength, BertPreTokenizer or "
                         "Sequence");
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const Json& json) {
  PreTokenizer pre_tokenizer;
  if (json.is_null()) return pre_tokenizer;
  LLMC_RETURN_IF_ERROR(ParseStep(json, "pre_tokenizer", 0, &pre_tokenizer.steps_));
  Steps& steps = pre_tokenizer.steps_;
  if (!steps.empty() && dynamic_cast<const ByteAlphabetStep*>(steps.back().get())) {
    steps.pop_back();
    pre_tokenizer.leaves_bytes_ = true;
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::Apply(Pieces* pieces) const {
  for (const auto& step : steps_) {
    const std::vector<Piece> before = std::exchange(pieces->list, {});
    pieces->list.reserve(2 * before.size());
    for (const Piece& piece : before) {
      if (piece.id == kNoToken) {
        LLMC_RETURN_IF_ERROR(step->Cut(piece, pieces));
      } else {
        pieces->list.push_back(piece);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace llmc
