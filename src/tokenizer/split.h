// Cutting a piece at matches.
#ifndef LLMC_TOKENIZER_SPLIT_H_
#define LLMC_TOKENIZER_SPLIT_H_

#include <string>
#include <vector>

#include "llmc/status.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/regex.h"

namespace llmc {

// What becomes of the matches. Of "the-final--countdown" cut at '-':
enum class SplitBehavior {
  kRemoved,             // the|final|countdown
  kIsolated,            // the|-|final|-|-|countdown
  kMergedWithPrevious,  // the-|final-|-|countdown
  kMergedWithNext,      // the|-final|-|-countdown
  kContiguous,          // the|-|final|--|countdown
};

absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name, absl::string_view where);

// Appends the parts of `piece` to `out`; empty parts are left out. `matches` rise
// and do not overlap. `invert` swaps matches and what lies between them.
void SplitAt(const Piece& piece, const std::vector<Span>& matches, SplitBehavior behavior,
             bool invert, std::vector<Piece>* out);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_SPLIT_H_
