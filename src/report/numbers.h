// Numbers as people read them, the same in the terminal and in the report.
// Sizes are FormatByteSize of llmc/byte_size.h.
#ifndef LLMC_SRC_REPORT_NUMBERS_H_
#define LLMC_SRC_REPORT_NUMBERS_H_

#include <cstdint>
#include <string>

namespace llmc {

// Seconds as "0.42 s", "12.3 s", "3 min 05 s", "2 h 07 min", "3 d 04 h".
std::string FormatDuration(double seconds);

// Seconds as a clock: "0:07", "12:34", "2:07:09".
std::string FormatClock(double seconds);

// A relative error: "0", "3.21e-03", "1.00"; "not finite" for NaN and infinity.
std::string FormatFraction(double value);

// 1234567 as "1,234,567".
std::string FormatCount(int64_t value);

// `value` with `digits` decimals, never in exponent form; "-" when not finite.
std::string FormatFixed(double value, int digits);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_NUMBERS_H_
