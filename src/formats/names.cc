#include "formats/names.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace llmc {
namespace {

template <typename Enum>
struct Named {
  absl::string_view name;
  Enum value;
};

constexpr std::array<Named<NumberType>, 2> kNumberTypes = {{
    {"int", NumberType::kInt},
    {"float", NumberType::kFloat},
}};

constexpr std::array<Named<Strategy>, 7> kStrategies = {{
    {"tensor", Strategy::kTensor},
    {"channel", Strategy::kChannel},
    {"group", Strategy::kGroup},
    {"block", Strategy::kBlock},
    {"token", Strategy::kToken},
    {"tensor_group", Strategy::kTensorGroup},
    {"attn_head", Strategy::kAttnHead},
}};

constexpr std::array<Named<ActOrder>, 2> kActOrders = {{
    {"weight", ActOrder::kWeight},
    {"static", ActOrder::kStatic},
}};

constexpr std::array<Named<Format>, 8> kFormats = {{
    {"dense", Format::kDense},
    {"int-quantized", Format::kIntQuantized},
    {"float-quantized", Format::kFloatQuantized},
    {"naive-quantized", Format::kNaiveQuantized},
    {"pack-quantized", Format::kPackQuantized},
    {"nvfp4-pack-quantized", Format::kNvfp4PackQuantized},
    {"mxfp4-pack-quantized", Format::kMxfp4PackQuantized},
    {"mxfp8-quantized", Format::kMxfp8Quantized},
}};

constexpr std::array<Named<SparseFormat>, 3> kSparseFormats = {{
    {"dense", SparseFormat::kDense},
    {"sparse-24-bitmask", SparseFormat::kSparse24Bitmask},
    {"sparse-bitmask", SparseFormat::kSparseBitmask},
}};

template <typename Table, typename Enum>
absl::string_view NameIn(const Table& table, Enum value) {
  for (const auto& entry : table) {
    if (entry.value == value) return entry.name;
  }
  return "unknown";
}

template <typename Enum, size_t N>
absl::StatusOr<Enum> ValueIn(const std::array<Named<Enum>, N>& table, absl::string_view name) {
  std::vector<std::string> known;
  for (const Named<Enum>& entry : table) {
    if (entry.name == name) return entry.value;
    known.emplace_back(entry.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name.substr(0, 80), "', expected one of ", absl::StrJoin(known, ", ")));
}

// Levenshtein distance with adjacent transpositions.
int EditDistance(const std::string& a, const std::string& b) {
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const int change = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

absl::string_view NumberTypeName(NumberType type) { return NameIn(kNumberTypes, type); }
absl::string_view StrategyName(Strategy strategy) { return NameIn(kStrategies, strategy); }
absl::string_view ActOrderName(ActOrder actorder) { return NameIn(kActOrders, actorder); }
absl::string_view SparseFormatName(SparseFormat format) { return NameIn(kSparseFormats, format); }

absl::string_view FormatName(Format format) { return NameIn(kFormats, format); }

absl::StatusOr<NumberType> NumberTypeFromName(absl::string_view name) {
  return ValueIn(kNumberTypes, absl::AsciiStrToLower(name));
}

absl::StatusOr<Strategy> StrategyFromName(absl::string_view name) {
  return ValueIn(kStrategies, absl::AsciiStrToLower(name));
}

absl::StatusOr<Format> FormatFromName(absl::string_view name) { return ValueIn(kFormats, name); }

absl::StatusOr<SparseFormat> SparseFormatFromName(absl::string_view name) {
  return ValueIn(kSparseFormats, name);
}

absl::StatusOr<ActOrder> ActOrderFromName(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  if (lower == "group" || lower == "dynamic") {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' was removed from the format, expected weight or static"));
  }
  return ValueIn(kActOrders, lower);
}

std::string NearestName(absl::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kMaxWord = 200;
  if (word.empty() || word.size() > kMaxWord) return "";
  const std::string lower = absl::AsciiStrToLower(word);
  std::string nearest;
  int best = std::max<int>(1, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kMaxWord) continue;
    const int distance = EditDistance(lower, absl::AsciiStrToLower(candidate));
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string DidYouMean(absl::string_view word, const std::vector<std::string>& candidates) {
  const std::string nearest = NearestName(word, candidates);
  return nearest.empty() ? "" : absl::StrCat(", did you mean '", nearest, "'?");
}

}  // namespace llmc
