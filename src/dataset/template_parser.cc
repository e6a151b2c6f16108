#include "dataset/template_parser.h"

#include <algorithm>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "dataset/template_expression_parser.h"
#include "dataset/template_lexer.h"

namespace llmc::dataset {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;

using EndNames = std::initializer_list<absl::string_view>;

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : stream_(std::move(tokens)), expressions_(&stream_) {}

  absl::StatusOr<Block> Run() { return ParseBlock({}); }

 private:
  // Statements up to a tag named in `ends`, whose name becomes current, or, without
  // `ends`, up to the end of the template.
  absl::StatusOr<Block> ParseBlock(EndNames ends) {
    if (depth_ >= kMaxTemplateDepth) return stream_.Unexpected("less nesting of statements");
    ++depth_;
    Block block;
    while (!stream_.At(TokenKind::kEnd)) {
      LLMC_ASSIGN_OR_RETURN(const bool ended, ParseOne(ends, &block));
      if (!ended) continue;
      --depth_;
      return block;
    }
    if (ends.size() > 0) {
      return stream_.Unexpected(absl::StrCat("{% ", *(ends.end() - 1), " %}"));
    }
    --depth_;
    return block;
  }

  // True when the tag ends the block.
  absl::StatusOr<bool> ParseOne(EndNames ends, Block* block) {
    const Token token = stream_.current();
    stream_.Advance();
    if (token.kind == TokenKind::kText) {
      block->push_back(Make(StatementKind::kText, token.line));
      block->back().text = token.text;
      return false;
    }
    if (token.kind == TokenKind::kOutputBegin) {
      block->push_back(Make(StatementKind::kOutput, token.line));
      LLMC_ASSIGN_OR_RETURN(block->back().value, expressions_.Parse(true));
      LLMC_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kOutputEnd, "\"}}\""));
      return false;
    }
    if (!stream_.At(TokenKind::kName)) return stream_.Unexpected("the name of a statement");
    const std::string& name = stream_.current().text;
    if (std::find(ends.begin(), ends.end(), name) != ends.end()) return true;
    LLMC_ASSIGN_OR_RETURN(Statement statement, ParseStatement());
    block->push_back(std::move(statement));
    return false;
  }

  static Statement Make(StatementKind kind, int line) {
    Statement statement;
    statement.kind = kind;
    statement.line = line;
    return statement;
  }

  absl::StatusOr<Statement> ParseStatement() {
    const int line = stream_.current().line;
    if (stream_.SkipName("if")) return ParseIf(line);
    if (stream_.SkipName("for")) return ParseFor(line);
    if (stream_.SkipName("set")) return ParseSet(line);
    if (stream_.SkipName("macro")) return ParseMacro(line);
    if (stream_.SkipName("with")) return ParseWith(line);
    if (stream_.SkipName("filter")) return ParseFilterBlock(line);
    if (stream_.SkipName("call")) return ParseCallBlock(line);
    if (stream_.SkipName("generation")) return ParseGeneration(line);
    if (stream_.SkipName("break")) return ParseJump(StatementKind::kBreak, line);
    if (stream_.SkipName("continue")) return ParseJump(StatementKind::kContinue, line);
    return stream_.Unexpected(
        "a statement that llmc knows (if, for, set, macro, with, filter, call, generation, break, "
        "continue)");
  }

  absl::Status EndTag() { return stream_.ExpectKind(TokenKind::kBlockEnd, "\"%}\""); }

  // The body, then the end tag `name`.
  absl::StatusOr<Block> ParseBody(absl::string_view name) {
    LLMC_RETURN_IF_ERROR(EndTag());
    LLMC_ASSIGN_OR_RETURN(Block body, ParseBlock({name}));
    stream_.Advance();
    if (stream_.At(TokenKind::kName)) stream_.Advance();  // {% endmacro name %}
    LLMC_RETURN_IF_ERROR(EndTag());
    return body;
  }

  // An elif is an if in the otherwise block; a long chain is a loop here, but nests
  // in the tree, so it is bounded like nesting.
  absl::StatusOr<Statement> ParseIf(int line) {
    Statement statement = Make(StatementKind::kIf, line);
    LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.Parse(true));
    LLMC_RETURN_IF_ERROR(EndTag());
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseBlock({"elif", "else", "endif"}));
    if (stream_.AtName("elif")) {
      const int next_line = stream_.current().line;
      stream_.Advance();
      if (depth_ >= kMaxTemplateDepth) return stream_.Unexpected("fewer elif");
      ++depth_;
      LLMC_ASSIGN_OR_RETURN(Statement next, ParseIf(next_line));
      --depth_;
      statement.otherwise.push_back(std::move(next));
      return statement;
    }
    if (stream_.SkipName("else")) {
      LLMC_RETURN_IF_ERROR(EndTag());
      LLMC_ASSIGN_OR_RETURN(statement.otherwise, ParseBlock({"endif"}));
    }
    LLMC_RETURN_IF_ERROR(stream_.ExpectName("endif"));
    LLMC_RETURN_IF_ERROR(EndTag());
    return statement;
  }

  absl::StatusOr<Target> ParseTarget() {
    Target target;
    LLMC_ASSIGN_OR_RETURN(target.name, stream_.TakeName());
    if (stream_.SkipOperator(".")) {
      LLMC_ASSIGN_OR_RETURN(target.attribute, stream_.TakeName());
    }
    return target;
  }

  absl::Status ParseTargets(std::vector<Target>* targets) {
    const bool bracket = stream_.SkipOperator("(");
    do {
      LLMC_ASSIGN_OR_RETURN(Target target, ParseTarget());
      targets->push_back(std::move(target));
    } while (stream_.SkipOperator(","));
    return bracket ? stream_.ExpectOperator(")") : absl::OkStatus();
  }

  absl::StatusOr<Statement> ParseFor(int line) {
    Statement statement = Make(StatementKind::kFor, line);
    LLMC_RETURN_IF_ERROR(ParseTargets(&statement.targets));
    LLMC_RETURN_IF_ERROR(stream_.ExpectName("in"));
    LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.ParseWithoutCondition());
    if (stream_.SkipName("if")) {
      LLMC_ASSIGN_OR_RETURN(statement.condition, expressions_.Parse());
    }
    if (stream_.AtName("recursive")) return stream_.Unexpected("a loop that is not recursive");
    LLMC_RETURN_IF_ERROR(EndTag());
    ++loops_;
    const int loop_names = expressions_.loop_names();
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseBlock({"else", "endfor"}));
    statement.uses_loop = expressions_.loop_names() != loop_names;
    --loops_;
    if (stream_.SkipName("else")) {
      LLMC_RETURN_IF_ERROR(EndTag());
      LLMC_ASSIGN_OR_RETURN(statement.otherwise, ParseBlock({"endfor"}));
    }
    LLMC_RETURN_IF_ERROR(stream_.ExpectName("endfor"));
    LLMC_RETURN_IF_ERROR(EndTag());
    return statement;
  }

  absl::StatusOr<Statement> ParseSet(int line) {
    Statement statement = Make(StatementKind::kSet, line);
    LLMC_RETURN_IF_ERROR(ParseTargets(&statement.targets));
    if (stream_.SkipOperator("=")) {
      LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.Parse(true));
      LLMC_RETURN_IF_ERROR(EndTag());
      return statement;
    }
    statement.kind = StatementKind::kSetBlock;
    if (statement.targets.size() != 1) return stream_.Unexpected("\"=\"");
    if (stream_.SkipOperator("|")) {
      LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.ParseFilterChain(BodyPlace(line)));
    }
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseBody("endset"));
    return statement;
  }

  // Where the rendered body goes into a chain of filters: an unwritable name.
  static ExpressionPtr BodyPlace(int line) {
    auto node = std::make_unique<Expression>();
    node->kind = ExpressionKind::kName;
    node->line = line;
    return node;
  }

  absl::Status ParseParameters(std::vector<Parameter>* parameters) {
    LLMC_RETURN_IF_ERROR(stream_.ExpectOperator("("));
    while (!stream_.AtOperator(")")) {
      if (!parameters->empty()) LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      Parameter parameter;
      LLMC_ASSIGN_OR_RETURN(parameter.name, stream_.TakeName());
      if (stream_.SkipOperator("=")) {
        LLMC_ASSIGN_OR_RETURN(parameter.value, expressions_.Parse());
      } else if (!parameters->empty() && parameters->back().value != nullptr) {
        return stream_.Unexpected("a default, as the parameter before has one");
      }
      parameters->push_back(std::move(parameter));
    }
    stream_.Advance();
    return absl::OkStatus();
  }

  absl::StatusOr<Statement> ParseMacro(int line) {
    Statement statement = Make(StatementKind::kMacro, line);
    LLMC_ASSIGN_OR_RETURN(statement.text, stream_.TakeName());
    LLMC_RETURN_IF_ERROR(ParseParameters(&statement.parameters));
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseCallableBody("endmacro"));
    return statement;
  }

  // A break inside must not reach a loop outside.
  absl::StatusOr<Block> ParseCallableBody(absl::string_view end) {
    const int loops = loops_;
    loops_ = 0;
    LLMC_ASSIGN_OR_RETURN(Block body, ParseBody(end));
    loops_ = loops;
    return body;
  }

  absl::StatusOr<Statement> ParseWith(int line) {
    Statement statement = Make(StatementKind::kWith, line);
    while (!stream_.At(TokenKind::kBlockEnd)) {
      if (!statement.parameters.empty()) LLMC_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      Parameter parameter;
      LLMC_ASSIGN_OR_RETURN(parameter.name, stream_.TakeName());
      LLMC_RETURN_IF_ERROR(stream_.ExpectOperator("="));
      LLMC_ASSIGN_OR_RETURN(parameter.value, expressions_.Parse());
      statement.parameters.push_back(std::move(parameter));
    }
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseBody("endwith"));
    return statement;
  }

  absl::StatusOr<Statement> ParseFilterBlock(int line) {
    Statement statement = Make(StatementKind::kFilter, line);
    LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.ParseFilterChain(BodyPlace(line)));
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseBody("endfilter"));
    return statement;
  }

  absl::StatusOr<Statement> ParseCallBlock(int line) {
    Statement statement = Make(StatementKind::kCallBlock, line);
    if (stream_.AtOperator("(")) LLMC_RETURN_IF_ERROR(ParseParameters(&statement.parameters));
    LLMC_ASSIGN_OR_RETURN(statement.value, expressions_.Parse());
    if (statement.value->kind != ExpressionKind::kCall) return stream_.Unexpected("a call");
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseCallableBody("endcall"));
    return statement;
  }

  absl::StatusOr<Statement> ParseGeneration(int line) {
    Statement statement = Make(StatementKind::kScope, line);
    LLMC_ASSIGN_OR_RETURN(statement.body, ParseCallableBody("endgeneration"));
    return statement;
  }

  absl::StatusOr<Statement> ParseJump(StatementKind kind, int line) {
    if (loops_ == 0) return stream_.Unexpected("break and continue inside a loop only");
    LLMC_RETURN_IF_ERROR(EndTag());
    return Make(kind, line);
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;  // Loops that are open in this callable.
};

}  // namespace

absl::StatusOr<Block> ParseTemplate(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("1: ", source.size(), " bytes, expected at most ", kMaxSourceBytes));
  }
  LLMC_ASSIGN_OR_RETURN(std::vector<Token> tokens, LexTemplate(source));
  return StatementParser(std::move(tokens)).Run();
}

}  // namespace llmc::dataset
