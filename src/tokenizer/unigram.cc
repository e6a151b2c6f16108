#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

constexpr int32_t kNoId = -1;
constexpr size_t kNowhere = std::numeric_limits<size_t>::max();
// SentencePiece's penalty for a character without a token, below the rarest one.
constexpr double kUnknownPenalty = 10.0;

absl::Status NoUnknownToken() {
  return absl::InvalidArgumentError(
      "tokenizer: the text has a character without a token, and tokenizer.json has no unk_id");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Unigram>> Unigram::Parse(const Json& json) {
  LLMC_ASSIGN_OR_RETURN(const Json* tokens, ArrayField(json, "vocab", "model"));
  std::unique_ptr<Unigram> unigram(new Unigram(Vocabulary()));
  LLMC_RETURN_IF_ERROR(unigram->AddTokens(*tokens));
  LLMC_ASSIGN_OR_RETURN(unigram->byte_fallback_,
                        BoolFieldOr(json, "byte_fallback", false, "model"));
  if (const Json& unknown = Member(json, "unk_id"); !unknown.is_null()) {
    LLMC_ASSIGN_OR_RETURN(unigram->unknown_id_, TokenIdOf(unknown, "model.unk_id"));
    if (static_cast<size_t>(*unigram->unknown_id_) >= unigram->scores_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("model.unk_id: ", *unigram->unknown_id_,
                                                     ", expected an id of the vocabulary of ",
                                                     unigram->scores_.size(), " tokens"));
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    unigram->fallback_ids_[byte] =
        unigram->vocabulary_.IdOf(absl::StrFormat("<0x%02X>", byte)).value_or(kNoId);
  }
  return unigram;
}

absl::Status Unigram::AddTokens(const Json& tokens) {
  vocabulary_.Reserve(tokens.size());
  double lowest = std::numeric_limits<double>::infinity();
  for (const Json& entry : tokens) {
    const auto id = static_cast<int32_t>(scores_.size());
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab[", id, "]: expected [token, score]"));
    }
    const auto& token = entry[0].get_ref<const std::string&>();
    vocabulary_.Set(token, id);
    // An empty token would never advance; a search from the root cannot meet it.
    if (!token.empty()) trie_.Insert(token, id);
    scores_.push_back(entry[1].get<double>());
    lowest = std::min(lowest, scores_.back());
  }
  unknown_score_ = lowest - kUnknownPenalty;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Unigram::Segment>> Unigram::BestSegmentation(
    absl::string_view text) const {
  // The best way to reach each byte.
  struct Arrival {
    double score = 0;
    size_t begin = kNowhere;
    int32_t id = 0;
  };
  std::vector<Arrival> arrivals(text.size() + 1);
  const auto offer = [&](size_t begin, size_t end, int32_t id, double score) {
    Arrival& arrival = arrivals[end];
    if (arrival.begin == kNowhere || score > arrival.score) arrival = {score, begin, id};
  };
  for (size_t begin = 0; begin < text.size();) {
    const double score = arrivals[begin].score;
    const size_t next = begin + Utf8Length(text[begin]);
    bool has_character = false;
    int32_t node = ByteTrie::kRoot;
    for (size_t end = begin; end < text.size();) {
      node = trie_.Step(node, text[end++]);
      if (node == ByteTrie::kNowhere) break;
      const int32_t id = trie_.ValueAt(node);
      if (id == kNoId) continue;
      offer(begin, end, id, scores_[id] + score);
      has_character |= end == next;
    }
    if (!has_character) {
      if (unknown_score_ + score > arrivals[next].score || arrivals[next].begin == kNowhere) {
        if (!unknown_id_) return NoUnknownToken();
        offer(begin, next, *unknown_id_, unknown_score_ + score);
      }
    }
    begin = next;
  }
  std::vector<Segment> segments;
  for (size_t end = text.size(); end > 0; end = arrivals[end].begin) {
    segments.push_back({arrivals[end].begin, end, arrivals[end].id});
  }
  std::reverse(segments.begin(), segments.end());
  return segments;
}

absl::Status Unigram::AppendUnknown(absl::string_view text, std::vector<int32_t>* ids) const {
  // A run of unknown characters may be a token that the search did not reach.
  if (const auto id = vocabulary_.IdOf(text)) {
    ids->push_back(*id);
    return absl::OkStatus();
  }
  const bool has_bytes = std::all_of(text.begin(), text.end(), [this](char c) {
    return fallback_ids_[static_cast<uint8_t>(c)] != kNoId;
  });
  if (byte_fallback_ && has_bytes) {
    for (const char c : text) ids->push_back(fallback_ids_[static_cast<uint8_t>(c)]);
    return absl::OkStatus();
  }
  if (!unknown_id_) return NoUnknownToken();
  ids->push_back(*unknown_id_);
  return absl::OkStatus();
}

absl::Status Unigram::Tokenize(absl::string_view piece, PieceForm form,
                               std::vector<int32_t>* ids) const {
  std::string mapped;
  if (form == PieceForm::kBytes) {
    mapped = ToByteAlphabet(piece);
    piece = mapped;
  }
  LLMC_ASSIGN_OR_RETURN(const std::vector<Segment> segments, BestSegmentation(piece));
  for (size_t i = 0; i < segments.size();) {
    const Segment& segment = segments[i];
    if (!unknown_id_ || segment.id != *unknown_id_) {
      ids->push_back(segment.id);
      ++i;
      continue;
    }
    size_t last = i;
    while (last + 1 < segments.size() && segments[last + 1].id == *unknown_id_) ++last;
    const absl::string_view run = piece.substr(segment.begin, segments[last].end - segment.begin);
    LLMC_RETURN_IF_ERROR(AppendUnknown(run, ids));
    i = last + 1;
  }
  return absl::OkStatus();
}

}  // namespace llmc
