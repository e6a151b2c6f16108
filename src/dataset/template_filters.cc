// Jinja's filters: `value | name(arguments)`.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataset/json_text.h"
#include "dataset/python_text.h"
#include "dataset/template_arguments.h"
#include "dataset/template_builtins.h"
#include "dataset/template_sequence_filters.h"

namespace llmc::dataset {
namespace {

absl::StatusOr<Value> Made(std::string text, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(text.size())));
  return Value(std::move(text));
}

// Calls the method of str on the value as text.
absl::StatusOr<Value> AsTextMethod(const Value& value, const CallArguments& arguments,
                                   absl::string_view method, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(std::string text, ToText(value, meter));
  const Value self(std::move(text));
  return FindMethod(self, method, meter).function().call(arguments);
}

absl::StatusOr<Value> JinjaTitle(const Value& value, const CallArguments&, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, meter));
  std::string out;
  bool word_begins = true;
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const char32_t code = NextCodePoint(text, &i);
    const absl::string_view letter = absl::string_view(text).substr(start, i - start);
    out += word_begins ? Upper(letter) : Lower(letter);
    word_begins = IsPythonSpace(code) || code == '-' || code == '(' || code == '{' || code == '[' ||
                  code == '<';
  }
  return Made(std::move(out), meter);
}

absl::StatusOr<Value> Indent(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, meter));
  LLMC_ASSIGN_OR_RETURN(const bool first, BoolArgument(arguments, 1, "first", false));
  LLMC_ASSIGN_OR_RETURN(const bool blank, BoolArgument(arguments, 2, "blank", false));
  const Value* width = arguments.Get(0, "width");
  std::string indent(4, ' ');
  if (width != nullptr && width->is_string()) {
    indent = width->string();
  } else if (width != nullptr) {
    LLMC_ASSIGN_OR_RETURN(const int64_t spaces, IntegerArgument(arguments, 0, "width", 4));
    LLMC_RETURN_IF_ERROR(meter->Bytes(std::max<int64_t>(spaces, 0)));
    indent.assign(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' ');
  }
  // The added newline makes a trailing one count as a line.
  const std::vector<std::string> lines = SplitLines(absl::StrCat(text, "\n"), false);
  std::string out;
  if (first) out = indent;
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i > 0 && (blank || !lines[i].empty());
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(lines[i].size() + indent.size() + 1)));
    if (i > 0) out += '\n';
    if (indented) out += indent;
    out += lines[i];
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> ToJson(const Value& value, const CallArguments& arguments, Meter* meter) {
  JsonStyle style;
  LLMC_ASSIGN_OR_RETURN(style.ensure_ascii, BoolArgument(arguments, 0, "ensure_ascii", false));
  const Value* indent = arguments.Get(1, "indent");
  style.has_indent = indent != nullptr && !indent->is_none();
  if (style.has_indent) {
    style.item_separator = ",";
    if (indent->is_string()) {
      style.indent = indent->string();
    } else {
      LLMC_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(arguments, 1, "indent", 0));
      style.indent.assign(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' ');
    }
  }
  const Value* separators = arguments.Get(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    if (!separators->is_list() || separators->items().size() != 2 ||
        !separators->items()[0].is_string() || !separators->items()[1].is_string()) {
      return absl::InvalidArgumentError("tojson: expected separators to be two texts");
    }
    style.item_separator = separators->items()[0].string();
    style.key_separator = separators->items()[1].string();
  }
  LLMC_ASSIGN_OR_RETURN(style.sort_keys, BoolArgument(arguments, 3, "sort_keys", false));
  LLMC_RETURN_IF_ERROR(meter->Steps(value.compare_cost()));
  LLMC_ASSIGN_OR_RETURN(std::string text,
                        DumpJson(value, style, static_cast<size_t>(meter->limits().max_output)));
  return Made(std::move(text), meter);
}

absl::StatusOr<Value> Escape(const Value& value, const CallArguments&, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, meter));
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return Made(std::move(out), meter);
}

std::optional<double> ParseNumber(const Value& value) {
  if (value.is_number()) return value.number();
  double number = 0;
  if (value.is_string() && absl::SimpleAtod(Strip(value.string()), &number)) return number;
  return std::nullopt;
}

absl::StatusOr<Value> ToInteger(const Value& value, const CallArguments& arguments, Meter*) {
  const Value* given = arguments.Get(0, "default");
  const Value fallback = given == nullptr ? Value(int64_t{0}) : *given;
  LLMC_ASSIGN_OR_RETURN(const int64_t radix, IntegerArgument(arguments, 1, "base", 10));
  if (radix != 10) return absl::InvalidArgumentError("int: only base 10 is supported");
  if (value.is_int() || value.is_bool()) return Value(value.integer());
  int64_t integer = 0;
  if (value.is_string() && absl::SimpleAtoi(Strip(value.string()), &integer)) {
    return Value(integer);
  }
  const std::optional<double> number = ParseNumber(value);
  if (!number || !(std::fabs(*number) < 9e18)) return fallback;
  return Value(static_cast<int64_t>(*number));
}

absl::StatusOr<Value> ToFloat(const Value& value, const CallArguments& arguments, Meter*) {
  const Value* fallback = arguments.Get(0, "default");
  const std::optional<double> number = ParseNumber(value);
  if (number) return Value(*number);
  return fallback == nullptr ? Value(0.0) : *fallback;
}

absl::StatusOr<Value> Round(const Value& value, const CallArguments& arguments, Meter*) {
  LLMC_ASSIGN_OR_RETURN(const int64_t precision, IntegerArgument(arguments, 0, "precision", 0));
  LLMC_ASSIGN_OR_RETURN(const std::string method, TextArgument(arguments, 1, "method", "common"));
  if (!value.is_number()) return absl::InvalidArgumentError("round: expected a number");
  if (precision < 0 || precision > 15) {
    return absl::InvalidArgumentError("round: expected a precision from 0 to 15");
  }
  if (method == "common") {
    if (!value.is_float()) return Value(value.integer());
    // printf rounds the exact binary value half to even, as Python's round does.
    double rounded = 0;
    if (!absl::SimpleAtod(absl::StrFormat("%.*f", static_cast<int>(precision), value.floating()),
                          &rounded)) {
      return absl::InvalidArgumentError("round: not a number");
    }
    return Value(rounded);
  }
  if (method != "ceil" && method != "floor") {
    return absl::InvalidArgumentError("round: expected method common, ceil or floor");
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.number() * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

absl::StatusOr<Value> Absolute(const Value& value, const CallArguments&, Meter* meter) {
  if (value.is_float()) return Value(std::fabs(value.floating()));
  if (!value.is_number()) return absl::InvalidArgumentError("abs: expected a number");
  if (value.integer() >= 0) return Value(value.integer());
  return Arithmetic(Operator::kSubtract, Value(int64_t{0}), Value(value.integer()), meter);
}

absl::StatusOr<Value> Default(const Value& value, const CallArguments& arguments, Meter*) {
  LLMC_ASSIGN_OR_RETURN(const bool boolean, BoolArgument(arguments, 1, "boolean", false));
  if (!value.is_undefined() && !(boolean && !value.truthy())) return value;
  const Value* fallback = arguments.Get(0, "default_value");
  return fallback == nullptr ? Value("") : *fallback;
}

// One conversion of "text" % values.
absl::StatusOr<std::string> Convert(char conversion, const Value& value, Meter* meter) {
  if (conversion == 's') return ToText(value, meter);
  if (conversion == 'r') return ToRepr(value, meter);
  if (!value.is_number()) return absl::InvalidArgumentError("%d: expected a number");
  if (!value.is_float()) return absl::StrCat(value.integer());
  if (!(std::fabs(value.floating()) < 9e18)) return absl::InvalidArgumentError("%d: too large");
  return absl::StrCat(static_cast<int64_t>(value.floating()));
}

absl::StatusOr<Value> Format(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, meter));
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const char conversion = i + 1 < text.size() ? text[i + 1] : '\0';
    ++i;
    if (conversion == '%') {
      out += '%';
      continue;
    }
    if (absl::string_view("srdi").find(conversion) == absl::string_view::npos ||
        conversion == '\0') {
      return absl::InvalidArgumentError("format: expected %s, %r, %d, %i or %%");
    }
    if (next >= arguments.positional.size()) {
      return absl::InvalidArgumentError("format: not enough values");
    }
    LLMC_ASSIGN_OR_RETURN(const std::string converted,
                          Convert(conversion, arguments.positional[next++], meter));
    out += converted;
  }
  if (next < arguments.positional.size()) {
    return absl::InvalidArgumentError("format: not all values are used");
  }
  return Made(std::move(out), meter);
}

absl::StatusOr<Value> Attr(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string name, RequiredText(arguments, 0, "name"));
  return FindMethod(value, name, meter);
}

absl::StatusOr<Value> ReplaceFilter(const Value& value, const CallArguments& arguments,
                                    Meter* meter) {
  CallArguments texts = arguments;
  for (size_t i = 0; i < texts.positional.size() && i < 2; ++i) {
    LLMC_ASSIGN_OR_RETURN(std::string text, ToText(texts.positional[i], meter));
    texts.positional[i] = Value(std::move(text));
  }
  return AsTextMethod(value, texts, "replace", meter);
}

absl::StatusOr<Value> Center(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(arguments, 0, "width", 80));
  CallArguments columns;
  columns.positional.emplace_back(width);
  return AsTextMethod(value, columns, "center", meter);
}

absl::StatusOr<Value> Stringify(const Value& value, const CallArguments&, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(std::string text, ToText(value, meter));
  return Value(std::move(text));
}

// Nothing is escaped, so nothing has to be marked as safe.
absl::StatusOr<Value> Safe(const Value& value, const CallArguments&, Meter*) { return value; }

const FilterTable& ScalarFilters() {
  static const FilterTable kTable = {
      {"abs", Absolute},
      {"attr", Attr},
      {"capitalize", FixFilter(AsTextMethod, "capitalize")},
      {"center", Center},
      {"d", Default},
      {"default", Default},
      {"e", Escape},
      {"escape", Escape},
      {"float", ToFloat},
      {"format", Format},
      {"indent", Indent},
      {"int", ToInteger},
      {"lower", FixFilter(AsTextMethod, "lower")},
      {"replace", ReplaceFilter},
      {"round", Round},
      {"safe", Safe},
      {"string", Stringify},
      {"title", JinjaTitle},
      {"tojson", ToJson},
      {"trim", FixFilter(AsTextMethod, "strip")},
      {"upper", FixFilter(AsTextMethod, "upper")},
  };
  return kTable;
}

}  // namespace

bool IsTemplateFilter(absl::string_view name) {
  const std::string key(name);
  return ScalarFilters().count(key) > 0 || SequenceFilters().count(key) > 0;
}

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const CallArguments& arguments, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Touch(value));
  const std::string key(name);
  const auto scalar = ScalarFilters().find(key);
  if (scalar != ScalarFilters().end()) return scalar->second(value, arguments, meter);
  const auto sequence = SequenceFilters().find(key);
  if (sequence != SequenceFilters().end()) return sequence->second(value, arguments, meter);
  return absl::InvalidArgumentError(absl::StrCat("no filter named ", name));
}

}  // namespace llmc::dataset
