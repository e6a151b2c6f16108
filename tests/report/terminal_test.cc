#include "report/terminal.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "report/numbers.h"

namespace llmc {
namespace {

TEST(EscapeForTerminal, PlainText_StaysAsItIs) {
  EXPECT_EQ(EscapeForTerminal("model.layers.3 – größe 模型"), "model.layers.3 – größe 模型");
}

TEST(EscapeForTerminal, ControlCharacters_BecomeVisible) {
  EXPECT_EQ(EscapeForTerminal("a\x1b[2Jb\r\n\t\x07\x7f"), "a\\x1b[2Jb\\r\\n\\t\\x07\\x7f");
  EXPECT_EQ(EscapeForTerminal(absl::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(EscapeForTerminal("\xc2\x9b"
                              "31m"),
            "\\x9b31m")
      << "the one-character CSI of C1";
}

TEST(EscapeForTerminal, DirectionAndInvisibleCharacters_BecomeVisible) {
  EXPECT_EQ(EscapeForTerminal("\xe2\x80\xae"), "\\u{202e}");
  EXPECT_EQ(EscapeForTerminal("a\xe2\x80\x8b"), "a\\u{200b}");
  EXPECT_EQ(EscapeForTerminal("\xe2\x80\xa8"), "\\u{2028}");
  EXPECT_EQ(EscapeForTerminal("\xef\xbb\xbf"), "\\u{feff}");
}

TEST(EscapeForTerminal, InvalidUtf8_BecomesBytes) {
  EXPECT_EQ(EscapeForTerminal("\xff"), "\\xff");
  EXPECT_EQ(EscapeForTerminal("\xc0\x80"), "\\xc0\\x80") << "overlong";
  EXPECT_EQ(EscapeForTerminal("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(EscapeForTerminal("\xe2\x82"), "\\xe2\\x82") << "cut off";
  EXPECT_EQ(EscapeForTerminal("\xf5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80") << "above U+10FFFF";
}

TEST(DisplayWidth, WideCombiningAndColoured_CountsColumns) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("模型"), 4);
  EXPECT_EQ(DisplayWidth("e\xcc\x81"), 1);
  EXPECT_EQ(DisplayWidth("\x1b[1;32mok\x1b[0m"), 2);
}

TEST(TruncateToWidth, TooLong_EndsInAnEllipsis) {
  EXPECT_EQ(TruncateToWidth("abcdef", 6, true), "abcdef");
  EXPECT_EQ(TruncateToWidth("abcdefg", 6, true), "abcde…");
  EXPECT_EQ(TruncateToWidth("abcdefg", 6, false), "abc...");
  EXPECT_EQ(TruncateToWidth("模型模型", 5, true), "模型…");
  EXPECT_EQ(TruncateToWidth("abc", 2, false), "ab");
}

TEST(ShortenMiddle, LongName_KeepsBothEnds) {
  const std::string name = "model.layers.11.mlp.experts.127.down_proj";
  const std::string text = ShortenMiddle(name, 20, true);
  EXPECT_EQ(DisplayWidth(text), 20);
  EXPECT_EQ(text, "model.…127.down_proj");
  EXPECT_EQ(ShortenMiddle("short", 20, true), "short");
}

class EnvironmentVariable {
 public:
  EnvironmentVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~EnvironmentVariable() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

TEST(DetectTerminal, NotATerminal_IsPlain) {
  const EnvironmentVariable columns("COLUMNS", "132");
  const Terminal terminal = DetectTerminal(-1, ColorMode::kAuto);
  EXPECT_FALSE(terminal.is_live);
  EXPECT_FALSE(terminal.color);
  EXPECT_EQ(terminal.columns, 132);
  EXPECT_TRUE(DetectTerminal(-1, ColorMode::kAlways).color);
}

TEST(DetectTerminal, ColumnsIsNonsense_TakesTheDefaultOrTheLimit) {
  const EnvironmentVariable columns("COLUMNS", "many");
  EXPECT_EQ(TerminalColumns(-1), 80);
  const EnvironmentVariable negative("COLUMNS", "-5");
  EXPECT_EQ(TerminalColumns(-1), 80);
  const EnvironmentVariable huge("COLUMNS", "2000000000");
  EXPECT_EQ(TerminalColumns(-1), 1000);
}

TEST(DetectTerminal, Locale_DecidesUnicode) {
  const EnvironmentVariable all("LC_ALL", "de_DE.UTF-8");
  EXPECT_TRUE(DetectTerminal(-1, ColorMode::kAuto).unicode);
  const EnvironmentVariable c("LC_ALL", "C");
  EXPECT_FALSE(DetectTerminal(-1, ColorMode::kAuto).unicode);
}

TEST(FormatDuration, AllSizes_ReadWell) {
  EXPECT_EQ(FormatDuration(0.4249), "0.42 s");
  EXPECT_EQ(FormatDuration(12.34), "12.3 s");
  EXPECT_EQ(FormatDuration(59.97), "1 min 00 s");
  EXPECT_EQ(FormatDuration(185), "3 min 05 s");
  EXPECT_EQ(FormatDuration(7620), "2 h 07 min");
  EXPECT_EQ(FormatDuration(273600), "3 d 04 h");
  EXPECT_EQ(FormatDuration(-1), "0.00 s");
  EXPECT_EQ(FormatDuration(NAN), "-");
  EXPECT_EQ(FormatDuration(1e300), "11574074 d 02 h");
}

TEST(FormatClock, AllSizes_ReadWell) {
  EXPECT_EQ(FormatClock(7), "0:07");
  EXPECT_EQ(FormatClock(754), "12:34");
  EXPECT_EQ(FormatClock(7629), "2:07:09");
  EXPECT_EQ(FormatClock(INFINITY), "-:--");
}

TEST(FormatFraction, AllSizes_ReadWell) {
  EXPECT_EQ(FormatFraction(0), "0");
  EXPECT_EQ(FormatFraction(0.003214), "3.21e-03");
  EXPECT_EQ(FormatFraction(0.99951), "1.00");
  EXPECT_EQ(FormatFraction(12.345), "12.3");
  EXPECT_EQ(FormatFraction(NAN), "not finite");
}

TEST(FormatCount, Thousands_AreSeparated) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
  EXPECT_EQ(FormatCount(-123), "-123");
}

}  // namespace
}  // namespace llmc
