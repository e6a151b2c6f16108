// Expressions of a template, from a stream of tokens.
#ifndef LLMC_DATASET_TEMPLATE_EXPRESSION_PARSER_H_
#define LLMC_DATASET_TEMPLATE_EXPRESSION_PARSER_H_

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataset/template_ast.h"
#include "dataset/template_lexer.h"
#include "llmc/status.h"

namespace llmc::dataset {

// Nesting of expressions, and of statements, that a template may have.
inline constexpr int kMaxTemplateDepth = 100;

// A position in the tokens of a template; the last token is kEnd.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& following() const {
    return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_];
  }
  void Advance() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
  bool AtOperator(absl::string_view op) const { return Is(TokenKind::kOperator, op); }
  bool AtName(absl::string_view name) const { return Is(TokenKind::kName, name); }
  bool At(TokenKind kind) const { return current().kind == kind; }

  // Moves past the token when it is there.
  bool SkipOperator(absl::string_view op);
  bool SkipName(absl::string_view name);

  // Moves past the token, which must be there.
  absl::Status ExpectOperator(absl::string_view op);
  absl::Status ExpectName(absl::string_view name);
  absl::Status ExpectKind(TokenKind kind, absl::string_view what);
  absl::StatusOr<std::string> TakeName();

  // "line: unexpected X, expected `what`".
  absl::Status Unexpected(absl::string_view what) const;

 private:
  bool Is(TokenKind kind, absl::string_view text) const {
    return current().kind == kind && current().text == text;
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream* stream) : stream_(*stream) {}

  // One expression; with `allow_tuple` also "a, b" without brackets.
  absl::StatusOr<ExpressionPtr> Parse(bool allow_tuple = false);

  // An expression that ends before a bare "if" (the filter of a for loop).
  absl::StatusOr<ExpressionPtr> ParseWithoutCondition();

  // Filters without a leading "|": "trim | upper(...)"; `target` goes in.
  absl::StatusOr<ExpressionPtr> ParseFilterChain(ExpressionPtr target);

  // How often the name `loop` has been read so far.
  int loop_names() const { return loop_names_; }

 private:
  using Result = absl::StatusOr<ExpressionPtr>;

  Result ParseConditional();
  Result ParseOr();
  Result ParseAnd();
  Result ParseNot();
  Result ParseCompare();
  Result ParseSum();
  Result ParseConcat();
  Result ParseProduct();
  Result ParsePower();
  Result ParseUnary(bool with_filter);
  Result ParsePrimary();
  Result ParseConstantName();
  Result ParseNumber();
  Result ParseParentheses();
  Result ParseListLiteral();
  Result ParseDictLiteral();
  Result ParsePostfix(ExpressionPtr node);
  Result ParseFilters(ExpressionPtr node);
  Result ParseAttribute(ExpressionPtr node);
  Result ParseSubscript(ExpressionPtr node);
  Result ParseCall(ExpressionPtr node);
  Result ParseFilter(ExpressionPtr node);
  Result ParseTest(ExpressionPtr node);
  Result ParseTestArgument(ExpressionPtr node);
  absl::Status ParseArguments(Expression* node);

  // A chain of left-associative binary operators over `next`.
  Result ParseBinary(std::initializer_list<std::pair<absl::string_view, Operator>> operators,
                     Result (ExpressionParser::*next)());

  ExpressionPtr Make(ExpressionKind kind) const;
  // Adds a child; fails when the tree gets too deep.
  absl::Status Adopt(Expression* node, ExpressionPtr child) const;

  TokenStream& stream_;
  int loop_names_ = 0;
  int depth_ = 0;  // Of calls to Parse and ParseUnary now open.
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_EXPRESSION_PARSER_H_
