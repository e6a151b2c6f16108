// The expressions of TemplateInterpreter.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"
#include "dataset/template_interpreter.h"

namespace llmc::dataset {
namespace {

// Nesting of evaluations: an expression in a macro in a loop ... Each takes some
// hundred bytes of stack.
constexpr int kMaxEvaluationDepth = 600;

// Levels of lists in lists; values are walked recursively.
constexpr int kMaxValueDepth = 200;

absl::StatusOr<std::optional<int64_t>> SliceBound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_int() || value.is_bool()) return std::optional<int64_t>(value.integer());
  return absl::InvalidArgumentError(
      absl::StrCat("a slice bound is ", value.type_name(), ", expected an integer"));
}

absl::StatusOr<Value> Slice(const Value& value, const SliceBounds& bounds, Meter* meter) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_string()) {
    const int64_t size = static_cast<int64_t>(value.string().size());
    LLMC_RETURN_IF_ERROR(meter->Bytes(size * 5));
    const std::u32string codes = ToCodePoints(value.string());
    std::u32string picked;
    for (const int64_t i : SliceIndices(bounds, static_cast<int64_t>(codes.size()))) {
      picked.push_back(codes[static_cast<size_t>(i)]);
    }
    return Value(ToUtf8(picked));
  }
  if (!value.is_list() || value.is_generator()) {
    return Value::MakeUndefined(absl::StrCat("slice of a ", value.type_name()));
  }
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(value.items().size() * sizeof(Value))));
  std::vector<Value> picked;
  for (const int64_t i : SliceIndices(bounds, static_cast<int64_t>(value.items().size()))) {
    picked.push_back(value.items()[static_cast<size_t>(i)]);
  }
  return Value::MakeList(std::move(picked), value.list_kind());
}

bool IsRuntimeLimit(const absl::Status& status) {
  return status.code() == absl::StatusCode::kResourceExhausted;
}

// Errors carry the line of the innermost expression only.
absl::Status AtLine(int line, const absl::Status& status) {
  const absl::string_view message = status.message();
  const size_t digits = message.find_first_not_of("0123456789");
  const bool located =
      digits != 0 && digits != absl::string_view::npos && message.substr(digits, 2) == ": ";
  return located || IsRuntimeLimit(status) ? status : At(absl::StrCat(line), status);
}

}  // namespace

TemplateInterpreter::Result TemplateInterpreter::Evaluate(const Expression& expression,
                                                          const ScopePtr& scope) {
  LLMC_RETURN_IF_ERROR(meter_.Steps(1));
  if (depth_ >= kMaxEvaluationDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat(expression.line, ": the template nests deeper than ", kMaxEvaluationDepth));
  }
  ++depth_;
  Result result = EvaluateKind(expression, scope);
  --depth_;
  if (!result.ok()) return AtLine(expression.line, result.status());
  if (result->depth() > kMaxValueDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat(expression.line, ": a value is nested deeper than ", kMaxValueDepth));
  }
  return result;
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateKind(const Expression& expression,
                                                              const ScopePtr& scope) {
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      return expression.constant;
    case ExpressionKind::kName:
      return EvaluateName(expression, scope);
    case ExpressionKind::kList:
      return EvaluateList(expression, ListKind::kList, scope);
    case ExpressionKind::kTuple:
      return EvaluateList(expression, ListKind::kTuple, scope);
    case ExpressionKind::kDict:
      return EvaluateDict(expression, scope);
    case ExpressionKind::kAttribute: {
      LLMC_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0], scope));
      return GetAttribute(object, expression.text, &meter_);
    }
    case ExpressionKind::kSubscript: {
      LLMC_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0], scope));
      LLMC_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.operands[1], scope));
      return GetItem(object, key, &meter_);
    }
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression, scope);
    case ExpressionKind::kCall:
      return EvaluateCall(expression, scope);
    case ExpressionKind::kFilter:
      return EvaluateFilter(expression, scope);
    case ExpressionKind::kTest:
      return EvaluateTest(expression, scope);
    case ExpressionKind::kNegative:
    case ExpressionKind::kPositive:
      return EvaluateSign(expression, scope);
    case ExpressionKind::kNot:
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
      return EvaluateLogic(expression, scope);
    case ExpressionKind::kBinary: {
      LLMC_ASSIGN_OR_RETURN(const Value a, Evaluate(*expression.operands[0], scope));
      LLMC_ASSIGN_OR_RETURN(const Value b, Evaluate(*expression.operands[1], scope));
      return Arithmetic(expression.operators[0], a, b, &meter_);
    }
    case ExpressionKind::kConcat:
      return EvaluateConcat(expression, scope);
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression, scope);
    case ExpressionKind::kConditional:
      return EvaluateConditional(expression, scope);
  }
  return absl::InternalError("unknown kind of expression");
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateName(const Expression& expression,
                                                              const ScopePtr& scope) {
  if (expression.text.empty() && !block_values_.empty()) return block_values_.back();
  for (const Scope* at = scope.get(); at != nullptr; at = at->around.get()) {
    LLMC_RETURN_IF_ERROR(meter_.Steps(static_cast<int64_t>(at->variables.size() / 32)));
    if (const Value* value = at->Find(expression.text)) return *value;
  }
  return Value::MakeUndefined(expression.text);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateList(const Expression& expression,
                                                              ListKind kind,
                                                              const ScopePtr& scope) {
  LLMC_RETURN_IF_ERROR(
      meter_.Bytes(static_cast<int64_t>(expression.operands.size() * sizeof(Value))));
  std::vector<Value> items;
  items.reserve(expression.operands.size());
  for (const ExpressionPtr& operand : expression.operands) {
    LLMC_ASSIGN_OR_RETURN(Value item, Evaluate(*operand, scope));
    items.push_back(std::move(item));
  }
  return Value::MakeList(std::move(items), kind);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateDict(const Expression& expression,
                                                              const ScopePtr& scope) {
  LLMC_RETURN_IF_ERROR(
      meter_.Bytes(static_cast<int64_t>(expression.operands.size() * sizeof(Value))));
  std::vector<Entry> entries;
  int64_t other_keys = 0;
  for (size_t i = 0; i + 1 < expression.operands.size(); i += 2) {
    LLMC_ASSIGN_OR_RETURN(Value key, Evaluate(*expression.operands[i], scope));
    if (key.is_list() || key.is_dict()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a dict key is ", key.type_name(), ", expected text or a number"));
    }
    // Keys that are no text are compared one by one.
    if (!key.is_string()) LLMC_RETURN_IF_ERROR(meter_.Steps(++other_keys));
    LLMC_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1], scope));
    entries.emplace_back(std::move(key), std::move(value));
  }
  return Value::MakeDict(std::move(entries));
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateSlice(const Expression& expression,
                                                               const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0], scope));
  std::optional<int64_t> parts[3];
  for (size_t i = 0; i < 3; ++i) {
    const ExpressionPtr& operand = expression.operands[i + 1];
    if (operand == nullptr) continue;
    LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*operand, scope));
    LLMC_ASSIGN_OR_RETURN(parts[i], SliceBound(value));
  }
  const SliceBounds bounds = {parts[0], parts[1], parts[2].value_or(1)};
  if (bounds.step == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  return Slice(object, bounds, &meter_);
}

absl::StatusOr<CallArguments> TemplateInterpreter::EvaluateArguments(const Expression& expression,
                                                                     const ScopePtr& scope) {
  CallArguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i], scope));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, operand] : expression.named) {
    LLMC_ASSIGN_OR_RETURN(Value value, Evaluate(*operand, scope));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateCall(const Expression& expression,
                                                              const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expression.operands[0], scope));
  LLMC_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression, scope));
  if (callee.is_undefined()) return UndefinedError(callee);
  if (callee.is_function()) return callee.function().call(arguments);
  return absl::InvalidArgumentError(absl::StrCat("a ", callee.type_name(), " cannot be called"));
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateFilter(const Expression& expression,
                                                                const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
  LLMC_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression, scope));
  return ApplyFilter(expression.text, value, arguments, &meter_);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateTest(const Expression& expression,
                                                              const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
  LLMC_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression, scope));
  LLMC_ASSIGN_OR_RETURN(const bool holds, ApplyTest(expression.text, value, arguments, &meter_));
  return Value(holds);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateSign(const Expression& expression,
                                                              const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
  if (!value.is_undefined() && !value.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat("a sign before a ", value.type_name()));
  }
  const bool negative = expression.kind == ExpressionKind::kNegative;
  if (negative && value.is_float()) return Value(-value.floating());
  return Arithmetic(negative ? Operator::kSubtract : Operator::kAdd, Value(int64_t{0}), value,
                    &meter_);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateLogic(const Expression& expression,
                                                               const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(Value first, Evaluate(*expression.operands[0], scope));
  if (expression.kind == ExpressionKind::kNot) return Value(!first.truthy());
  if (first.truthy() == (expression.kind == ExpressionKind::kOr)) return first;
  return Evaluate(*expression.operands[1], scope);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateConcat(const Expression& expression,
                                                                const ScopePtr& scope) {
  std::string out;
  for (const ExpressionPtr& operand : expression.operands) {
    LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*operand, scope));
    LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, &meter_));
    out += text;
  }
  return Value(std::move(out));
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateCompare(const Expression& expression,
                                                                 const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0], scope));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1], scope));
    LLMC_ASSIGN_OR_RETURN(const bool holds, Compare(expression.operators[i], left, right, &meter_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

TemplateInterpreter::Result TemplateInterpreter::EvaluateConditional(const Expression& expression,
                                                                     const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[1], scope));
  if (condition.truthy()) return Evaluate(*expression.operands[0], scope);
  if (expression.operands[2] != nullptr) return Evaluate(*expression.operands[2], scope);
  return Value::MakeUndefined("the value of an inline if without else");
}

}  // namespace llmc::dataset
