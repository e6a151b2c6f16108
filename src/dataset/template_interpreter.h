// Runs a parsed template.
#ifndef LLMC_DATASET_TEMPLATE_INTERPRETER_H_
#define LLMC_DATASET_TEMPLATE_INTERPRETER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataset/template_ast.h"
#include "dataset/template_builtins.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// Variables of one scope; lookups go on in the scope around it.
struct Scope {
  std::vector<std::pair<std::string, Value>> variables;
  std::shared_ptr<Scope> around;

  const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
};

// One rendering; used once.
class TemplateInterpreter {
 public:
  // `limits` bounds the whole rendering.
  explicit TemplateInterpreter(const TemplateLimits& limits);
  ~TemplateInterpreter();
  TemplateInterpreter(const TemplateInterpreter&) = delete;
  TemplateInterpreter& operator=(const TemplateInterpreter&) = delete;

  // The output of `program` with `variables` (a dict of name to value) set. Errors
  // read "line: what".
  absl::StatusOr<std::string> Run(const Block& program, const Value& variables);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  using Result = absl::StatusOr<Value>;
  using ScopePtr = std::shared_ptr<Scope>;

  // Statements.
  absl::StatusOr<Flow> Execute(const Block& block, const ScopePtr& scope, std::string* out);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement, const ScopePtr& scope,
                                  std::string* out);
  absl::StatusOr<Flow> ExecuteLoop(const Statement& loop, const ScopePtr& scope, std::string* out);
  absl::StatusOr<Flow> ExecuteWith(const Statement& with, const ScopePtr& scope, std::string* out);
  absl::StatusOr<std::vector<Value>> LoopItems(const Statement& loop, const ScopePtr& scope);
  absl::Status ExecuteSet(const Statement& set, const ScopePtr& scope);
  absl::Status ExecuteSetBlock(const Statement& set, const ScopePtr& scope);
  absl::Status ExecuteFilterBlock(const Statement& filter, const ScopePtr& scope, std::string* out);
  absl::Status ExecuteCallBlock(const Statement& call, const ScopePtr& scope, std::string* out);
  absl::Status Assign(const std::vector<Target>& targets, const Value& value, Scope* scope);
  absl::Status AssignOne(const Target& target, const Value& value, Scope* scope);
  absl::Status Append(absl::string_view text, std::string* out);
  absl::StatusOr<std::string> RenderBlock(const Block& block, const ScopePtr& scope);
  // The text of `block` put through a chain of filters whose innermost name is empty.
  absl::StatusOr<Value> FilteredBlock(const Statement& statement, const ScopePtr& scope);

  // Functions.
  Value MakeMacro(const Statement& macro, const ScopePtr& scope);
  Result CallMacro(const Statement& macro, const ScopePtr& around, const CallArguments& arguments);
  void SetGlobals(Scope* scope);
  Result MakeNamespace(const CallArguments& arguments);
  Value MakeLoop(const std::vector<Value>& items, size_t index);

  // Expressions.
  Result Evaluate(const Expression& expression, const ScopePtr& scope);
  Result EvaluateKind(const Expression& expression, const ScopePtr& scope);
  Result EvaluateName(const Expression& expression, const ScopePtr& scope);
  Result EvaluateList(const Expression& expression, ListKind kind, const ScopePtr& scope);
  Result EvaluateDict(const Expression& expression, const ScopePtr& scope);
  Result EvaluateSlice(const Expression& expression, const ScopePtr& scope);
  Result EvaluateCall(const Expression& expression, const ScopePtr& scope);
  Result EvaluateFilter(const Expression& expression, const ScopePtr& scope);
  Result EvaluateTest(const Expression& expression, const ScopePtr& scope);
  Result EvaluateSign(const Expression& expression, const ScopePtr& scope);
  Result EvaluateLogic(const Expression& expression, const ScopePtr& scope);
  Result EvaluateConcat(const Expression& expression, const ScopePtr& scope);
  Result EvaluateCompare(const Expression& expression, const ScopePtr& scope);
  Result EvaluateConditional(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<CallArguments> EvaluateArguments(const Expression& expression,
                                                  const ScopePtr& scope);

  Meter meter_;
  int depth_ = 0;  // Evaluations, blocks and calls now open.
  // Scopes that macros hold and namespaces may form circles; the destructor opens
  // them, one at a time, so that freeing neither leaks nor recurses.
  std::vector<ScopePtr> captured_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  // What a filter block's chain starts from.
  std::vector<Value> block_values_;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_INTERPRETER_H_
