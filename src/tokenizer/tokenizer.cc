#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "llmc/file.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/special_names.h"
#include "tokenizer/unicode.h"

namespace llmc {

struct Tokenizer::Parts {
  std::unique_ptr<Normalizer> normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Model> model;
  AddedTokens added_tokens;
  std::unique_ptr<PostProcessor> post_processor;
  SpecialNames names;

  absl::Status CutAndNormalize(absl::string_view text, Pieces* pieces) const;
  absl::Status AppendIds(const Pieces& pieces, std::vector<int32_t>* ids) const;
};

namespace {

// Positions inside a text are 32 bits wide.
constexpr size_t kMaxTextBytes = size_t{1} << 30;
// Ten times the largest files in use; JSON in memory takes several times its size.
constexpr int64_t kMaxFileBytes = int64_t{512} << 20;
constexpr absl::string_view kVersion = "1.0";

absl::Status CheckText(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer: text of ", text.size(),
                                                   " bytes, expected at most ", kMaxTextBytes));
  }
  if (const auto offset = FirstInvalidUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer: text is not UTF-8, at byte ", *offset));
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(const Json& json) {
  const Json& version = Member(json, "version");
  if (version.is_null() ||
      (version.is_string() && version.get_ref<const std::string&>() == kVersion)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("version: expected \"", kVersion, "\""));
}

// Why a directory without tokenizer.json cannot be used.
absl::Status NoTokenizerJson(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  for (const char* name : {"tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model"}) {
    if (std::filesystem::exists(model_dir / name, ignored)) {
      return absl::InvalidArgumentError(
          absl::StrCat(model_dir.string(), ": has ", name,
                       " only; convert it: transformers' AutoTokenizer.from_pretrained(DIR)"
                       ".save_pretrained(DIR) writes tokenizer.json"));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(model_dir.string(), ": no tokenizer.json, expected one"));
}

// The text of an optional file; empty when there is none.
absl::StatusOr<std::string> ReadIfPresent(const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return std::string();
  return text;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer::Parts>> Tokenizer::ParseParts(
    absl::string_view tokenizer_json) {
  LLMC_ASSIGN_OR_RETURN(const Json json, ParseJson(tokenizer_json, "tokenizer.json"));
  if (!json.is_object()) {
    return absl::InvalidArgumentError("tokenizer.json: expected a JSON object");
  }
  auto parts = std::make_unique<Parts>();
  const auto parse = [&]() -> absl::Status {
    LLMC_RETURN_IF_ERROR(CheckVersion(json));
    LLMC_ASSIGN_OR_RETURN(parts->normalizer, ParseNormalizer(Member(json, "normalizer")));
    LLMC_ASSIGN_OR_RETURN(parts->pre_tokenizer, PreTokenizer::Parse(Member(json, "pre_tokenizer")));
    LLMC_ASSIGN_OR_RETURN(parts->model, ParseModel(Member(json, "model")));
    LLMC_ASSIGN_OR_RETURN(parts->added_tokens,
                          AddedTokens::Parse(Member(json, "added_tokens"),
                                             parts->model->vocabulary(), parts->normalizer.get()));
    LLMC_ASSIGN_OR_RETURN(parts->post_processor,
                          ParsePostProcessor(Member(json, "post_processor")));
    return absl::OkStatus();
  };
  if (absl::Status status = parse(); !status.ok()) return At("tokenizer.json", status);
  return parts;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view tokenizer_json,
                                                               absl::string_view config_json) {
  LLMC_ASSIGN_OR_RETURN(auto parts, ParseParts(tokenizer_json));
  if (!config_json.empty()) {
    LLMC_RETURN_IF_ERROR(MergeSpecialNames(config_json, "tokenizer_config.json", &parts->names));
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(model_dir, ignored)) {
    return absl::NotFoundError(absl::StrCat(model_dir.string(), ": no such directory"));
  }
  const absl::StatusOr<std::string> text = ReadFile(model_dir / "tokenizer.json", kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return NoTokenizerJson(model_dir);
  LLMC_RETURN_IF_ERROR(text.status());
  auto parts = ParseParts(*text);
  if (!parts.ok()) return At(model_dir.string(), parts.status());
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    LLMC_ASSIGN_OR_RETURN(const std::string more, ReadIfPresent(model_dir / name));
    if (more.empty()) continue;
    LLMC_RETURN_IF_ERROR(At(model_dir.string(), MergeSpecialNames(more, name, &(*parts)->names)));
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(parts)));
}

absl::Status Tokenizer::Parts::CutAndNormalize(absl::string_view text, Pieces* pieces) const {
  if (text.empty()) return absl::OkStatus();
  std::vector<Piece> raw;
  LLMC_RETURN_IF_ERROR(added_tokens.CutRaw({text, Utf8Length(text[0]), kNoToken}, &raw));
  for (Piece& piece : raw) {
    if (piece.id != kNoToken) {
      pieces->list.push_back(piece);
      continue;
    }
    if (normalizer) {
      NormalizedText normalized{std::string(piece.text), piece.head};
      LLMC_RETURN_IF_ERROR(normalizer->Apply(&normalized));
      piece = {pieces->Keep(std::move(normalized.text)), normalized.head, kNoToken};
    }
    LLMC_RETURN_IF_ERROR(added_tokens.CutNormalized(piece, &pieces->list));
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Parts::AppendIds(const Pieces& pieces, std::vector<int32_t>* ids) const {
  const PieceForm form = pre_tokenizer.leaves_bytes() ? PieceForm::kBytes : PieceForm::kText;
  for (const Piece& piece : pieces.list) {
    if (piece.id != kNoToken) {
      ids->push_back(piece.id);
    } else {
      LLMC_RETURN_IF_ERROR(model->Tokenize(piece.text, form, ids));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       const EncodeOptions& options) const {
  LLMC_RETURN_IF_ERROR(CheckText(text));
  Pieces pieces;
  LLMC_RETURN_IF_ERROR(parts_->CutAndNormalize(text, &pieces));
  LLMC_RETURN_IF_ERROR(parts_->pre_tokenizer.Apply(&pieces));
  IdParts ids(1);
  LLMC_RETURN_IF_ERROR(parts_->AppendIds(pieces, &ids[0]));
  if (parts_->post_processor) {
    LLMC_RETURN_IF_ERROR(parts_->post_processor->Apply(options.add_special_tokens, &ids));
  }
  if (ids.size() == 1) return std::move(ids[0]);
  std::vector<int32_t> all;
  for (const std::vector<int32_t>& part : ids) all.insert(all.end(), part.begin(), part.end());
  return all;
}

int32_t Tokenizer::vocab_size() const {
  int32_t max_id =
      std::max(parts_->model->vocabulary().max_id(), parts_->added_tokens.vocabulary().max_id());
  if (parts_->post_processor) max_id = std::max(max_id, parts_->post_processor->max_id());
  return max_id + 1;
}

std::optional<int32_t> Tokenizer::IdOf(absl::string_view token) const {
  const auto added = parts_->added_tokens.vocabulary().IdOf(token);
  return added ? added : parts_->model->vocabulary().IdOf(token);
}

std::optional<std::string> Tokenizer::TokenOf(int32_t id) const {
  auto token = parts_->added_tokens.vocabulary().TokenOf(id);
  if (!token) token = parts_->model->vocabulary().TokenOf(id);
  if (!token) return std::nullopt;
  return std::string(*token);
}

namespace {

std::optional<int32_t> IdOfName(const Tokenizer& tokenizer,
                                const std::optional<std::string>& name) {
  return name ? tokenizer.IdOf(*name) : std::nullopt;
}

}  // namespace

const std::optional<std::string>& Tokenizer::bos_token() const { return parts_->names.bos_token; }
const std::optional<std::string>& Tokenizer::eos_token() const { return parts_->names.eos_token; }
const std::optional<std::string>& Tokenizer::pad_token() const { return parts_->names.pad_token; }
const std::optional<std::string>& Tokenizer::unk_token() const { return parts_->names.unk_token; }
std::optional<int32_t> Tokenizer::bos_id() const { return IdOfName(*this, bos_token()); }
std::optional<int32_t> Tokenizer::eos_id() const { return IdOfName(*this, eos_token()); }
std::optional<int32_t> Tokenizer::pad_id() const { return IdOfName(*this, pad_token()); }
std::optional<int32_t> Tokenizer::unk_id() const { return IdOfName(*this, unk_token()); }

std::optional<int64_t> Tokenizer::model_max_length() const {
  return parts_->names.model_max_length;
}

const std::optional<std::string>& Tokenizer::chat_template() const {
  return parts_->names.chat_template;
}

}  // namespace llmc
