// The `model` of tokenizer.json: pieces to token ids.
#ifndef LLMC_TOKENIZER_MODEL_H_
#define LLMC_TOKENIZER_MODEL_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "tokenizer/vocabulary.h"

namespace llmc {

// What a piece holds: characters, or bytes that are yet to be turned into
// characters of the byte alphabet.
enum class PieceForm { kText, kBytes };

class Model {
 public:
  virtual ~Model() = default;

  // Appends the ids of `piece`, not empty. kInvalidArgument when the model has no
  // token for it and no unknown token. Safe to call from several threads.
  virtual absl::Status Tokenize(absl::string_view piece, PieceForm form,
                                std::vector<int32_t>* ids) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  Vocabulary vocabulary_;
};

// A model of the kinds BPE and Unigram.
absl::StatusOr<std::unique_ptr<Model>> ParseModel(const nlohmann::json& json);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_MODEL_H_
