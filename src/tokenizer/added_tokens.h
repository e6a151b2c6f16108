// The `added_tokens` of tokenizer.json: tokens cut out of the text before
// anything else sees it.
#ifndef LLMC_TOKENIZER_ADDED_TOKENS_H_
#define LLMC_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "llmc/status.h"
#include "tokenizer/byte_trie.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace llmc {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // Only where no word character is next to it.
  bool lstrip = false;       // Takes the white space before it,
  bool rstrip = false;       // and after it.
  bool normalized = false;   // Looked for, normalized, in the normalized text.
  bool special = false;
};

class AddedTokens {
 public:
  // As the package does, a token that `vocabulary` knows has its id there, and the
  // others are numbered from vocabulary.size() on in the order of the file: the
  // ids in the file are not used. `normalizer` may be null.
  static absl::StatusOr<AddedTokens> Parse(const nlohmann::json& json, const Vocabulary& vocabulary,
                                           const Normalizer* normalizer);

  // Cuts the tokens that are not `normalized` out of `piece`, a part of the text as
  // given; appends to `out`.
  absl::Status CutRaw(const Piece& piece, std::vector<Piece>* out) const;

  // Cuts the `normalized` tokens out of `piece`, a part of the normalized text.
  absl::Status CutNormalized(const Piece& piece, std::vector<Piece>* out) const;

  // Token strings and ids of the added tokens alone.
  const Vocabulary& vocabulary() const { return names_; }

 private:
  // The tokens that are looked for together.
  struct Patterns {
    ByteTrie trie;  // Values are ids.
    bool empty = true;
  };

  absl::Status AddPattern(absl::string_view pattern, const AddedToken& token);
  absl::Status Cut(const Piece& piece, const Patterns& patterns, std::vector<Piece>* out) const;

  Vocabulary names_;
  absl::flat_hash_map<int32_t, AddedToken> tokens_;
  Patterns raw_;
  Patterns normalized_;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_ADDED_TOKENS_H_
