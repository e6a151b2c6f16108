// Python's operations on the values of a template.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "dataset/json_text.h"
#include "dataset/python_text.h"
#include "dataset/template_builtins.h"

namespace llmc::dataset {
namespace {

absl::Status TypeError(absl::string_view what, const Value& a, const Value& b) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " of ", a.type_name(), " and ", b.type_name()));
}

absl::Status TooLarge() {
  return absl::InvalidArgumentError("an integer is beyond 64 bits, expected a smaller one");
}

class ReprWriter {
 public:
  explicit ReprWriter(Meter* meter) : meter_(meter) {}

  absl::Status Write(const Value& value) {
    LLMC_RETURN_IF_ERROR(meter_->Steps(1));
    if (value.is_list()) return WriteList(value);
    if (value.is_dict()) return WriteDict(value);
    std::string text = Scalar(value);
    LLMC_RETURN_IF_ERROR(meter_->Bytes(static_cast<int64_t>(text.size())));
    out += text;
    return absl::OkStatus();
  }

  std::string out;

 private:
  static std::string Scalar(const Value& value) {
    if (value.is_none()) return "None";
    if (value.is_undefined()) return "Undefined";
    if (value.is_bool()) return value.boolean() ? "True" : "False";
    if (value.is_int()) return absl::StrCat(value.integer());
    if (value.is_float()) return FloatRepr(value.floating());
    if (value.is_string()) return StringRepr(value.string());
    return absl::StrCat("<", value.type_name(), ">");
  }

  absl::Status WriteList(const Value& value) {
    out += value.is_tuple() ? '(' : '[';
    for (size_t i = 0; i < value.items().size(); ++i) {
      if (i > 0) out += ", ";
      LLMC_RETURN_IF_ERROR(Write(value.items()[i]));
    }
    if (value.is_tuple() && value.items().size() == 1) out += ',';
    out += value.is_tuple() ? ')' : ']';
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Value& value) {
    out += '{';
    bool first = true;
    for (const Entry& entry : value.entries()) {
      if (!first) out += ", ";
      first = false;
      LLMC_RETURN_IF_ERROR(Write(entry.first));
      out += ": ";
      LLMC_RETURN_IF_ERROR(Write(entry.second));
    }
    out += '}';
    return absl::OkStatus();
  }

  Meter* meter_;
};

absl::StatusOr<Value> IntegerArithmetic(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return TooLarge();
      return Value(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return TooLarge();
      return Value(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return TooLarge();
      return Value(result);
    default:
      break;
  }
  // Division: Python rounds the quotient down.
  if (b == -1)
    return op == Operator::kModulo ? Value(int64_t{0})
                                   : IntegerArithmetic(Operator::kSubtract, 0, a);
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return Value(op == Operator::kModulo ? remainder : quotient);
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value(std::pow(static_cast<double>(base), exponent));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return TooLarge();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return TooLarge();
  }
  return Value(result);
}

double FloatModulo(double a, double b) {
  const double remainder = std::fmod(a, b);
  return remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

absl::StatusOr<Value> FloatArithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSubtract:
      return Value(a - b);
    case Operator::kMultiply:
      return Value(a * b);
    case Operator::kDivide:
      return Value(a / b);
    case Operator::kFloorDivide:
      return Value(std::floor((a - FloatModulo(a, b)) / b + 0.5));
    case Operator::kModulo:
      return Value(FloatModulo(a, b));
    default:
      return Value(std::pow(a, b));
  }
}

absl::StatusOr<Value> NumberArithmetic(Operator op, const Value& a, const Value& b) {
  const bool divides =
      op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo;
  if (divides && b.number() == 0) return absl::InvalidArgumentError("division by zero");
  const bool floats = a.is_float() || b.is_float() || op == Operator::kDivide;
  if (floats) return FloatArithmetic(op, a.number(), b.number());
  if (op == Operator::kPower) return IntegerPower(a.integer(), b.integer());
  return IntegerArithmetic(op, a.integer(), b.integer());
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count, Meter* meter) {
  const int64_t times = std::max<int64_t>(count, 0);
  const int64_t unit = value.is_string()
                           ? static_cast<int64_t>(value.string().size())
                           : static_cast<int64_t>(value.items().size() * sizeof(Value));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(unit, times, &bytes)) bytes = std::numeric_limits<int64_t>::max();
  LLMC_RETURN_IF_ERROR(meter->Bytes(bytes));
  if (unit == 0) return value;
  if (value.is_string()) {
    std::string text;
    text.reserve(static_cast<size_t>(bytes));
    for (int64_t i = 0; i < times; ++i) text += value.string();
    return Value(std::move(text));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.items().begin(), value.items().end());
  }
  return Value::MakeList(std::move(items), value.list_kind());
}

absl::StatusOr<Value> Concatenate(const Value& a, const Value& b, Meter* meter) {
  if (a.is_string() && b.is_string()) {
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(a.string().size() + b.string().size())));
    return Value(a.string() + b.string());
  }
  const bool lists = a.is_list() && b.is_list() && a.list_kind() == b.list_kind();
  if (!lists || a.is_generator()) return TypeError("addition", a, b);
  LLMC_RETURN_IF_ERROR(
      meter->Bytes(static_cast<int64_t>((a.items().size() + b.items().size()) * sizeof(Value))));
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return Value::MakeList(std::move(items), a.list_kind());
}

bool IsSequence(const Value& value) {
  return value.is_string() || (value.is_list() && !value.is_generator());
}

bool IsWholeNumber(const Value& value) { return value.is_int() || value.is_bool(); }

template <typename T>
bool Ordered(Operator op, const T& a, const T& b) {
  switch (op) {
    case Operator::kLess:
      return a < b;
    case Operator::kLessEqual:
      return a <= b;
    case Operator::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

absl::StatusOr<bool> Order(Operator op, const Value& a, const Value& b, Meter* meter) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return Ordered(op, a.number(), b.number());
    return Ordered(op, a.integer(), b.integer());
  }
  // The order of UTF-8 bytes is that of code points.
  if (a.is_string() && b.is_string()) {
    LLMC_RETURN_IF_ERROR(meter->Steps(std::min(a.compare_cost(), b.compare_cost())));
    return Ordered(op, a.string(), b.string());
  }
  if (!a.is_list() || !b.is_list() || a.list_kind() != b.list_kind()) {
    return TypeError("comparison", a, b);
  }
  const size_t shared = std::min(a.items().size(), b.items().size());
  for (size_t i = 0; i < shared; ++i) {
    LLMC_RETURN_IF_ERROR(
        meter->Steps(std::min(a.items()[i].compare_cost(), b.items()[i].compare_cost())));
    if (!Equal(a.items()[i], b.items()[i])) return Order(op, a.items()[i], b.items()[i], meter);
  }
  return Ordered(op, a.items().size(), b.items().size());
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Meter* meter) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (item.is_undefined()) return UndefinedError(item);
    if (!item.is_string()) return TypeError("\"in\"", item, container);
    LLMC_RETURN_IF_ERROR(meter->Steps(static_cast<int64_t>(container.string().size() / 64)));
    return FindText(container.string(), item.string()) != absl::string_view::npos;
  }
  if (container.is_dict()) {
    LLMC_RETURN_IF_ERROR(
        meter->Steps(static_cast<int64_t>(container.entries().size() / 8) + item.compare_cost()));
    for (const Entry& entry : container.entries()) {
      if (Equal(entry.first, item)) return true;
    }
    return false;
  }
  if (!container.is_list()) return TypeError("\"in\"", item, container);
  for (const Value& candidate : container.items()) {
    LLMC_RETURN_IF_ERROR(meter->Steps(std::min(candidate.compare_cost(), item.compare_cost())));
    if (Equal(candidate, item)) return true;
  }
  return false;
}

absl::StatusOr<Value> CodePointAt(const std::string& text, int64_t index, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Steps(static_cast<int64_t>(text.size() / 64)));
  const int64_t length = CodePointCount(text);
  const int64_t at = index < 0 ? index + length : index;
  if (at < 0 || at >= length) return Value::MakeUndefined(absl::StrCat(index));
  size_t position = 0;
  for (int64_t i = 0; i < at; ++i) NextCodePoint(text, &position);
  const size_t start = position;
  NextCodePoint(text, &position);
  return Value(text.substr(start, position - start));
}

}  // namespace

absl::Status Meter::Steps(int64_t count) {
  steps_ += count;
  if (steps_ <= limits_.max_steps) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the template takes more than ", limits_.max_steps, " steps"));
}

absl::Status Meter::Bytes(int64_t count) {
  if (count > limits_.max_bytes - bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the template makes more than ", limits_.max_bytes, " bytes of values"));
  }
  bytes_ += count;
  return Steps(count / 64);
}

absl::Status Meter::Touch(const Value& value) {
  if (value.is_string()) return Steps(value.compare_cost());
  if (value.is_list()) return Steps(static_cast<int64_t>(value.items().size() / 16) + 1);
  if (value.is_dict()) return Steps(static_cast<int64_t>(value.entries().size() / 16) + 1);
  return Steps(1);
}

absl::Status UndefinedError(const Value& value) {
  return absl::InvalidArgumentError(absl::StrCat("'", value.undefined_name(), "' is undefined"));
}

absl::StatusOr<std::string> ToText(const Value& value, Meter* meter) {
  if (value.is_string()) {
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(value.string().size())));
    return value.string();
  }
  if (value.is_undefined()) return "";
  return ToRepr(value, meter);
}

absl::StatusOr<std::string> ToRepr(const Value& value, Meter* meter) {
  ReprWriter writer(meter);
  LLMC_RETURN_IF_ERROR(writer.Write(value));
  return std::move(writer.out);
}

absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Meter* meter) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is_list()) {
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(value.items().size() * sizeof(Value))));
    return value.items();
  }
  if (value.is_dict()) {
    LLMC_RETURN_IF_ERROR(
        meter->Bytes(static_cast<int64_t>(value.entries().size() * sizeof(Value))));
    for (const Entry& entry : value.entries()) items.push_back(entry.first);
    return items;
  }
  if (!value.is_string()) {
    return absl::InvalidArgumentError(absl::StrCat("a ", value.type_name(), " is not iterable"));
  }
  const std::string& text = value.string();
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(text.size() * 3 * sizeof(Value))));
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    NextCodePoint(text, &i);
    items.emplace_back(text.substr(start, i - start));
  }
  return items;
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return CodePointCount(value.string());
  if (value.is_dict()) return static_cast<int64_t>(value.entries().size());
  if (value.is_list() && !value.is_generator()) return static_cast<int64_t>(value.items().size());
  return absl::InvalidArgumentError(absl::StrCat("a ", value.type_name(), " has no length"));
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Meter* meter) {
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_dict()) {
    LLMC_RETURN_IF_ERROR(
        meter->Steps(static_cast<int64_t>(object.entries().size() / 16) + key.compare_cost()));
    for (const Entry& entry : object.entries()) {
      if (Equal(entry.first, key)) return entry.second;
    }
  }
  if (object.is_namespace() && key.is_string()) {
    for (const auto& attribute : object.name_space().attributes) {
      if (attribute.first == key.string()) return attribute.second;
    }
  }
  if (IsWholeNumber(key) && object.is_string()) {
    return CodePointAt(object.string(), key.integer(), meter);
  }
  if (IsWholeNumber(key) && object.is_list() && !object.is_generator()) {
    const auto length = static_cast<int64_t>(object.items().size());
    const int64_t at = key.integer() < 0 ? key.integer() + length : key.integer();
    if (at >= 0 && at < length) return object.items()[static_cast<size_t>(at)];
  }
  if (key.is_string()) return FindMethod(object, key.string(), meter);
  return Value::MakeUndefined(absl::StrCat("item of a ", object.type_name()));
}

absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name, Meter* meter) {
  if (object.is_undefined()) return UndefinedError(object);
  Value method = FindMethod(object, name, meter);
  if (!method.is_undefined()) return method;
  return GetItem(object, Value(name), meter);
}

absl::StatusOr<Value> Arithmetic(Operator op, const Value& a, const Value& b, Meter* meter) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_number() && b.is_number()) return NumberArithmetic(op, a, b);
  if (op == Operator::kAdd) return Concatenate(a, b, meter);
  if (op == Operator::kMultiply && IsSequence(a) && IsWholeNumber(b)) {
    return Repeat(a, b.integer(), meter);
  }
  if (op == Operator::kMultiply && IsWholeNumber(a) && IsSequence(b)) {
    return Repeat(b, a.integer(), meter);
  }
  if (op == Operator::kModulo && a.is_string()) {
    CallArguments arguments;
    if (b.is_tuple()) {
      arguments.positional = b.items();
    } else {
      arguments.positional.push_back(b);
    }
    return ApplyFilter("format", a, arguments, meter);
  }
  return TypeError("arithmetic", a, b);
}

absl::StatusOr<bool> Compare(Operator op, const Value& a, const Value& b, Meter* meter) {
  switch (op) {
    case Operator::kEqual:
    case Operator::kNotEqual: {
      LLMC_RETURN_IF_ERROR(meter->Steps(std::min(a.compare_cost(), b.compare_cost())));
      return Equal(a, b) == (op == Operator::kEqual);
    }
    case Operator::kIn:
      return Contains(b, a, meter);
    case Operator::kNotIn: {
      LLMC_ASSIGN_OR_RETURN(const bool found, Contains(b, a, meter));
      return !found;
    }
    default:
      return Order(op, a, b, meter);
  }
}

}  // namespace llmc::dataset
