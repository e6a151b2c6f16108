// The chat template of a model: a sandboxed interpreter of the Jinja2 subset that
// Hugging Face chat templates use, with the settings of transformers
// (trim_blocks, lstrip_blocks, loop controls, immutable values, `tojson` without
// HTML escapes, raise_exception, strftime_now, {% generation %}).
#ifndef LLMC_DATASET_CHAT_TEMPLATE_H_
#define LLMC_DATASET_CHAT_TEMPLATE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "dataset/value.h"
#include "llmc/status.h"
#include "tokenizer/tokenizer.h"

namespace llmc::dataset {

// What one rendering may use before it fails; far above any real template.
struct TemplateLimits {
  int64_t max_steps = 20'000'000;           // Evaluated expressions and statements.
  int64_t max_bytes = int64_t{512} << 20;   // Bytes of all strings and lists made on the way.
  int64_t max_output = int64_t{128} << 20;  // Bytes of the result.
};

// Special tokens as templates see them; an absent one is undefined there.
struct TemplateTokens {
  std::optional<std::string> bos_token = std::nullopt;
  std::optional<std::string> eos_token = std::nullopt;
  std::optional<std::string> pad_token = std::nullopt;
  std::optional<std::string> unk_token = std::nullopt;
};

// A parsed template. Immutable: Render may be called from several threads.
class ChatTemplate {
 public:
  // kInvalidArgument "name:line: what" when `source` is not a template that llmc
  // can run.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(absl::string_view source,
                                                             absl::string_view name);

  // The template of the model in `model_dir`: chat_template.jinja, else the one
  // that tokenizer_config.json has. kInvalidArgument when there is none.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::filesystem::path& model_dir,
                                                            const Tokenizer& tokenizer);

  ~ChatTemplate();

  // The conversation as text, as transformers' apply_chat_template(tokenize=False)
  // gives it with add_generation_prompt false, tools and documents none. `messages`
  // is a non-empty list of dicts. strftime_now formats 26 July 2024 00:00, the date
  // that templates fall back to, so that tokens are the same on every day.
  // kInvalidArgument when the template raises or a value does not fit its use;
  // kResourceExhausted beyond `limits`.
  absl::StatusOr<std::string> Render(const Value& messages, const TemplateTokens& tokens,
                                     const TemplateLimits& limits = {}) const;

  // Renders with any variables (a dict of name to value).
  absl::StatusOr<std::string> RenderWith(const Value& variables,
                                         const TemplateLimits& limits = {}) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_CHAT_TEMPLATE_H_
