// The tree of a parsed chat template.
#ifndef LLMC_DATASET_TEMPLATE_AST_H_
#define LLMC_DATASET_TEMPLATE_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dataset/value.h"

namespace llmc::dataset {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind : uint8_t {
  kConstant,     // constant
  kName,         // text
  kList,         // operands
  kTuple,        // operands
  kDict,         // operands: key, value, key, value, ...
  kAttribute,    // operands[0].text
  kSubscript,    // operands[0][operands[1]]
  kSlice,        // operands[0][operands[1] : operands[2] : operands[3]], any of 1-3 null
  kCall,         // operands[0](operands[1..], named...)
  kFilter,       // operands[0] | text(operands[1..], named...)
  kTest,         // operands[0] is text(operands[1..], named...)
  kNegative,     // -operands[0]
  kPositive,     // +operands[0]
  kNot,          // not operands[0]
  kAnd,          // operands[0] and operands[1]
  kOr,           // operands[0] or operands[1]
  kBinary,       // operands[0] OP operands[1]
  kConcat,       // operands[0] ~ operands[1] ~ ...
  kCompare,      // operands[0] OPS[0] operands[1] OPS[1] ...
  kConditional,  // operands[0] if operands[1] else operands[2], the last may be null
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 0;
  int depth = 1;  // Of the tree below; bounded by the parser.
  std::string text;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<Operator> operators;
};

// What `set` and `for` assign to: a name, or an attribute of a namespace.
struct Target {
  std::string name;
  std::string attribute;  // Empty: the name itself.
};

struct Statement;
using Block = std::vector<Statement>;

enum class StatementKind : uint8_t {
  kText,       // text
  kOutput,     // {{ value }}
  kIf,         // value, body, otherwise
  kFor,        // targets in value [if condition]: body; otherwise when nothing ran
  kSet,        // targets = value
  kSetBlock,   // targets[0] = body, through the filters of `value` when there are any
  kMacro,      // text(parameters): body
  kScope,      // body in a scope of its own (generation)
  kWith,       // body with parameters as variables
  kFilter,     // body through the filters of `value`
  kCallBlock,  // value is a call; body is its caller(parameters)
  kBreak,
  kContinue,
};

// A macro's parameter; `value` is its default or null.
struct Parameter {
  std::string name;
  ExpressionPtr value;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;
  bool uses_loop = false;  // kFor: the body says `loop`.
  ExpressionPtr value;
  ExpressionPtr condition;
  std::vector<Target> targets;
  std::vector<Parameter> parameters;
  Block body;
  Block otherwise;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_AST_H_
