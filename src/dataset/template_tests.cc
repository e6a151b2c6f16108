// Jinja's tests: `value is name(arguments)`.
#include <algorithm>
#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"
#include "dataset/template_builtins.h"

namespace llmc::dataset {
namespace {

using Predicate = bool (*)(const Value& value);
using PredicateTable = std::map<std::string, Predicate, std::less<>>;

// True when the text has a letter of this case and none of the other.
bool HasOnlyCase(const Value& value, bool upper) {
  if (!value.is_string()) return false;
  bool any = false;
  const std::string& text = value.string();
  for (size_t i = 0; i < text.size();) {
    const char32_t code = NextCodePoint(text, &i);
    if (upper ? IsLower(code) : IsUpper(code)) return false;
    any = any || (upper ? IsUpper(code) : IsLower(code));
  }
  return any;
}

bool IsSequence(const Value& value) {
  return value.is_string() || value.is_dict() || value.is_undefined() ||
         (value.is_list() && !value.is_generator());
}

const PredicateTable& Predicates() {
  static const PredicateTable kTable = {
      {"defined", [](const Value& v) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v) { return v.is_undefined(); }},
      {"none", [](const Value& v) { return v.is_none(); }},
      {"boolean", [](const Value& v) { return v.is_bool(); }},
      {"true", [](const Value& v) { return v.is_bool() && v.boolean(); }},
      {"false", [](const Value& v) { return v.is_bool() && !v.boolean(); }},
      {"integer", [](const Value& v) { return v.is_int(); }},
      {"float", [](const Value& v) { return v.is_float(); }},
      {"number", [](const Value& v) { return v.is_number(); }},
      {"string", [](const Value& v) { return v.is_string(); }},
      {"mapping", [](const Value& v) { return v.is_dict(); }},
      {"sequence", IsSequence},
      {"iterable", [](const Value& v) { return v.is_list() || IsSequence(v); }},
      {"callable", [](const Value& v) { return v.is_function(); }},
      {"lower", [](const Value& v) { return HasOnlyCase(v, false); }},
      {"upper", [](const Value& v) { return HasOnlyCase(v, true); }},
      {"escaped", [](const Value&) { return false; }},
  };
  return kTable;
}

const std::map<std::string, Operator, std::less<>>& Comparisons() {
  static const std::map<std::string, Operator, std::less<>> kTable = {
      {"eq", Operator::kEqual},        {"equalto", Operator::kEqual},
      {"==", Operator::kEqual},        {"ne", Operator::kNotEqual},
      {"!=", Operator::kNotEqual},     {"lt", Operator::kLess},
      {"lessthan", Operator::kLess},   {"<", Operator::kLess},
      {"le", Operator::kLessEqual},    {"<=", Operator::kLessEqual},
      {"gt", Operator::kGreater},      {"greaterthan", Operator::kGreater},
      {">", Operator::kGreater},       {"ge", Operator::kGreaterEqual},
      {">=", Operator::kGreaterEqual}, {"in", Operator::kIn},
  };
  return kTable;
}

absl::StatusOr<bool> IsDivisible(const Value& value, int64_t divisor) {
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_int() && !value.is_bool()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a divisibility test of ", value.type_name(), ", expected an integer"));
  }
  if (divisor == 0) return absl::InvalidArgumentError("division by zero");
  return divisor == -1 || value.integer() % divisor == 0;
}

// Jinja's `is sameas`: identity, which for immutable values is type and content.
bool Same(const Value& a, const Value& b) { return a.type_name() == b.type_name() && Equal(a, b); }

}  // namespace

bool IsTemplateTest(absl::string_view name) {
  const std::string key(name);
  return Predicates().count(key) > 0 || Comparisons().count(key) > 0 || key == "odd" ||
         key == "even" || key == "divisibleby" || key == "sameas" || key == "filter" ||
         key == "test";
}

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& value,
                               const CallArguments& arguments, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Touch(value));
  const std::string key(name);
  const auto predicate = Predicates().find(key);
  if (predicate != Predicates().end()) return predicate->second(value);
  if (key == "odd" || key == "even") {
    LLMC_ASSIGN_OR_RETURN(const bool even, IsDivisible(value, 2));
    return even == (key == "even");
  }
  if (key == "filter" || key == "test") {
    if (!value.is_string()) return false;
    return key == "filter" ? IsTemplateFilter(value.string()) : IsTemplateTest(value.string());
  }
  if (arguments.positional.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("test ", name, ": expected an argument"));
  }
  const Value& argument = arguments.positional[0];
  const auto comparison = Comparisons().find(key);
  if (comparison != Comparisons().end()) {
    return Compare(comparison->second, value, argument, meter);
  }
  if (key == "divisibleby") {
    if (!argument.is_int()) return absl::InvalidArgumentError("divisibleby: expected an integer");
    return IsDivisible(value, argument.integer());
  }
  if (key == "sameas") {
    LLMC_RETURN_IF_ERROR(meter->Steps(std::min(value.compare_cost(), argument.compare_cost())));
    return Same(value, argument);
  }
  return absl::InvalidArgumentError(absl::StrCat("no test named ", name));
}

}  // namespace llmc::dataset
