#include "tokenizer/special_names.h"

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

// transformers writes 1e30 for "no limit".
constexpr double kNoLimit = 1e15;

// A token is a string or an object with a "content".
void FillToken(const Json& json, const char* key, std::optional<std::string>* token) {
  if (*token) return;
  const Json& value = Member(json, key);
  const Json& content = value.is_object() ? Member(value, "content") : value;
  if (content.is_string()) *token = content.get_ref<const std::string&>();
}

void FillMaxLength(const Json& json, std::optional<int64_t>* length) {
  const Json& value = Member(json, "model_max_length");
  if (*length || !value.is_number()) return;
  const double number = value.get<double>();
  if (number >= 1 && number < kNoLimit) *length = static_cast<int64_t>(number);
}

void FillChatTemplate(const Json& json, std::optional<std::string>* chat_template) {
  const Json& value = Member(json, "chat_template");
  if (value.is_string()) *chat_template = value.get_ref<const std::string&>();
  if (!value.is_array()) return;
  for (const Json& entry : value) {
    const Json& name = Member(entry, "name");
    const Json& text = Member(entry, "template");
    if (name.is_string() && name.get_ref<const std::string&>() == "default" && text.is_string()) {
      *chat_template = text.get_ref<const std::string&>();
    }
  }
}

}  // namespace

absl::Status MergeSpecialNames(absl::string_view text, absl::string_view where,
                               SpecialNames* names) {
  LLMC_ASSIGN_OR_RETURN(const Json json, ParseJson(text, where));
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": expected a JSON object"));
  }
  FillToken(json, "bos_token", &names->bos_token);
  FillToken(json, "eos_token", &names->eos_token);
  FillToken(json, "pad_token", &names->pad_token);
  FillToken(json, "unk_token", &names->unk_token);
  FillMaxLength(json, &names->model_max_length);
  FillChatTemplate(json, &names->chat_template);
  return absl::OkStatus();
}

}  // namespace llmc
