// The unigram language model (Kudo, 2018): the most probable segmentation.
#ifndef LLMC_TOKENIZER_UNIGRAM_H_
#define LLMC_TOKENIZER_UNIGRAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "tokenizer/byte_trie.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/model.h"

namespace llmc {

class Unigram final : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Unigram>> Parse(const Json& json);

  absl::Status Tokenize(absl::string_view piece, PieceForm form,
                        std::vector<int32_t>* ids) const override;

 private:
  // A token [begin, end) of the segmentation.
  struct Segment {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = 0;
  };

  explicit Unigram(Vocabulary vocabulary) : Model(std::move(vocabulary)) {}

  absl::Status AddTokens(const Json& tokens);
  // Viterbi; of segmentations with the same score, the first one found stays.
  absl::StatusOr<std::vector<Segment>> BestSegmentation(absl::string_view text) const;
  absl::Status AppendUnknown(absl::string_view text, std::vector<int32_t>* ids) const;

  std::vector<double> scores_;  // By id.
  double unknown_score_ = 0;
  std::optional<int32_t> unknown_id_;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> fallback_ids_;
  ByteTrie trie_;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_UNIGRAM_H_
