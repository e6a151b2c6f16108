// The `pre_tokenizer` of tokenizer.json: a text to the pieces that the model
// encodes one by one.
#ifndef LLMC_TOKENIZER_PRE_TOKENIZER_H_
#define LLMC_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "tokenizer/regex.h"

namespace llmc {

constexpr int32_t kNoToken = -1;

// A part of the text, never empty. A piece with an id is an added token and is
// not cut further. `head` as in NormalizedText.
struct Piece {
  absl::string_view text;
  size_t head = 0;
  int32_t id = kNoToken;

  // The part [begin, end) of this piece.
  Piece Part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), head > begin ? head - begin : 0, kNoToken};
  }
};

// The pieces of one text, and the texts made on the way, which they point into.
struct Pieces {
  std::vector<Piece> list;
  std::deque<std::string> texts;
  std::vector<Span> matches;  // Scratch of the step at work.

  absl::string_view Keep(std::string text) { return texts.emplace_back(std::move(text)); }
};

// One step of cutting.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;

  // Appends to `out->list` what `piece`, which has no id, becomes.
  virtual absl::Status Cut(const Piece& piece, Pieces* out) const = 0;
};

class PreTokenizer {
 public:
  // The kinds ByteLevel, Metaspace, Split, Whitespace, WhitespaceSplit, Digits,
  // Punctuation, CharDelimiterSplit, FixedLength, BertPreTokenizer and Sequence.
  // JSON null gives one that does nothing.
  static absl::StatusOr<PreTokenizer> Parse(const nlohmann::json& json);

  // Cuts every piece of `pieces` that has no id. Fails only as Regex::FindAll does.
  absl::Status Apply(Pieces* pieces) const;

  // True when the last step turns bytes into characters of the byte alphabet: that
  // is left to the model, which then gets the bytes as they are.
  bool leaves_bytes() const { return leaves_bytes_; }

 private:
  std::vector<std::unique_ptr<PreTokenizerStep>> steps_;
  bool leaves_bytes_ = false;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_PRE_TOKENIZER_H_
