#include "tokenizer/post_processor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tokenizer/json_fields.h"

namespace llmc {
namespace {

constexpr int kMaxDepth = 16;

class OffsetsOnly final : public PostProcessor {
 public:
  absl::Status Apply(bool, IdParts*) const override { return absl::OkStatus(); }
  int32_t max_id() const override { return -1; }
};

// One place of a template: a text (0: the first, 1: the second) or fixed ids.
struct TemplatePiece {
  int sequence = -1;
  std::vector<int32_t> ids;
};

class TemplateProcessing final : public PostProcessor {
 public:
  TemplateProcessing(std::vector<TemplatePiece> single, std::vector<TemplatePiece> pair)
      : single_(std::move(single)), pair_(std::move(pair)) {}

  absl::Status Apply(bool add_special_tokens, IdParts* parts) const override {
    if (parts->empty() || parts->size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat("post_processor: a template meets ",
                                                     parts->size(), " parts, expected one or two"));
    }
    IdParts out;
    for (const TemplatePiece& piece : parts->size() == 2 ? pair_ : single_) {
      if (piece.sequence >= 0) {
        out.push_back((*parts)[piece.sequence]);
      } else if (add_special_tokens) {
        out.push_back(piece.ids);
      }
    }
    *parts = std::move(out);
    return absl::OkStatus();
  }

  int32_t max_id() const override {
    int32_t max = -1;
    for (const auto* pieces : {&single_, &pair_}) {
      for (const TemplatePiece& piece : *pieces) {
        for (const int32_t id : piece.ids) max = std::max(max, id);
      }
    }
    return max;
  }

 private:
  std::vector<TemplatePiece> single_;
  std::vector<TemplatePiece> pair_;
};

// [CLS] text [SEP], a second text followed by [SEP]; RoBERTa puts one before it
// as well.
class ClassifierFrame final : public PostProcessor {
 public:
  ClassifierFrame(int32_t cls, int32_t sep, bool roberta)
      : cls_(cls), sep_(sep), roberta_(roberta) {}

  absl::Status Apply(bool add_special_tokens, IdParts* parts) const override {
    if (!add_special_tokens) return absl::OkStatus();
    for (size_t i = 0; i < parts->size(); ++i) {
      std::vector<int32_t>& ids = (*parts)[i];
      if (i == 0 || roberta_) ids.insert(ids.begin(), i == 0 ? cls_ : sep_);
      ids.push_back(sep_);
    }
    return absl::OkStatus();
  }

  int32_t max_id() const override { return std::max(cls_, sep_); }

 private:
  int32_t cls_;
  int32_t sep_;
  bool roberta_;
};

class PostProcessorSequence final : public PostProcessor {
 public:
  explicit PostProcessorSequence(std::vector<std::unique_ptr<PostProcessor>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(bool add_special_tokens, IdParts* parts) const override {
    for (const auto& step : steps_) {
      LLMC_RETURN_IF_ERROR(step->Apply(add_special_tokens, parts));
    }
    return absl::OkStatus();
  }

  int32_t max_id() const override {
    int32_t max = -1;
    for (const auto& step : steps_) max = std::max(max, step->max_id());
    return max;
  }

 private:
  std::vector<std::unique_ptr<PostProcessor>> steps_;
};

using PostProcessorOr = absl::StatusOr<std::unique_ptr<PostProcessor>>;

absl::StatusOr<TemplatePiece> ParseSpecial(const Json& special_tokens, const std::string& name,
                                           const std::string& where) {
  const Json& token = Member(special_tokens, name.c_str());
  if (!token.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": token \"", name, "\" is not among special_tokens"));
  }
  LLMC_ASSIGN_OR_RETURN(const Json* ids, ArrayField(token, "ids", where));
  TemplatePiece piece;
  for (const Json& id : *ids) {
    LLMC_ASSIGN_OR_RETURN(const int32_t value, TokenIdOf(id, absl::StrCat(where, ".ids")));
    piece.ids.push_back(value);
  }
  return piece;
}

absl::StatusOr<TemplatePiece> ParsePiece(const Json& json, const Json& special_tokens,
                                         const std::string& where) {
  if (const Json& sequence = Member(json, "Sequence"); sequence.is_object()) {
    const Json& id = Member(sequence, "id");
    if (id != "A" && id != "B") {
      return absl::InvalidArgumentError(absl::StrCat(where, ".id: expected A or B"));
    }
    return TemplatePiece{.sequence = id == "A" ? 0 : 1, .ids = {}};
  }
  if (const Json& special = Member(json, "SpecialToken"); special.is_object()) {
    LLMC_ASSIGN_OR_RETURN(const std::string id, StringField(special, "id", where));
    return ParseSpecial(special_tokens, id, where);
  }
  return absl::InvalidArgumentError(absl::StrCat(where, ": expected Sequence or SpecialToken"));
}

absl::StatusOr<std::vector<TemplatePiece>> ParsePieces(const Json& json, const char* key,
                                                       const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(const Json* members, ArrayField(json, key, where));
  std::vector<TemplatePiece> pieces;
  for (size_t i = 0; i < members->size(); ++i) {
    const std::string at = absl::StrCat(where, ".", key, "[", i, "]");
    LLMC_ASSIGN_OR_RETURN(TemplatePiece piece,
                          ParsePiece((*members)[i], Member(json, "special_tokens"), at));
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

PostProcessorOr ParseTemplate(const Json& json, const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(auto single, ParsePieces(json, "single", where));
  LLMC_ASSIGN_OR_RETURN(auto pair, ParsePieces(json, "pair", where));
  for (const TemplatePiece& piece : single) {
    if (piece.sequence == 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ".single: sequence B, expected A alone"));
    }
  }
  return std::make_unique<TemplateProcessing>(std::move(single), std::move(pair));
}

// A frame token is written ["<s>", 0].
absl::StatusOr<int32_t> ParseFrameToken(const Json& json, const char* key,
                                        const std::string& where) {
  LLMC_ASSIGN_OR_RETURN(const Json* token, ArrayField(json, key, where));
  if (token->size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(where, ".", key, ": expected [token, id]"));
  }
  return TokenIdOf((*token)[1], absl::StrCat(where, ".", key));
}

PostProcessorOr ParseOne(const Json& json, const std::string& where, int depth);

PostProcessorOr ParseSequence(const Json& json, const std::string& where, int depth) {
  if (depth >= kMaxDepth) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": sequences nested too deeply"));
  }
  LLMC_ASSIGN_OR_RETURN(const Json* members, ArrayField(json, "processors", where));
  std::vector<std::unique_ptr<PostProcessor>> steps;
  for (size_t i = 0; i < members->size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(auto step,
                          ParseOne((*members)[i], absl::StrCat(where, "[", i, "]"), depth + 1));
    steps.push_back(std::move(step));
  }
  return std::make_unique<PostProcessorSequence>(std::move(steps));
}

PostProcessorOr ParseOne(const Json& json, const std::string& where, int depth) {
  LLMC_ASSIGN_OR_RETURN(const std::string type, StringField(json, "type", where));
  if (type == "Sequence") return ParseSequence(json, where, depth);
  if (type == "TemplateProcessing") return ParseTemplate(json, where);
  if (type == "ByteLevel") return std::make_unique<OffsetsOnly>();
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    LLMC_ASSIGN_OR_RETURN(const int32_t cls, ParseFrameToken(json, "cls", where));
    LLMC_ASSIGN_OR_RETURN(const int32_t sep, ParseFrameToken(json, "sep", where));
    return std::make_unique<ClassifierFrame>(cls, sep, type == "RobertaProcessing");
  }
  return UnsupportedType(where, type,
                         "TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing or "
                         "Sequence");
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostProcessor>> ParsePostProcessor(const Json& json) {
  if (json.is_null()) return std::unique_ptr<PostProcessor>();
  return ParseOne(json, "post_processor", 0);
}

}  // namespace llmc
