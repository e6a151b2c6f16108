#include "dataset/chat_template.h"

#include <exception>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"
#include "dataset/template_interpreter.h"
#include "dataset/template_parser.h"
#include "llmc/file.h"

namespace llmc::dataset {
namespace {

constexpr int64_t kMaxTemplateFile = 1 << 20;

// "name:3: what" from "3: what".
absl::Status Locate(absl::string_view name, const absl::Status& status) {
  const bool located =
      !status.message().empty() && status.message()[0] >= '0' && status.message()[0] <= '9';
  return absl::Status(status.code(), absl::StrCat(name, located ? ":" : ": ", status.message()));
}

void AddToken(absl::string_view name, const std::optional<std::string>& token,
              std::vector<Entry>* variables) {
  if (token) variables->emplace_back(Value(name), Value(*token));
}

}  // namespace

struct ChatTemplate::Program {
  std::string name;
  Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(absl::string_view source,
                                                                  absl::string_view name) {
  if (FirstInvalidUtf8(source)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not UTF-8"));
  }
  auto block = ParseTemplate(source);
  if (!block.ok()) return Locate(name, block.status());
  auto program = std::make_unique<Program>();
  program->name = std::string(name);
  program->block = *std::move(block);
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(program)));
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(
    const std::filesystem::path& model_dir, const Tokenizer& tokenizer) {
  const std::filesystem::path file = model_dir / "chat_template.jinja";
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    LLMC_ASSIGN_OR_RETURN(const std::string source, ReadFile(file, kMaxTemplateFile));
    return Parse(source, file.string());
  }
  if (tokenizer.chat_template()) {
    return Parse(*tokenizer.chat_template(),
                 (model_dir / "tokenizer_config.json chat_template").string());
  }
  return absl::InvalidArgumentError(
      absl::StrCat(model_dir.string(),
                   ": no chat template, expected chat_template.jinja or a chat_template in "
                   "tokenizer_config.json to render messages with"));
}

absl::StatusOr<std::string> ChatTemplate::Render(const Value& messages,
                                                 const TemplateTokens& tokens,
                                                 const TemplateLimits& limits) const {
  std::vector<Entry> variables;
  AddToken("bos_token", tokens.bos_token, &variables);
  AddToken("eos_token", tokens.eos_token, &variables);
  AddToken("pad_token", tokens.pad_token, &variables);
  AddToken("unk_token", tokens.unk_token, &variables);
  variables.emplace_back(Value("messages"), messages);
  variables.emplace_back(Value("tools"), Value());
  variables.emplace_back(Value("documents"), Value());
  variables.emplace_back(Value("add_generation_prompt"), Value(false));
  return RenderWith(Value::MakeDict(std::move(variables)), limits);
}

absl::StatusOr<std::string> ChatTemplate::RenderWith(const Value& variables,
                                                     const TemplateLimits& limits) const {
  TemplateInterpreter interpreter(limits);
  auto text = interpreter.Run(program_->block, variables);
  if (!text.ok()) return Locate(program_->name, text.status());
  return text;
}

}  // namespace llmc::dataset
