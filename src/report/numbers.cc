#include "report/numbers.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace llmc {
namespace {

// Beyond this a duration is nonsense and would overflow the integer forms.
constexpr double kLongestSeconds = 1e12;

int64_t WholeSeconds(double seconds) {
  return static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, kLongestSeconds)));
}

std::string ThreeDigits(double value) {
  if (value < 9.995) return absl::StrFormat("%.2f", value);
  return value < 99.95 ? absl::StrFormat("%.1f", value) : absl::StrFormat("%.0f", value);
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  seconds = std::max(seconds, 0.0);
  if (seconds < 9.995) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = WholeSeconds(seconds);
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  const int64_t minutes = (whole + 30) / 60;
  if (minutes < 1440) return absl::StrFormat("%d h %02d min", minutes / 60, minutes % 60);
  const int64_t hours = (minutes + 30) / 60;
  return absl::StrFormat("%d d %02d h", hours / 24, hours % 24);
}

std::string FormatClock(double seconds) {
  if (!std::isfinite(seconds)) return "-:--";
  const int64_t whole = WholeSeconds(seconds);
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string FormatFraction(double value) {
  if (!std::isfinite(value)) return "not finite";
  if (value == 0) return "0";
  const double magnitude = std::fabs(value);
  if (magnitude >= 0.9995 && magnitude < 1000) return ThreeDigits(value);
  return absl::StrFormat("%.2e", value);
}

std::string FormatCount(int64_t value) {
  std::string digits = absl::StrCat(value);
  const int first = value < 0 ? 1 : 0;
  for (int i = static_cast<int>(digits.size()) - 3; i > first; i -= 3) digits.insert(i, 1, ',');
  return digits;
}

std::string FormatFixed(double value, int digits) {
  if (!std::isfinite(value) || std::fabs(value) >= 1e15) return "-";
  return absl::StrFormat("%.*f", digits, value);
}

}  // namespace llmc
