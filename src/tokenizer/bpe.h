// Byte-pair encoding (Sennrich et al., 2016).
#ifndef LLMC_TOKENIZER_BPE_H_
#define LLMC_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/model.h"

namespace llmc {

class Bpe final : public Model {
 public:
  // kInvalidArgument when a merge names a token that the vocabulary lacks, or with
  // dropout, which makes ids random.
  static absl::StatusOr<std::unique_ptr<Bpe>> Parse(const Json& json);

  absl::Status Tokenize(absl::string_view piece, PieceForm form,
                        std::vector<int32_t>* ids) const override;

 private:
  static constexpr int32_t kNoId = -1;

  struct Options {
    std::optional<std::string> unk_token;
    std::string continuing_subword_prefix;
    std::string end_of_word_suffix;
    bool fuse_unk = false;
    bool byte_fallback = false;
    bool ignore_merges = false;
  };
  struct Merge {
    int32_t rank = 0;
    int32_t id = 0;
  };
  struct Candidate;
  struct Workspace;

  Bpe(Vocabulary vocabulary, Options options);

  static absl::StatusOr<Options> ParseOptions(const Json& json);
  absl::Status AddMerges(const Json& merges);
  absl::Status AddMerge(absl::string_view left, absl::string_view right, int32_t rank);

  absl::Status TokenizeWord(absl::string_view piece, PieceForm form,
                            std::vector<int32_t>* ids) const;
  // The ids before any merge.
  absl::Status SplitIntoCharacters(absl::string_view word, std::vector<int32_t>* symbols) const;
  bool AppendBytes(absl::string_view character, std::vector<int32_t>* symbols) const;
  void MergeAll(const std::vector<int32_t>& symbols, std::vector<int32_t>* ids) const;
  void Propose(int32_t position, Workspace* work) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  Options options_;
  int32_t unknown_id_ = kNoId;
  uint64_t owner_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  // Ids of "<0x00>".."<0xFF>", kNoId where the vocabulary lacks one.
  std::array<int32_t, 256> fallback_ids_;
  // Ids of the characters of the byte alphabet.
  std::array<int32_t, 256> alphabet_ids_;
  // A word of bytes can start from alphabet_ids_ without looking at strings.
  bool plain_alphabet_ = false;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_BPE_H_
