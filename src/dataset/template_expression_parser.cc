#include "dataset/template_expression_parser.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataset/template_builtins.h"

namespace llmc::dataset {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kEnd:
      return "end of the template";
    case TokenKind::kBlockEnd:
    case TokenKind::kOutputEnd:
      return "end of the tag";
    case TokenKind::kString:
      return "a string";
    default:
      return absl::StrCat("\"", token.text.substr(0, 60), "\"");
  }
}

std::optional<Operator> ComparisonOf(const Token& token) {
  if (token.kind == TokenKind::kName && token.text == "in") return Operator::kIn;
  if (token.kind != TokenKind::kOperator) return std::nullopt;
  if (token.text == "==") return Operator::kEqual;
  if (token.text == "!=") return Operator::kNotEqual;
  if (token.text == "<") return Operator::kLess;
  if (token.text == "<=") return Operator::kLessEqual;
  if (token.text == ">") return Operator::kGreater;
  if (token.text == ">=") return Operator::kGreaterEqual;
  return std::nullopt;
}

// Closes one level of nesting on every path out.
class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int* depth_;
};

}  // namespace

bool TokenStream::SkipOperator(absl::string_view op) {
  if (!AtOperator(op)) return false;
  Advance();
  return true;
}

bool TokenStream::SkipName(absl::string_view name) {
  if (!AtName(name)) return false;
  Advance();
  return true;
}

absl::Status TokenStream::ExpectOperator(absl::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("\"", op, "\""));
}

absl::Status TokenStream::ExpectName(absl::string_view name) {
  if (SkipName(name)) return absl::OkStatus();
  return Unexpected(absl::StrCat("\"", name, "\""));
}

absl::Status TokenStream::ExpectKind(TokenKind kind, absl::string_view what) {
  if (!At(kind)) return Unexpected(what);
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenStream::TakeName() {
  if (!At(TokenKind::kName)) return Unexpected("a name");
  std::string name = current().text;
  Advance();
  return name;
}

absl::Status TokenStream::Unexpected(absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(current().line, ": unexpected ", Describe(current()), ", expected ", what));
}

ExpressionPtr ExpressionParser::Make(ExpressionKind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = stream_.current().line;
  return node;
}

absl::Status ExpressionParser::Adopt(Expression* node, ExpressionPtr child) const {
  if (child != nullptr) {
    node->depth = std::max(node->depth, child->depth + 1);
    node->line = std::min(node->line, child->line);
  }
  node->operands.push_back(std::move(child));
  if (node->depth <= kMaxTemplateDepth) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(node->line, ": expression nested deeper than ", kMaxTemplateDepth));
}

ExpressionParser::Result ExpressionParser::Parse(bool allow_tuple) {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr first, ParseConditional());
  if (!allow_tuple || !stream_.AtOperator(",")) return first;
  ExpressionPtr tuple = Make(ExpressionKind::kTuple);
  LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(first)));
  while (stream_.SkipOperator(",")) {
    if (stream_.At(TokenKind::kBlockEnd) || stream_.At(TokenKind::kOutputEnd)) break;
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr item, ParseConditional());
    LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(item)));
  }
  return tuple;
}

ExpressionParser::Result ExpressionParser::ParseWithoutCondition() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr first, ParseOr());
  if (!stream_.AtOperator(",")) return first;
  ExpressionPtr tuple = Make(ExpressionKind::kTuple);
  LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(first)));
  while (stream_.SkipOperator(",")) {
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr item, ParseOr());
    LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(item)));
  }
  return tuple;
}

ExpressionParser::Result ExpressionParser::ParseConditional() {
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxTemplateDepth) {
    return absl::InvalidArgumentError(absl::StrCat(
        stream_.current().line, ": expression nested deeper than ", kMaxTemplateDepth));
  }
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr then, ParseOr());
  while (stream_.AtName("if")) {
    ExpressionPtr node = Make(ExpressionKind::kConditional);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (stream_.SkipName("else")) {
      LLMC_ASSIGN_OR_RETURN(otherwise, ParseConditional());
    }
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(then)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(condition)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(otherwise)));
    then = std::move(node);
  }
  return then;
}

ExpressionParser::Result ExpressionParser::ParseOr() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (stream_.AtName("or")) {
    ExpressionPtr node = Make(ExpressionKind::kOr);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(left)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(right)));
    left = std::move(node);
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseAnd() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (stream_.AtName("and")) {
    ExpressionPtr node = Make(ExpressionKind::kAnd);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(left)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(right)));
    left = std::move(node);
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseNot() {
  if (!stream_.AtName("not")) return ParseCompare();
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxTemplateDepth) return stream_.Unexpected("less nesting");
  ExpressionPtr node = Make(ExpressionKind::kNot);
  stream_.Advance();
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(operand)));
  return node;
}

ExpressionParser::Result ExpressionParser::ParseCompare() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr left, ParseSum());
  ExpressionPtr node;
  while (true) {
    std::optional<Operator> op = ComparisonOf(stream_.current());
    const bool not_in = stream_.AtName("not") && stream_.following().kind == TokenKind::kName &&
                        stream_.following().text == "in";
    if (not_in) op = Operator::kNotIn;
    if (!op) break;
    if (node == nullptr) {
      node = Make(ExpressionKind::kCompare);
      LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(left)));
    }
    if (not_in) stream_.Advance();
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr right, ParseSum());
    node->operators.push_back(*op);
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(right)));
  }
  return node != nullptr ? std::move(node) : std::move(left);
}

ExpressionParser::Result ExpressionParser::ParseBinary(
    std::initializer_list<std::pair<absl::string_view, Operator>> operators,
    Result (ExpressionParser::*next)()) {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*next)());
  while (stream_.At(TokenKind::kOperator)) {
    const auto op = std::find_if(operators.begin(), operators.end(), [&](const auto& candidate) {
      return candidate.first == stream_.current().text;
    });
    if (op == operators.end()) break;
    ExpressionPtr node = Make(ExpressionKind::kBinary);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*next)());
    node->operators.push_back(op->second);
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(left)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(right)));
    left = std::move(node);
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseSum() {
  return ParseBinary({{"+", Operator::kAdd}, {"-", Operator::kSubtract}},
                     &ExpressionParser::ParseConcat);
}

ExpressionParser::Result ExpressionParser::ParseConcat() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!stream_.AtOperator("~")) return first;
  ExpressionPtr node = Make(ExpressionKind::kConcat);
  LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(first)));
  while (stream_.SkipOperator("~")) {
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr next, ParseProduct());
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(next)));
  }
  return node;
}

ExpressionParser::Result ExpressionParser::ParseProduct() {
  return ParseBinary({{"*", Operator::kMultiply},
                      {"/", Operator::kDivide},
                      {"//", Operator::kFloorDivide},
                      {"%", Operator::kModulo}},
                     &ExpressionParser::ParsePower);
}

ExpressionParser::Result ExpressionParser::ParsePower() {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
  while (stream_.AtOperator("**")) {
    ExpressionPtr node = Make(ExpressionKind::kBinary);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
    node->operators.push_back(Operator::kPower);
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(left)));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(right)));
    left = std::move(node);
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseUnary(bool with_filter) {
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxTemplateDepth) return stream_.Unexpected("less nesting");
  const bool negative = stream_.AtOperator("-");
  ExpressionPtr node;
  if (negative || stream_.AtOperator("+")) {
    node = Make(negative ? ExpressionKind::kNegative : ExpressionKind::kPositive);
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(operand)));
  } else {
    LLMC_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  LLMC_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filter) return node;
  return ParseFilters(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParsePrimary() {
  switch (stream_.current().kind) {
    case TokenKind::kName:
      return ParseConstantName();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    case TokenKind::kString: {
      ExpressionPtr node = Make(ExpressionKind::kConstant);
      std::string text;
      while (stream_.At(TokenKind::kString)) {
        text += stream_.current().text;
        stream_.Advance();
      }
      node->constant = Value(std::move(text));
      return node;
    }
    default:
      if (stream_.AtOperator("(")) return ParseParentheses();
      if (stream_.AtOperator("[")) return ParseListLiteral();
      if (stream_.AtOperator("{")) return ParseDictLiteral();
      return stream_.Unexpected("an expression");
  }
}

ExpressionParser::Result ExpressionParser::ParseConstantName() {
  const std::string name = stream_.current().text;
  ExpressionPtr node = Make(ExpressionKind::kConstant);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->constant = Value(name == "true" || name == "True");
  } else if (name != "none" && name != "None") {
    node->kind = ExpressionKind::kName;
    node->text = name;
    loop_names_ += name == "loop";
  }
  stream_.Advance();
  return node;
}

ExpressionParser::Result ExpressionParser::ParseNumber() {
  ExpressionPtr node = Make(ExpressionKind::kConstant);
  const std::string& text = stream_.current().text;
  int64_t integer = 0;
  double number = 0;
  if (stream_.At(TokenKind::kInteger)) {
    if (!absl::SimpleAtoi(text, &integer)) return stream_.Unexpected("an integer below 2^63");
    node->constant = Value(integer);
  } else {
    if (!absl::SimpleAtod(text, &number)) return stream_.Unexpected("a number");
    node->constant = Value(number);
  }
  stream_.Advance();
  return node;
}

ExpressionParser::Result ExpressionParser::ParseParentheses() {
  ExpressionPtr tuple = Make(ExpressionKind::kTuple);
  stream_.Advance();
  if (stream_.SkipOperator(")")) return tuple;
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr first, ParseConditional());
  if (stream_.SkipOperator(")")) return first;
  LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(first)));
  while (!stream_.AtOperator(")")) {
    LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    if (stream_.AtOperator(")")) break;
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr item, ParseConditional());
    LLMC_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(item)));
  }
  stream_.Advance();
  return tuple;
}

ExpressionParser::Result ExpressionParser::ParseListLiteral() {
  ExpressionPtr list = Make(ExpressionKind::kList);
  stream_.Advance();
  while (!stream_.AtOperator("]")) {
    if (!list->operands.empty()) LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    if (stream_.AtOperator("]")) break;
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr item, ParseConditional());
    LLMC_RETURN_IF_ERROR(Adopt(list.get(), std::move(item)));
  }
  stream_.Advance();
  return list;
}

ExpressionParser::Result ExpressionParser::ParseDictLiteral() {
  ExpressionPtr dict = Make(ExpressionKind::kDict);
  stream_.Advance();
  while (!stream_.AtOperator("}")) {
    if (!dict->operands.empty()) LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    if (stream_.AtOperator("}")) break;
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr key, ParseConditional());
    LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr value, ParseConditional());
    LLMC_RETURN_IF_ERROR(Adopt(dict.get(), std::move(key)));
    LLMC_RETURN_IF_ERROR(Adopt(dict.get(), std::move(value)));
  }
  stream_.Advance();
  return dict;
}

ExpressionParser::Result ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (true) {
    if (stream_.AtOperator(".")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseAttribute(std::move(node)));
    } else if (stream_.AtOperator("[")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (stream_.AtOperator("(")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseFilters(ExpressionPtr node) {
  while (true) {
    if (stream_.SkipOperator("|")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (stream_.SkipName("is")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (stream_.AtOperator("(")) {
      LLMC_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseFilterChain(ExpressionPtr target) {
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr node, ParseFilter(std::move(target)));
  return ParseFilters(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseAttribute(ExpressionPtr node) {
  stream_.Advance();
  if (stream_.At(TokenKind::kInteger)) {
    ExpressionPtr subscript = Make(ExpressionKind::kSubscript);
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr index, ParseNumber());
    LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(node)));
    LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(index)));
    return subscript;
  }
  ExpressionPtr attribute = Make(ExpressionKind::kAttribute);
  LLMC_ASSIGN_OR_RETURN(attribute->text, stream_.TakeName());
  LLMC_RETURN_IF_ERROR(Adopt(attribute.get(), std::move(node)));
  return attribute;
}

ExpressionParser::Result ExpressionParser::ParseSubscript(ExpressionPtr node) {
  ExpressionPtr subscript = Make(ExpressionKind::kSubscript);
  stream_.Advance();
  ExpressionPtr parts[3];
  int num_colons = 0;
  while (!stream_.AtOperator("]")) {
    if (stream_.AtOperator(":") && num_colons < 2) {
      stream_.Advance();
      ++num_colons;
    } else if (parts[num_colons] == nullptr) {
      LLMC_ASSIGN_OR_RETURN(parts[num_colons], ParseConditional());
    } else {
      return stream_.Unexpected("\"]\"");
    }
  }
  if (num_colons == 0 && parts[0] == nullptr) return stream_.Unexpected("an index");
  stream_.Advance();
  LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(node)));
  LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(parts[0])));
  if (num_colons == 0) return subscript;
  subscript->kind = ExpressionKind::kSlice;
  LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(parts[1])));
  LLMC_RETURN_IF_ERROR(Adopt(subscript.get(), std::move(parts[2])));
  return subscript;
}

ExpressionParser::Result ExpressionParser::ParseCall(ExpressionPtr node) {
  ExpressionPtr call = Make(ExpressionKind::kCall);
  LLMC_RETURN_IF_ERROR(Adopt(call.get(), std::move(node)));
  LLMC_RETURN_IF_ERROR(ParseArguments(call.get()));
  return call;
}

absl::Status ExpressionParser::ParseArguments(Expression* node) {
  LLMC_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  bool first = true;
  while (!stream_.AtOperator(")")) {
    if (!first) LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    first = false;
    if (stream_.AtOperator(")")) break;
    if (stream_.AtOperator("*") || stream_.AtOperator("**")) {
      return stream_.Unexpected("an argument (unpacking is not supported)");
    }
    const bool is_named = stream_.At(TokenKind::kName) &&
                          stream_.following().kind == TokenKind::kOperator &&
                          stream_.following().text == "=";
    if (!is_named) {
      if (!node->named.empty()) return stream_.Unexpected("a named argument");
      LLMC_ASSIGN_OR_RETURN(ExpressionPtr argument, ParseConditional());
      LLMC_RETURN_IF_ERROR(Adopt(node, std::move(argument)));
      continue;
    }
    LLMC_ASSIGN_OR_RETURN(std::string name, stream_.TakeName());
    stream_.Advance();
    LLMC_ASSIGN_OR_RETURN(ExpressionPtr argument, ParseConditional());
    node->depth = std::max(node->depth, argument->depth + 1);
    node->named.emplace_back(std::move(name), std::move(argument));
  }
  stream_.Advance();
  return absl::OkStatus();
}

ExpressionParser::Result ExpressionParser::ParseFilter(ExpressionPtr node) {
  ExpressionPtr filter = Make(ExpressionKind::kFilter);
  LLMC_RETURN_IF_ERROR(Adopt(filter.get(), std::move(node)));
  if (!stream_.At(TokenKind::kName) || !IsTemplateFilter(stream_.current().text)) {
    return stream_.Unexpected("a filter that llmc knows");
  }
  LLMC_ASSIGN_OR_RETURN(filter->text, stream_.TakeName());
  if (stream_.AtOperator("(")) LLMC_RETURN_IF_ERROR(ParseArguments(filter.get()));
  return filter;
}

ExpressionParser::Result ExpressionParser::ParseTest(ExpressionPtr node) {
  const bool negated = stream_.SkipName("not");
  ExpressionPtr test = Make(ExpressionKind::kTest);
  LLMC_RETURN_IF_ERROR(Adopt(test.get(), std::move(node)));
  if (!stream_.At(TokenKind::kName) || !IsTemplateTest(stream_.current().text)) {
    return stream_.Unexpected("a test that llmc knows");
  }
  LLMC_ASSIGN_OR_RETURN(test->text, stream_.TakeName());
  LLMC_ASSIGN_OR_RETURN(test, ParseTestArgument(std::move(test)));
  if (!negated) return test;
  ExpressionPtr inverse = Make(ExpressionKind::kNot);
  LLMC_RETURN_IF_ERROR(Adopt(inverse.get(), std::move(test)));
  return inverse;
}

// "is divisibleby(3)" and "is divisibleby 3" are the same.
ExpressionParser::Result ExpressionParser::ParseTestArgument(ExpressionPtr node) {
  if (stream_.AtOperator("(")) {
    LLMC_RETURN_IF_ERROR(ParseArguments(node.get()));
    return node;
  }
  const bool word = stream_.At(TokenKind::kName);
  const bool ends =
      word && (stream_.AtName("else") || stream_.AtName("or") || stream_.AtName("and") ||
               stream_.AtName("is") || stream_.AtName("if") || stream_.AtName("in") ||
               stream_.AtName("not") || stream_.AtName("recursive"));
  const bool starts = (word && !ends) || stream_.At(TokenKind::kString) ||
                      stream_.At(TokenKind::kInteger) || stream_.At(TokenKind::kFloat) ||
                      stream_.AtOperator("[") || stream_.AtOperator("{");
  if (!starts) return node;
  LLMC_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
  LLMC_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
  LLMC_RETURN_IF_ERROR(Adopt(node.get(), std::move(argument)));
  return node;
}

}  // namespace llmc::dataset
