#include "tokenizer/bpe.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/unicode.h"
#include "tokenizer/word_cache.h"

namespace llmc {
namespace {

constexpr int32_t kNone = -1;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

absl::StatusOr<Vocabulary> ParseVocabulary(const Json& json) {
  const Json& tokens = Member(json, "vocab");
  if (!tokens.is_object()) {
    return absl::InvalidArgumentError("model.vocab: expected an object of token: id");
  }
  Vocabulary vocabulary;
  vocabulary.Reserve(tokens.size());
  for (const auto& [token, value] : tokens.items()) {
    auto id = TokenIdOf(value, "model.vocab");
    if (!id.ok()) return At(absl::StrCat("token \"", token, "\""), id.status());
    vocabulary.Set(token, *id);
  }
  return vocabulary;
}

}  // namespace

// A merge that may still be possible. Ordered by rank, then from left to right.
struct Bpe::Candidate {
  uint64_t order = 0;  // rank << 32 | position
  int32_t id = 0;

  int32_t position() const { return static_cast<int32_t>(order & 0xFFFFFFFFu); }
  bool operator<(const Candidate& other) const { return order > other.order; }
};

// The word as a linked list of symbols, and the queue of candidates.
struct Bpe::Workspace {
  struct Symbol {
    int32_t id = 0;  // kNoId once it is merged into its left neighbour.
    int32_t previous = kNone;
    int32_t next = kNone;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;  // A heap.
};

Bpe::Bpe(Vocabulary vocabulary, Options options)
    : Model(std::move(vocabulary)), options_(std::move(options)), owner_(WordCache::NewOwner()) {
  if (options_.unk_token) unknown_id_ = vocabulary_.IdOf(*options_.unk_token).value_or(kNoId);
  bool complete = true;
  for (int byte = 0; byte < 256; ++byte) {
    const auto code = static_cast<uint8_t>(byte);
    fallback_ids_[byte] = vocabulary_.IdOf(absl::StrFormat("<0x%02X>", byte)).value_or(kNoId);
    alphabet_ids_[byte] = vocabulary_.IdOf(ByteCharacter(code)).value_or(kNoId);
    complete &= alphabet_ids_[byte] != kNoId;
  }
  plain_alphabet_ =
      complete && options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
}

absl::StatusOr<Bpe::Options> Bpe::ParseOptions(const Json& json) {
  const Json& dropout = Member(json, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0)) {
    return absl::InvalidArgumentError(
        "model.dropout: expected null; with dropout the ids would be random");
  }
  Options options;
  LLMC_ASSIGN_OR_RETURN(options.unk_token, OptionalStringField(json, "unk_token", "model"));
  LLMC_ASSIGN_OR_RETURN(const auto prefix,
                        OptionalStringField(json, "continuing_subword_prefix", "model"));
  LLMC_ASSIGN_OR_RETURN(const auto suffix,
                        OptionalStringField(json, "end_of_word_suffix", "model"));
  options.continuing_subword_prefix = prefix.value_or("");
  options.end_of_word_suffix = suffix.value_or("");
  LLMC_ASSIGN_OR_RETURN(options.fuse_unk, BoolFieldOr(json, "fuse_unk", false, "model"));
  LLMC_ASSIGN_OR_RETURN(options.byte_fallback, BoolFieldOr(json, "byte_fallback", false, "model"));
  LLMC_ASSIGN_OR_RETURN(options.ignore_merges, BoolFieldOr(json, "ignore_merges", false, "model"));
  return options;
}

absl::StatusOr<std::unique_ptr<Bpe>> Bpe::Parse(const Json& json) {
  LLMC_ASSIGN_OR_RETURN(Options options, ParseOptions(json));
  LLMC_ASSIGN_OR_RETURN(Vocabulary vocabulary, ParseVocabulary(json));
  LLMC_ASSIGN_OR_RETURN(const Json* merges, ArrayField(json, "merges", "model"));
  std::unique_ptr<Bpe> bpe(new Bpe(std::move(vocabulary), std::move(options)));
  LLMC_RETURN_IF_ERROR(bpe->AddMerges(*merges));
  return bpe;
}

absl::Status Bpe::AddMerges(const Json& merges) {
  merges_.reserve(merges.size());
  int32_t rank = 0;
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      const absl::string_view line = merge.get_ref<const std::string&>();
      if (absl::StartsWith(line, "#version")) continue;
      const std::vector<absl::string_view> parts = absl::StrSplit(line, ' ');
      if (parts.size() != 2) {
        return absl::InvalidArgumentError(
            absl::StrCat("model.merges[", rank, "]: \"", line, "\", expected two tokens"));
      }
      LLMC_RETURN_IF_ERROR(AddMerge(parts[0], parts[1], rank++));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      LLMC_RETURN_IF_ERROR(AddMerge(merge[0].get_ref<const std::string&>(),
                                    merge[1].get_ref<const std::string&>(), rank++));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", rank, "]: expected \"a b\" or [\"a\", \"b\"]"));
    }
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(absl::string_view left, absl::string_view right, int32_t rank) {
  const auto absent = [&](absl::string_view token) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.merges[", rank, "]: token \"", token, "\" is not in the vocabulary"));
  };
  const auto left_id = vocabulary_.IdOf(left);
  if (!left_id) return absent(left);
  const auto right_id = vocabulary_.IdOf(right);
  if (!right_id) return absent(right);
  const size_t prefix = options_.continuing_subword_prefix.size();
  if (right.size() < prefix) return absent(right);
  const std::string joined = absl::StrCat(left, right.substr(prefix));
  const auto id = vocabulary_.IdOf(joined);
  if (!id) return absent(joined);
  merges_[PairKey(*left_id, *right_id)] = {rank, *id};
  return absl::OkStatus();
}

absl::Status Bpe::Tokenize(absl::string_view piece, PieceForm form,
                           std::vector<int32_t>* ids) const {
  WordCache& cache = WordCache::OfThread(owner_);
  if (cache.Find(piece, ids)) return absl::OkStatus();
  const size_t begin = ids->size();
  LLMC_RETURN_IF_ERROR(TokenizeWord(piece, form, ids));
  cache.Add(piece, *ids, begin);
  return absl::OkStatus();
}

absl::Status Bpe::TokenizeWord(absl::string_view piece, PieceForm form,
                               std::vector<int32_t>* ids) const {
  const bool from_bytes = form == PieceForm::kBytes && plain_alphabet_;
  std::string mapped;
  if (form == PieceForm::kBytes && (options_.ignore_merges || !from_bytes)) {
    mapped = ToByteAlphabet(piece);
  }
  const absl::string_view word = form == PieceForm::kBytes ? absl::string_view(mapped) : piece;
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_.IdOf(word)) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
  }
  std::vector<int32_t> symbols;
  if (from_bytes) {
    symbols.reserve(piece.size());
    for (const char c : piece) symbols.push_back(alphabet_ids_[static_cast<uint8_t>(c)]);
  } else {
    LLMC_RETURN_IF_ERROR(SplitIntoCharacters(word, &symbols));
  }
  MergeAll(symbols, ids);
  return absl::OkStatus();
}

absl::Status Bpe::SplitIntoCharacters(absl::string_view word, std::vector<int32_t>* symbols) const {
  // An unknown token is held back until the next known character, as long as
  // unknown ones are fused.
  bool pending = false;
  const auto flush = [&] {
    if (pending) symbols->push_back(unknown_id_);
    pending = false;
  };
  std::string decorated;
  const bool decorate =
      !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  for (size_t begin = 0; begin < word.size();) {
    const size_t end = begin + Utf8Length(word[begin]);
    absl::string_view character = word.substr(begin, end - begin);
    if (decorate) {
      decorated = absl::StrCat(begin > 0 ? options_.continuing_subword_prefix : "", character,
                               end == word.size() ? options_.end_of_word_suffix : "");
      character = decorated;
    }
    begin = end;
    if (const auto id = vocabulary_.IdOf(character)) {
      flush();
      symbols->push_back(*id);
      continue;
    }
    // The package lets these bytes overtake an unknown token that is held back.
    if (options_.byte_fallback && AppendBytes(character, symbols)) continue;
    if (!options_.unk_token) continue;
    if (unknown_id_ == kNoId) {
      return absl::InvalidArgumentError(absl::StrCat("tokenizer: unk_token \"", *options_.unk_token,
                                                     "\" is not in the vocabulary"));
    }
    if (!options_.fuse_unk) flush();
    pending = true;
  }
  flush();
  return absl::OkStatus();
}

bool Bpe::AppendBytes(absl::string_view character, std::vector<int32_t>* symbols) const {
  for (const char c : character) {
    if (fallback_ids_[static_cast<uint8_t>(c)] == kNoId) return false;
  }
  for (const char c : character) symbols->push_back(fallback_ids_[static_cast<uint8_t>(c)]);
  return true;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void Bpe::Propose(int32_t position, Workspace* work) const {
  const Workspace::Symbol& left = work->symbols[position];
  const Merge* merge = FindMerge(left.id, work->symbols[left.next].id);
  if (!merge) return;
  const uint64_t order = static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(position);
  work->queue.push_back({order, merge->id});
  std::push_heap(work->queue.begin(), work->queue.end());
}

void Bpe::MergeAll(const std::vector<int32_t>& ids_before, std::vector<int32_t>* ids) const {
  Workspace work;
  auto& symbols = work.symbols;
  symbols.resize(ids_before.size());
  const auto count = static_cast<int32_t>(ids_before.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {ids_before[i], i - 1, i + 1 < count ? i + 1 : kNone};
  }
  for (int32_t i = 0; i + 1 < count; ++i) Propose(i, &work);
  while (!work.queue.empty()) {
    std::pop_heap(work.queue.begin(), work.queue.end());
    const Candidate best = work.queue.back();
    work.queue.pop_back();
    const int32_t position = best.position();
    auto& left = symbols[position];
    if (left.id == kNoId || left.next == kNone) continue;
    auto& right = symbols[left.next];
    // The neighbours may have changed since this was proposed.
    const Merge* merge = FindMerge(left.id, right.id);
    if (!merge || merge->id != best.id) continue;
    left.id = best.id;
    right.id = kNoId;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = position;
    if (left.previous != kNone) Propose(left.previous, &work);
    if (left.next != kNone) Propose(position, &work);
  }
  for (int32_t i = count > 0 ? 0 : kNone; i != kNone; i = symbols[i].next) {
    ids->push_back(symbols[i].id);
  }
}

}  // namespace llmc
