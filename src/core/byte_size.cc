#include "llmc/byte_size.h"

#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace llmc {
namespace {

constexpr std::array<std::pair<const char*, double>, 10> kUnits = {{
    {"", 1.0},
    {"b", 1.0},
    {"kb", 1e3},
    {"mb", 1e6},
    {"gb", 1e9},
    {"tb", 1e12},
    {"kib", 1024.0},
    {"mib", 1024.0 * 1024},
    {"gib", 1024.0 * 1024 * 1024},
    {"tib", 1024.0 * 1024 * 1024 * 1024},
}};

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  const size_t end = text.find_first_not_of("0123456789.");
  const absl::string_view digits = text.substr(0, end);
  const absl::string_view rest = end == absl::string_view::npos ? "" : text.substr(end);
  const std::string unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(rest));
  double number = 0;
  if (absl::SimpleAtod(digits, &number)) {
    for (const auto& [name, factor] : kUnits) {
      const double bytes = number * factor;
      if (unit == name && bytes >= 1 && bytes <= std::ldexp(1.0, 62)) {
        return static_cast<int64_t>(bytes);
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not a size, expected one such as 24GiB, 5GB or 4096"));
}

std::string FormatByteSize(int64_t bytes) {
  constexpr std::array<const char*, 6> kNames = {"B", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kNames.size()) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return absl::StrFormat("%.*f %s", decimals, value, kNames[unit]);
}

}  // namespace llmc
