#include "tokenizer/model.h"

#include "tokenizer/bpe.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/unigram.h"

namespace llmc {

absl::StatusOr<std::unique_ptr<Model>> ParseModel(const Json& json) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("model: expected an object");
  }
  LLMC_ASSIGN_OR_RETURN(const auto named, OptionalStringField(json, "type", "model"));
  // Files of the first years (GPT-2's among them) do not name the type.
  const bool scored = Member(json, "vocab").is_array();
  const std::string type = named.value_or(Member(json, "merges").is_array() ? "BPE"
                                          : scored                          ? "Unigram"
                                                                            : "");
  if (type == "BPE") return Bpe::Parse(json);
  if (type == "Unigram") return Unigram::Parse(json);
  return UnsupportedType("model", type, "BPE or Unigram");
}

}  // namespace llmc
