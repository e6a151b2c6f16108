#include "tokenizer/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/regex.h"
#include "tokenizer/split_pattern.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

constexpr int kMaxDepth = 16;

// A normalizer that maps each part of a text on its own, so that the head can be
// followed by mapping it alone.
class MappingNormalizer : public Normalizer {
 public:
  absl::Status Apply(NormalizedText* text) const final {
    std::string mapped = Map(text->text);
    if (text->head > 0) {
      const absl::string_view head = absl::string_view(text->text).substr(0, text->head);
      // What follows may have changed the last character of the head.
      text->head = std::min(CharacterEnd(mapped, Map(head).size()), mapped.size());
    }
    text->text = std::move(mapped);
    return absl::OkStatus();
  }

 protected:
  virtual std::string Map(absl::string_view text) const = 0;
};

class UnicodeForm final : public MappingNormalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}

 protected:
  std::string Map(absl::string_view text) const override { return ToNormalForm(text, form_); }

 private:
  NormalForm form_;
};

// Appends what one character becomes.
using CharacterMap = void (*)(char32_t, std::string*);

class CharacterMapping final : public MappingNormalizer {
 public:
  explicit CharacterMapping(CharacterMap map) : map_(map) {}

 protected:
  std::string Map(absl::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); i += Utf8Length(text[i])) map_(DecodeUtf8(text, i), &out);
    return out;
  }

 private:
  CharacterMap map_;
};

void AppendUnlessMark(char32_t c, std::string* out) {
  if (!IsCombiningMark(c)) AppendUtf8(c, out);
}

// SentencePiece's nmt rule set: controls vanish, odd spaces become spaces.
void AppendNmt(char32_t c, std::string* out) {
  const bool vanishes = (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) ||
                        c == 0x7F || c == 0x8F || c == 0x9F;
  if (vanishes) return;
  const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  AppendUtf8(space ? ' ' : c, out);
}

class ByteLevelNormalizer final : public MappingNormalizer {
 protected:
  std::string Map(absl::string_view text) const override { return ToByteAlphabet(text); }
};

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}

  absl::Status Apply(NormalizedText* text) const override {
    if (text->text.empty()) return absl::OkStatus();
    text->text.insert(0, prefix_);
    if (text->head > 0) text->head += prefix_.size();
    return absl::OkStatus();
  }

 private:
  std::string prefix_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  ReplaceNormalizer(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::Status Apply(NormalizedText* text) const override {
    std::vector<Span> matches;
    LLMC_RETURN_IF_ERROR(pattern_.FindAll(text->text, &matches));
    if (matches.empty()) return absl::OkStatus();
    NormalizedText out;
    size_t copied = 0;
    const auto copy_to = [&](size_t end) {
      out.text.append(text->text, copied, end - copied);
      if (copied < text->head) out.head = out.text.size() - (end - std::min(end, text->head));
    };
    for (const Span& match : matches) {
      copy_to(match.begin);
      out.text += content_;
      if (match.end <= text->head) out.head = out.text.size();
      copied = match.end;
    }
    copy_to(text->text.size());
    *text = std::move(out);
    return absl::OkStatus();
  }

 private:
  Regex pattern_;
  std::string content_;
};

class StripNormalizer final : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}

  absl::Status Apply(NormalizedText* text) const override {
    const absl::string_view all = text->text;
    size_t begin = 0;
    size_t end = all.size();
    while (left_ && begin < end && IsWhiteSpace(DecodeUtf8(all, begin))) {
      begin += Utf8Length(all[begin]);
    }
    while (right_ && begin < end) {
      const size_t last = PreviousCharacter(all, end);
      if (!IsWhiteSpace(DecodeUtf8(all, last))) break;
      end = last;
    }
    text->text = text->text.substr(begin, end - begin);
    text->head = std::min(text->head - std::min(begin, text->head), text->text.size());
    return absl::OkStatus();
  }

 private:
  bool left_;
  bool right_;
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(NormalizedText* text) const override {
    for (const auto& step : steps_) LLMC_RETURN_IF_ERROR(step->Apply(text));
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

using NormalizerOr = absl::StatusOr<std::unique_ptr<Normalizer>>;

NormalizerOr ParseOne(const Json& json, const std::string& where, int depth);

NormalizerOr ParseSequence(const Json& json, const std::string& where, int depth) {
  if (depth >= kMaxDepth) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": sequences nested too deeply"));
  }
  LLMC_ASSIGN_OR_RETURN(const Json* members, ArrayField(json, "normalizers", where));
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (size_t i = 0; i < members->size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(auto step,
                          ParseOne((*members)[i], absl::StrCat(where, "[", i, "]"), depth + 1));
    steps.push_back(std::move(step));
  }
  return std::make_unique<NormalizerSequence>(std::move(steps));
}

NormalizerOr ParseReplace(const Json& json, const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(Regex pattern, ParseSplitPattern(json, where));
  LLMC_ASSIGN_OR_RETURN(std::string content, StringField(json, "content", where));
  if (pattern.CanMatchEmpty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": a Replace pattern that can match nothing is not supported"));
  }
  return std::make_unique<ReplaceNormalizer>(std::move(pattern), std::move(content));
}

NormalizerOr ParseOne(const Json& json, const std::string& where, int depth) {
  LLMC_ASSIGN_OR_RETURN(const std::string type, StringField(json, "type", where));
  if (type == "Sequence") return ParseSequence(json, where, depth);
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<CharacterMapping>(AppendLowercase);
  if (type == "StripAccents") return std::make_unique<CharacterMapping>(AppendUnlessMark);
  if (type == "Nmt") return std::make_unique<CharacterMapping>(AppendNmt);
  if (type == "ByteLevel") return std::make_unique<ByteLevelNormalizer>();
  if (type == "Replace") return ParseReplace(json, where);
  if (type == "Prepend") {
    LLMC_ASSIGN_OR_RETURN(std::string prefix, StringField(json, "prepend", where));
    return std::make_unique<PrependNormalizer>(std::move(prefix));
  }
  if (type == "Strip") {
    LLMC_ASSIGN_OR_RETURN(const bool left, BoolField(json, "strip_left", where));
    LLMC_ASSIGN_OR_RETURN(const bool right, BoolField(json, "strip_right", where));
    return std::make_unique<StripNormalizer>(left, right);
  }
  return UnsupportedType(where, type,
                         "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, "
                         "StripAccents, Nmt, ByteLevel or Sequence");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json& json) {
  if (json.is_null()) return std::unique_ptr<Normalizer>();
  return ParseOne(json, "normalizer", 0);
}

}  // namespace llmc
