#include "dataset/template_interpreter.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "dataset/template_arguments.h"

namespace llmc::dataset {
namespace {

// Blocks and calls that may be open; a macro that calls itself stops here.
constexpr int kMaxBlockDepth = 500;

// jinja2.sandbox.MAX_RANGE.
constexpr int64_t kMaxRange = 100000;

absl::StatusOr<Value> Range(const CallArguments& arguments, Meter* meter) {
  const size_t count = arguments.positional.size();
  if (count < 1 || count > 3) return absl::InvalidArgumentError("range: expected 1-3 integers");
  LLMC_ASSIGN_OR_RETURN(const int64_t first, IntegerArgument(arguments, 0, "start", 0));
  LLMC_ASSIGN_OR_RETURN(const int64_t second, IntegerArgument(arguments, 1, "stop", 0));
  LLMC_ASSIGN_OR_RETURN(const int64_t step, IntegerArgument(arguments, 2, "step", 1));
  if (step == 0) return absl::InvalidArgumentError("range: step 0");
  const int64_t start = count == 1 ? 0 : first;
  const int64_t stop = count == 1 ? first : second;
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return absl::InvalidArgumentError(absl::StrCat("range: more than ", kMaxRange, " numbers"));
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(items.size() * sizeof(Value))));
  return Value::MakeList(std::move(items));
}

absl::StatusOr<Value> RaiseException(const CallArguments& arguments) {
  LLMC_ASSIGN_OR_RETURN(const std::string message, TextArgument(arguments, 0, "message", ""));
  return absl::InvalidArgumentError(
      absl::StrCat("the template refuses the conversation: ", message.substr(0, 500)));
}

// 26 July 2024, a Friday.
absl::StatusOr<Value> FormatDate(const CallArguments& arguments) {
  LLMC_ASSIGN_OR_RETURN(const std::string format, RequiredText(arguments, 0, "format"));
  std::tm date = {};
  date.tm_year = 124;
  date.tm_mon = 6;
  date.tm_mday = 26;
  date.tm_wday = 5;
  date.tm_yday = 207;
  char text[256];
  const size_t size =
      format.size() > 100 ? 0 : std::strftime(text, sizeof(text), format.c_str(), &date);
  if (size == 0 && !format.empty()) {
    return absl::InvalidArgumentError("strftime_now: expected a short date format");
  }
  return Value(absl::string_view(text, size));
}

absl::StatusOr<Value> MakeDictFrom(const CallArguments& arguments) {
  std::vector<Entry> entries;
  for (const Value& source : arguments.positional) {
    if (!source.is_dict()) return absl::InvalidArgumentError("dict: expected a dict");
    entries.insert(entries.end(), source.entries().begin(), source.entries().end());
  }
  for (const auto& [name, value] : arguments.named) entries.emplace_back(Value(name), value);
  return Value::MakeDict(std::move(entries));
}

}  // namespace

const Value* Scope::Find(absl::string_view name) const {
  for (const auto& [known, value] : variables) {
    if (known == name) return &value;
  }
  return nullptr;
}

void Scope::Set(absl::string_view name, Value value) {
  for (auto& [known, old] : variables) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(std::string(name), std::move(value));
}

TemplateInterpreter::TemplateInterpreter(const TemplateLimits& limits) : meter_(limits) {}

TemplateInterpreter::~TemplateInterpreter() {
  for (const ScopePtr& scope : captured_) scope->variables.clear();
  for (const auto& held : namespaces_) held->attributes.clear();
}

absl::StatusOr<std::string> TemplateInterpreter::Run(const Block& program, const Value& variables) {
  const auto globals = std::make_shared<Scope>();
  SetGlobals(globals.get());
  for (const Entry& entry : variables.entries()) {
    if (entry.first.is_string()) globals->Set(entry.first.string(), entry.second);
  }
  const auto scope = std::make_shared<Scope>();
  scope->around = globals;
  std::string out;
  const auto flow = Execute(program, scope, &out);
  if (!flow.ok()) return flow.status();
  return out;
}

void TemplateInterpreter::SetGlobals(Scope* scope) {
  const auto set = [&](absl::string_view name, Callable call) {
    scope->Set(name, Value::MakeFunction(name, std::move(call)));
  };
  set("range", [this](const CallArguments& arguments) { return Range(arguments, &meter_); });
  set("namespace", [this](const CallArguments& arguments) { return MakeNamespace(arguments); });
  set("dict", MakeDictFrom);
  set("raise_exception", RaiseException);
  set("strftime_now", FormatDate);
}

TemplateInterpreter::Result TemplateInterpreter::MakeNamespace(const CallArguments& arguments) {
  LLMC_RETURN_IF_ERROR(meter_.Bytes(256));
  auto made = std::make_shared<Namespace>();
  namespaces_.push_back(made);
  LLMC_ASSIGN_OR_RETURN(const Value initial, MakeDictFrom(arguments));
  for (const Entry& entry : initial.entries()) {
    if (!entry.first.is_string()) return absl::InvalidArgumentError("namespace: expected names");
    made->attributes.emplace_back(entry.first.string(), entry.second);
  }
  return Value(std::move(made));
}

absl::Status TemplateInterpreter::Append(absl::string_view text, std::string* out) {
  LLMC_RETURN_IF_ERROR(meter_.Bytes(static_cast<int64_t>(text.size())));
  if (static_cast<int64_t>(out->size() + text.size()) > meter_.limits().max_output) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the template writes more than ", meter_.limits().max_output, " bytes"));
  }
  out->append(text.data(), text.size());
  return absl::OkStatus();
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const Block& block,
                                                                       const ScopePtr& scope,
                                                                       std::string* out) {
  if (depth_ >= kMaxBlockDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the template nests deeper than ", kMaxBlockDepth));
  }
  ++depth_;
  Flow flow = Flow::kNext;
  absl::Status status;
  for (const Statement& statement : block) {
    const auto result = ExecuteOne(statement, scope, out);
    status = result.status();
    if (result.ok()) flow = *result;
    if (!status.ok() || flow != Flow::kNext) break;
  }
  --depth_;
  if (!status.ok()) return status;
  return flow;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::ExecuteOne(
    const Statement& statement, const ScopePtr& scope, std::string* out) {
  LLMC_RETURN_IF_ERROR(meter_.Steps(1));
  switch (statement.kind) {
    case StatementKind::kText:
      LLMC_RETURN_IF_ERROR(Append(statement.text, out));
      break;
    case StatementKind::kOutput: {
      LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value, scope));
      LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, &meter_));
      LLMC_RETURN_IF_ERROR(Append(text, out));
      break;
    }
    case StatementKind::kIf: {
      LLMC_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.value, scope));
      return Execute(condition.truthy() ? statement.body : statement.otherwise, scope, out);
    }
    case StatementKind::kFor:
      return ExecuteLoop(statement, scope, out);
    case StatementKind::kSet:
      LLMC_RETURN_IF_ERROR(ExecuteSet(statement, scope));
      break;
    case StatementKind::kSetBlock:
      LLMC_RETURN_IF_ERROR(ExecuteSetBlock(statement, scope));
      break;
    case StatementKind::kMacro:
      // The scope stays until the end of the rendering.
      LLMC_RETURN_IF_ERROR(meter_.Bytes(2048));
      scope->Set(statement.text, MakeMacro(statement, scope));
      break;
    case StatementKind::kScope:
    case StatementKind::kWith:
      return ExecuteWith(statement, scope, out);
    case StatementKind::kFilter:
      LLMC_RETURN_IF_ERROR(ExecuteFilterBlock(statement, scope, out));
      break;
    case StatementKind::kCallBlock:
      LLMC_RETURN_IF_ERROR(ExecuteCallBlock(statement, scope, out));
      break;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<std::vector<Value>> TemplateInterpreter::LoopItems(const Statement& loop,
                                                                  const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value sequence, Evaluate(*loop.value, scope));
  auto items = Iterate(sequence, &meter_);
  if (!items.ok()) return At(absl::StrCat(loop.line), items.status());
  if (loop.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : *items) {
    const auto inner = std::make_shared<Scope>();
    inner->around = scope;
    LLMC_RETURN_IF_ERROR(Assign(loop.targets, item, inner.get()));
    LLMC_ASSIGN_OR_RETURN(const Value condition, Evaluate(*loop.condition, inner));
    if (condition.truthy()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::ExecuteLoop(const Statement& loop,
                                                                           const ScopePtr& scope,
                                                                           std::string* out) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, LoopItems(loop, scope));
  if (items.empty()) {
    const auto inner = std::make_shared<Scope>();
    inner->around = scope;
    return Execute(loop.otherwise, inner, out);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const auto inner = std::make_shared<Scope>();
    inner->around = scope;
    LLMC_RETURN_IF_ERROR(meter_.Steps(loop.uses_loop ? 20 : 5));
    if (loop.uses_loop) inner->Set("loop", MakeLoop(items, i));
    LLMC_RETURN_IF_ERROR(At(absl::StrCat(loop.line), Assign(loop.targets, items[i], inner.get())));
    LLMC_ASSIGN_OR_RETURN(const Flow flow, Execute(loop.body, inner, out));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Value TemplateInterpreter::MakeLoop(const std::vector<Value>& items, size_t index) {
  const auto at = static_cast<int64_t>(index);
  const auto length = static_cast<int64_t>(items.size());
  const auto cycle = [at](const CallArguments& arguments) -> absl::StatusOr<Value> {
    const auto& choices = arguments.positional;
    if (choices.empty()) return absl::InvalidArgumentError("loop.cycle: expected values");
    return choices[static_cast<size_t>(at) % choices.size()];
  };
  // Depths count the levels of recursive loops, which llmc does not run.
  return Value::MakeDict({
      {Value("index"), Value(at + 1)},
      {Value("index0"), Value(at)},
      {Value("first"), Value(at == 0)},
      {Value("last"), Value(at + 1 == length)},
      {Value("length"), Value(length)},
      {Value("revindex"), Value(length - at)},
      {Value("revindex0"), Value(length - at - 1)},
      {Value("depth"), Value(int64_t{1})},
      {Value("depth0"), Value(int64_t{0})},
      {Value("previtem"), index > 0 ? items[index - 1] : Value::MakeUndefined("previtem")},
      {Value("nextitem"),
       index + 1 < items.size() ? items[index + 1] : Value::MakeUndefined("nextitem")},
      {Value("cycle"), Value::MakeFunction("cycle", cycle)},
  });
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::ExecuteWith(const Statement& with,
                                                                           const ScopePtr& scope,
                                                                           std::string* out) {
  const auto inner = std::make_shared<Scope>();
  inner->around = scope;
  for (const Parameter& parameter : with.parameters) {
    LLMC_ASSIGN_OR_RETURN(Value value, Evaluate(*parameter.value, scope));
    inner->Set(parameter.name, std::move(value));
  }
  return Execute(with.body, inner, out);
}

absl::Status TemplateInterpreter::ExecuteSet(const Statement& set, const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value value, Evaluate(*set.value, scope));
  return At(absl::StrCat(set.line), Assign(set.targets, value, scope.get()));
}

absl::Status TemplateInterpreter::ExecuteSetBlock(const Statement& set, const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(const Value value, FilteredBlock(set, scope));
  return At(absl::StrCat(set.line), AssignOne(set.targets[0], value, scope.get()));
}

absl::Status TemplateInterpreter::ExecuteFilterBlock(const Statement& filter, const ScopePtr& scope,
                                                     std::string* out) {
  LLMC_ASSIGN_OR_RETURN(const Value value, FilteredBlock(filter, scope));
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(value, &meter_));
  return Append(text, out);
}

absl::StatusOr<Value> TemplateInterpreter::FilteredBlock(const Statement& statement,
                                                         const ScopePtr& scope) {
  LLMC_ASSIGN_OR_RETURN(std::string text, RenderBlock(statement.body, scope));
  if (statement.value == nullptr) return Value(std::move(text));
  block_values_.emplace_back(std::move(text));
  Result result = Evaluate(*statement.value, scope);
  block_values_.pop_back();
  return result;
}

absl::StatusOr<std::string> TemplateInterpreter::RenderBlock(const Block& block,
                                                             const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>();
  inner->around = scope;
  std::string text;
  const auto flow = Execute(block, inner, &text);
  if (!flow.ok()) return flow.status();
  return text;
}

absl::Status TemplateInterpreter::ExecuteCallBlock(const Statement& call, const ScopePtr& scope,
                                                   std::string* out) {
  LLMC_RETURN_IF_ERROR(meter_.Bytes(2048));
  LLMC_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.value->operands[0], scope));
  LLMC_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(*call.value, scope));
  if (!callee.is_function()) {
    return absl::InvalidArgumentError(absl::StrCat(call.line, ": call: expected a macro"));
  }
  arguments.named.emplace_back("caller", MakeMacro(call, scope));
  LLMC_ASSIGN_OR_RETURN(const Value result, callee.function().call(arguments));
  LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(result, &meter_));
  return Append(text, out);
}

absl::Status TemplateInterpreter::Assign(const std::vector<Target>& targets, const Value& value,
                                         Scope* scope) {
  if (targets.size() == 1) return AssignOne(targets[0], value, scope);
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, &meter_));
  if (items.size() != targets.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(items.size(), " values, expected ", targets.size(), " to unpack"));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    LLMC_RETURN_IF_ERROR(AssignOne(targets[i], items[i], scope));
  }
  return absl::OkStatus();
}

absl::Status TemplateInterpreter::AssignOne(const Target& target, const Value& value,
                                            Scope* scope) {
  if (target.attribute.empty()) {
    scope->Set(target.name, value);
    return absl::OkStatus();
  }
  const Value* object = nullptr;
  for (const Scope* at = scope; at != nullptr && object == nullptr; at = at->around.get()) {
    object = at->Find(target.name);
  }
  if (object == nullptr || !object->is_namespace()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot set ", target.name, ".",
                                                   target.attribute, ", expected a namespace()"));
  }
  for (auto& [name, old] : object->name_space().attributes) {
    if (name != target.attribute) continue;
    old = value;
    return absl::OkStatus();
  }
  object->name_space().attributes.emplace_back(target.attribute, value);
  return absl::OkStatus();
}

Value TemplateInterpreter::MakeMacro(const Statement& macro, const ScopePtr& scope) {
  captured_.push_back(scope);
  return Value::MakeFunction(macro.text, [this, &macro, scope](const CallArguments& arguments) {
    return CallMacro(macro, scope, arguments);
  });
}

TemplateInterpreter::Result TemplateInterpreter::CallMacro(const Statement& macro,
                                                           const ScopePtr& around,
                                                           const CallArguments& arguments) {
  LLMC_RETURN_IF_ERROR(meter_.Bytes(256));
  const auto scope = std::make_shared<Scope>();
  scope->around = around;
  if (arguments.positional.size() > macro.parameters.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("macro ", macro.text, ": ", arguments.positional.size(),
                     " arguments, expected at most ", macro.parameters.size()));
  }
  for (const auto& [name, value] : arguments.named) {
    const auto known =
        std::find_if(macro.parameters.begin(), macro.parameters.end(),
                     [&name = name](const Parameter& parameter) { return parameter.name == name; });
    if (known == macro.parameters.end() && name != "caller") {
      return absl::InvalidArgumentError(
          absl::StrCat("macro ", macro.text, ": no parameter named ", name));
    }
    if (name == "caller") scope->Set(name, value);
  }
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const Value* given = arguments.Get(i, parameter.name);
    Value value = Value::MakeUndefined(parameter.name);
    if (given != nullptr) {
      value = *given;
    } else if (parameter.value != nullptr) {
      LLMC_ASSIGN_OR_RETURN(value, Evaluate(*parameter.value, scope));
    }
    scope->Set(parameter.name, std::move(value));
  }
  std::string text;
  const auto flow = Execute(macro.body, scope, &text);
  if (!flow.ok()) return flow.status();
  return Value(std::move(text));
}

}  // namespace llmc::dataset
