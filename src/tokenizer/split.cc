#include "tokenizer/split.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

struct Part {
  Span span;
  bool is_match = false;
};

// Matches and gaps in order, covering the text.
std::vector<Part> Cover(size_t size, const std::vector<Span>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(2 * matches.size() + 1);
  size_t previous = 0;
  for (const Span& match : matches) {
    if (previous != match.begin) parts.push_back({{previous, match.begin}, invert});
    parts.push_back({match, !invert});
    previous = match.end;
  }
  if (previous != size) parts.push_back({{previous, size}, invert});
  return parts;
}

void MergeContiguous(std::vector<Part>* parts) {
  std::vector<Part> merged;
  bool previous = false;
  for (const Part& part : *parts) {
    if (part.is_match == previous && !merged.empty()) {
      merged.back().span.end = part.span.end;
    } else {
      merged.push_back(part);
    }
    previous = part.is_match;
  }
  *parts = std::move(merged);
}

// Joins each match that does not follow a match to the part before it.
void MergeWithPrevious(std::vector<Part>* parts) {
  std::vector<Part> merged;
  bool previous = false;
  for (const Part& part : *parts) {
    if (part.is_match && !previous && !merged.empty()) {
      merged.back().span.begin = std::min(merged.back().span.begin, part.span.begin);
      merged.back().span.end = std::max(merged.back().span.end, part.span.end);
    } else {
      merged.push_back(part);
    }
    previous = part.is_match;
  }
  *parts = std::move(merged);
}

void MergeWithNext(std::vector<Part>* parts) {
  std::reverse(parts->begin(), parts->end());
  MergeWithPrevious(parts);
  std::reverse(parts->begin(), parts->end());
}

void Isolate(const Piece& piece, const std::vector<Span>& matches, std::vector<Piece>* out) {
  size_t previous = 0;
  for (const Span& match : matches) {
    if (previous != match.begin) out->push_back(piece.Part(previous, match.begin));
    if (match.begin != match.end) out->push_back(piece.Part(match.begin, match.end));
    previous = match.end;
  }
  if (previous != piece.text.size()) out->push_back(piece.Part(previous, piece.text.size()));
}

}  // namespace

absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name, absl::string_view where) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(absl::StrCat(
      where, ".behavior: \"", name,
      "\", expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous"));
}

void SplitAt(const Piece& piece, const std::vector<Span>& matches, SplitBehavior behavior,
             bool invert, std::vector<Piece>* out) {
  if (behavior == SplitBehavior::kIsolated) return Isolate(piece, matches, out);
  std::vector<Part> parts = Cover(piece.text.size(), matches, invert);
  if (behavior == SplitBehavior::kContiguous) MergeContiguous(&parts);
  if (behavior == SplitBehavior::kMergedWithPrevious) MergeWithPrevious(&parts);
  if (behavior == SplitBehavior::kMergedWithNext) MergeWithNext(&parts);
  for (const Part& part : parts) {
    if (behavior == SplitBehavior::kRemoved && part.is_match) continue;
    if (part.span.begin < part.span.end) {
      out->push_back(piece.Part(part.span.begin, part.span.end));
    }
  }
}

}  // namespace llmc
