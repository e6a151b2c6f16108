#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace llmc {
namespace {

absl::StatusOr<AddedToken> ParseToken(const Json& json, const std::string& where) {
  AddedToken token;
  LLMC_ASSIGN_OR_RETURN(token.content, StringField(json, "content", where));
  LLMC_ASSIGN_OR_RETURN(token.single_word, BoolField(json, "single_word", where));
  LLMC_ASSIGN_OR_RETURN(token.lstrip, BoolField(json, "lstrip", where));
  LLMC_ASSIGN_OR_RETURN(token.rstrip, BoolField(json, "rstrip", where));
  LLMC_ASSIGN_OR_RETURN(token.normalized, BoolField(json, "normalized", where));
  LLMC_ASSIGN_OR_RETURN(token.special, BoolField(json, "special", where));
  LLMC_ASSIGN_OR_RETURN(token.id, TokenIdOf(Member(json, "id"), absl::StrCat(where, ".id")));
  return token;
}

// A word character of Unicode's TR18.
absl::StatusOr<bool> IsWordCharacter(absl::string_view character) {
  static const auto* const kWord = new absl::StatusOr<Regex>(
      Regex::Compile(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}])"));
  LLMC_RETURN_IF_ERROR(kWord->status());
  std::vector<Span> matches;
  LLMC_RETURN_IF_ERROR((*kWord)->FindAll(character, &matches));
  return !matches.empty();
}

// Whether neither neighbour of text[match] is a word character.
absl::StatusOr<bool> StandsAlone(absl::string_view text, Span match) {
  if (match.begin > 0) {
    const size_t before = PreviousCharacter(text, match.begin);
    LLMC_ASSIGN_OR_RETURN(const bool word,
                          IsWordCharacter(text.substr(before, match.begin - before)));
    if (word) return false;
  }
  if (match.end < text.size()) {
    LLMC_ASSIGN_OR_RETURN(const bool word,
                          IsWordCharacter(text.substr(match.end, Utf8Length(text[match.end]))));
    if (word) return false;
  }
  return true;
}

// Where the white space before `end` begins, not before `floor`.
size_t SpaceBegin(absl::string_view text, size_t floor, size_t end) {
  while (end > floor) {
    const size_t before = PreviousCharacter(text, end);
    if (!IsWhiteSpace(DecodeUtf8(text, before))) break;
    end = before;
  }
  return end;
}

size_t SpaceEnd(absl::string_view text, size_t begin) {
  while (begin < text.size() && IsWhiteSpace(DecodeUtf8(text, begin))) {
    begin += Utf8Length(text[begin]);
  }
  return begin;
}

struct Found {
  Span span;
  int32_t id = kNoToken;
};

// The leftmost key at or after `from`, of those the longest; kNoToken when none.
Found FindLeftmostLongest(const ByteTrie& trie, absl::string_view text, size_t from) {
  for (size_t begin = from; begin < text.size(); ++begin) {
    Found found;
    int32_t node = trie.Step(ByteTrie::kRoot, text[begin]);
    for (size_t end = begin + 1; node != ByteTrie::kNowhere; ++end) {
      if (trie.ValueAt(node) >= 0) found = {{begin, end}, trie.ValueAt(node)};
      if (end >= text.size()) break;
      node = trie.Step(node, text[end]);
    }
    if (found.id != kNoToken) return found;
  }
  return {};
}

absl::StatusOr<std::string> PatternOf(const AddedToken& token, const Normalizer* normalizer) {
  if (!token.normalized || !normalizer) return token.content;
  NormalizedText text{token.content, token.content.size()};
  LLMC_RETURN_IF_ERROR(normalizer->Apply(&text));
  return text.text;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const Json& json, const Vocabulary& vocabulary,
                                               const Normalizer* normalizer) {
  AddedTokens added;
  if (json.is_null()) return added;
  if (!json.is_array()) return absl::InvalidArgumentError("added_tokens: expected an array");
  auto next_id = static_cast<int32_t>(
      std::min<size_t>(vocabulary.size(), std::numeric_limits<int32_t>::max() / 2));
  for (size_t i = 0; i < json.size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(AddedToken token,
                          ParseToken(json[i], absl::StrCat("added_tokens[", i, "]")));
    if (token.content.empty()) continue;
    const auto known = added.names_.IdOf(token.content);
    const auto in_model = vocabulary.IdOf(token.content);
    token.id = known ? *known : in_model ? *in_model : next_id++;
    added.names_.Set(token.content, token.id);
    added.tokens_[token.id] = std::move(token);
  }
  for (const auto& [id, token] : added.tokens_) {
    LLMC_ASSIGN_OR_RETURN(const std::string pattern, PatternOf(token, normalizer));
    LLMC_RETURN_IF_ERROR(added.AddPattern(pattern, token));
  }
  return added;
}

absl::Status AddedTokens::AddPattern(absl::string_view pattern, const AddedToken& token) {
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("added_tokens: token \"", token.content, "\" ", why));
  };
  if (pattern.empty()) return refuse("is empty once normalized");
  Patterns& patterns = token.normalized ? normalized_ : raw_;
  int32_t node = ByteTrie::kRoot;
  for (size_t i = 0; i < pattern.size() && node != ByteTrie::kNowhere; ++i) {
    node = patterns.trie.Step(node, pattern[i]);
  }
  if (node != ByteTrie::kNowhere && patterns.trie.ValueAt(node) >= 0) {
    return refuse("is the same as another once normalized");
  }
  patterns.trie.Insert(pattern, token.id);
  patterns.empty = false;
  return absl::OkStatus();
}

absl::Status AddedTokens::CutRaw(const Piece& piece, std::vector<Piece>* out) const {
  return Cut(piece, raw_, out);
}

absl::Status AddedTokens::CutNormalized(const Piece& piece, std::vector<Piece>* out) const {
  return Cut(piece, normalized_, out);
}

absl::Status AddedTokens::Cut(const Piece& piece, const Patterns& patterns,
                              std::vector<Piece>* out) const {
  const absl::string_view text = piece.text;
  size_t done = 0;
  size_t from = 0;
  Span space;
  while (!patterns.empty && from < text.size()) {
    const Found found = FindLeftmostLongest(patterns.trie, text, from);
    if (found.id == kNoToken) break;
    from = found.span.end;
    const AddedToken& token = tokens_.at(found.id);
    if (token.single_word) {
      LLMC_ASSIGN_OR_RETURN(const bool alone, StandsAlone(text, found.span));
      if (!alone) continue;
    }
    auto [begin, end] = found.span;
    if (token.lstrip) begin = SpaceBegin(text, done, std::max(begin, done));
    if (token.rstrip) {
      // Matches may lie inside one run of white space: it is walked once.
      if (end < space.begin || end > space.end) space = {end, SpaceEnd(text, end)};
      end = space.end;
    }
    if (done < begin) out->push_back(piece.Part(done, begin));
    // White space that the token before has taken leaves nothing of this one.
    if (begin < end) {
      out->push_back(piece.Part(begin, end));
      out->back().id = found.id;
    }
    done = end;
  }
  if (done < text.size()) out->push_back(piece.Part(done, text.size()));
  return absl::OkStatus();
}

}  // namespace llmc
