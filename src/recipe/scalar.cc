#include "recipe/scalar.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace llmc {
namespace {

bool IsNull(absl::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::optional<bool> AsBool(absl::string_view text) {
  static const std::set<std::string> kTrue = {"yes",  "Yes", "YES", "true", "True",
                                              "TRUE", "on",  "On",  "ON"};
  static const std::set<std::string> kFalse = {"no",    "No",  "NO",  "false", "False",
                                               "FALSE", "off", "Off", "OFF"};
  const std::string word(text);
  if (kTrue.count(word) > 0) return true;
  if (kFalse.count(word) > 0) return false;
  return std::nullopt;
}

bool AllOf(absl::string_view text, absl::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == absl::string_view::npos;
}

// Digits of the base that the prefix names: 0x, 0b, 0 (octal) or none.
std::optional<int64_t> AsInt(absl::string_view text) {
  absl::string_view digits = text;
  const bool negative = absl::ConsumePrefix(&digits, "-");
  if (!negative) absl::ConsumePrefix(&digits, "+");
  int base = 10;
  absl::string_view allowed = "0123456789_";
  if (absl::ConsumePrefix(&digits, "0x")) {
    base = 16;
    allowed = "0123456789abcdefABCDEF_";
  } else if (absl::ConsumePrefix(&digits, "0b")) {
    base = 2;
    allowed = "01_";
  } else if (digits.size() > 1 && digits[0] == '0') {
    base = 8;
    allowed = "01234567_";
  }
  if (!AllOf(digits, allowed) || digits[0] == '_') return std::nullopt;
  std::string plain(digits);
  plain.erase(std::remove(plain.begin(), plain.end(), '_'), plain.end());
  errno = 0;
  const long long value = std::strtoll(plain.c_str(), nullptr, base);
  if (errno != 0) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> AsFloat(absl::string_view text) {
  absl::string_view body = text;
  const bool negative = absl::ConsumePrefix(&body, "-");
  if (!negative) absl::ConsumePrefix(&body, "+");
  const std::string lower = absl::AsciiStrToLower(body);
  const double sign = negative ? -1.0 : 1.0;
  if (lower == ".inf") return sign * std::numeric_limits<double>::infinity();
  if (text.size() == 4 && lower == ".nan") return std::numeric_limits<double>::quiet_NaN();
  const bool starts_well =
      !body.empty() && (absl::ascii_isdigit(body[0]) ||
                        (body.size() > 1 && body[0] == '.' && absl::ascii_isdigit(body[1])));
  if (!starts_well || !AllOf(body, "0123456789.eE+-_")) return std::nullopt;
  if (body.find_first_of(".eE") == absl::string_view::npos) return std::nullopt;
  std::string plain(text);
  plain.erase(std::remove(plain.begin(), plain.end(), '_'), plain.end());
  double value = 0;
  if (!absl::SimpleAtod(plain, &value)) return std::nullopt;
  return value;
}

}  // namespace

ScalarType ResolveScalar(absl::string_view text) {
  if (IsNull(text)) return ScalarType::kNull;
  if (AsBool(text)) return ScalarType::kBool;
  if (AsInt(text)) return ScalarType::kInt;
  return AsFloat(text) ? ScalarType::kFloat : ScalarType::kString;
}

nlohmann::json ScalarToJson(absl::string_view text) {
  if (IsNull(text)) return nullptr;
  if (const std::optional<bool> value = AsBool(text)) return *value;
  if (const std::optional<int64_t> value = AsInt(text)) return *value;
  if (const std::optional<double> value = AsFloat(text)) return *value;
  return std::string(text);
}

}  // namespace llmc
