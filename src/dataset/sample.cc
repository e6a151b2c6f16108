#include "dataset/sample.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/parallel.h"

namespace llmc::dataset {
namespace {

constexpr absl::string_view kDefaultTextColumn = "text";

bool Contains(const std::vector<std::string>& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> ColumnNames(const Value& columns) {
  std::vector<std::string> names;
  for (const Entry& entry : columns.entries()) names.push_back(entry.first.string());
  return names;
}

absl::Status WrongType(absl::string_view column, const Value& value, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("column \"", column, "\": ", value.is_none() ? "null" : value.type_name(),
                   ", expected ", expected));
}

// The role that ShareGPT's `from` stands for, or nothing.
std::optional<std::string> RoleOf(absl::string_view from) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant" || from == "chatgpt") return "assistant";
  if (from == "system") return "system";
  if (from == "tool" || from == "function" || from == "observation") return "tool";
  return std::nullopt;
}

// {"from", "value"} as {"role", "content"}; other keys stay.
absl::StatusOr<Value> FromShareGpt(const Value& message) {
  std::vector<Entry> entries;
  for (const Entry& entry : message.entries()) {
    if (entry.first.string() == "from") {
      if (!entry.second.is_string()) return absl::InvalidArgumentError("\"from\" is not text");
      const std::optional<std::string> role = RoleOf(entry.second.string());
      if (!role) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"from\" is \"", entry.second.string(),
                         "\", expected human, gpt, system, tool or a role's name"));
      }
      entries.emplace_back(Value("role"), Value(*role));
    } else if (entry.first.string() == "value") {
      entries.emplace_back(Value("content"), entry.second);
    } else {
      entries.push_back(entry);
    }
  }
  return Value::MakeDict(std::move(entries));
}

absl::StatusOr<Value> ReadMessage(const Value& message) {
  if (!message.is_dict()) {
    return absl::InvalidArgumentError(
        absl::StrCat(message.type_name(), ", expected an object with \"role\" and \"content\""));
  }
  if (message.Find("role") != nullptr) return message;
  if (message.Find("from") != nullptr) return FromShareGpt(message);
  return absl::InvalidArgumentError("no \"role\", expected \"role\" and \"content\"");
}

absl::Status AppendMessages(absl::string_view column, const Value& value,
                            std::vector<Value>* messages) {
  if (!value.is_list() || value.items().empty()) {
    return WrongType(column, value, "a list of one or more messages");
  }
  for (size_t i = 0; i < value.items().size(); ++i) {
    auto message = ReadMessage(value.items()[i]);
    if (!message.ok()) {
      return At(absl::StrCat("column \"", column, "\": message ", i), message.status());
    }
    messages->push_back(*std::move(message));
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(absl::string_view column, const Value& value, Sample* sample) {
  sample->form = Sample::Form::kTokenIds;
  if (!value.is_list()) return WrongType(column, value, "a list of token ids");
  sample->token_ids.reserve(value.items().size());
  for (const Value& id : value.items()) {
    if (!id.is_int() || id.integer() < 0 || id.integer() > INT32_MAX) {
      return WrongType(column, value, "integers from 0 to 2147483647 only");
    }
    sample->token_ids.push_back(static_cast<int32_t>(id.integer()));
  }
  return absl::OkStatus();
}

absl::Status ReadTextOrMessages(absl::string_view column, const Value& value, Sample* sample) {
  if (value.is_string()) {
    sample->text = value.string();
    return absl::OkStatus();
  }
  if (!value.is_list()) return WrongType(column, value, "text");
  sample->form = Sample::Form::kMessages;
  std::vector<Value> messages;
  LLMC_RETURN_IF_ERROR(AppendMessages(column, value, &messages));
  sample->messages = Value::MakeList(std::move(messages));
  return absl::OkStatus();
}

absl::Status ReadPromptCompletion(const Value& prompt, const Value& completion, Sample* sample) {
  if (prompt.is_string() && completion.is_string()) {
    sample->text = prompt.string() + completion.string();
    return absl::OkStatus();
  }
  if (prompt.is_string()) return WrongType("completion", completion, "text, as \"prompt\" is");
  sample->form = Sample::Form::kMessages;
  std::vector<Value> messages;
  LLMC_RETURN_IF_ERROR(AppendMessages("prompt", prompt, &messages));
  LLMC_RETURN_IF_ERROR(AppendMessages("completion", completion, &messages));
  sample->messages = Value::MakeList(std::move(messages));
  return absl::OkStatus();
}

absl::Status ReadColumns(const Value& columns, absl::string_view text_column, Sample* sample) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> chosen,
                        ChooseColumns(ColumnNames(columns), text_column));
  const Value& first = *columns.Find(chosen[0]);
  if (chosen.size() == 2) return ReadPromptCompletion(first, *columns.Find(chosen[1]), sample);
  if (chosen[0] == "input_ids") return ReadTokenIds(chosen[0], first, sample);
  const bool chat = chosen[0] == "messages" || chosen[0] == "conversations";
  if (chat && !first.is_list()) return WrongType(chosen[0], first, "a list of messages");
  return ReadTextOrMessages(chosen[0], first, sample);
}

TokenRow Truncate(std::vector<int32_t> ids, int64_t max_length) {
  TokenRow row;
  row.truncated = static_cast<int64_t>(ids.size()) > max_length;
  row.ids = std::move(ids);
  if (row.truncated) row.ids.resize(static_cast<size_t>(max_length));
  return row;
}

// How many of the special tokens `around` stand before `content` in `full`.
std::optional<size_t> CountBefore(const std::vector<int32_t>& full,
                                  const std::vector<int32_t>& content,
                                  const std::vector<int32_t>& around) {
  if (full.size() != content.size() + around.size()) return std::nullopt;
  for (size_t before = 0; before <= around.size(); ++before) {
    const auto middle = full.begin() + static_cast<int64_t>(before);
    if (std::equal(full.begin(), middle, around.begin()) &&
        std::equal(content.begin(), content.end(), middle) &&
        std::equal(middle + static_cast<int64_t>(content.size()), full.end(),
                   around.begin() + static_cast<int64_t>(before))) {
      return before;
    }
  }
  return std::nullopt;
}

}  // namespace

int64_t Sample::ByteSize() const {
  return static_cast<int64_t>(sizeof(Sample) + where.size() + text.size() +
                              token_ids.size() * sizeof(int32_t)) +
         messages.ByteSize();
}

absl::StatusOr<std::vector<std::string>> ChooseColumns(const std::vector<std::string>& columns,
                                                       absl::string_view text_column) {
  const std::string text(text_column);
  if (text_column != kDefaultTextColumn) {
    if (Contains(columns, text)) return std::vector<std::string>{text};
    return absl::InvalidArgumentError(
        absl::StrCat("no column \"", text, "\", the columns are: ", absl::StrJoin(columns, ", ")));
  }
  for (const char* name : {"input_ids", "text", "messages", "conversations"}) {
    if (Contains(columns, name)) return std::vector<std::string>{name};
  }
  if (Contains(columns, "prompt") && Contains(columns, "completion")) {
    return std::vector<std::string>{"prompt", "completion"};
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no column \"text\" (nor messages, conversations, prompt with completion, input_ids), the "
      "columns are: ",
      absl::StrJoin(columns, ", ")));
}

absl::StatusOr<Sample> ExtractSample(Row row, absl::string_view text_column) {
  Sample sample;
  LLMC_RETURN_IF_ERROR(At(row.where, ReadColumns(row.columns, text_column, &sample)));
  sample.where = std::move(row.where);
  return sample;
}

absl::StatusOr<std::vector<TokenRow>> SampleTokenizer::Tokenize(const std::vector<Sample>& samples,
                                                                int64_t max_length) {
  LLMC_RETURN_IF_ERROR(LoadTemplate(samples));
  std::vector<absl::StatusOr<TokenRow>> results(samples.size());
  ParallelFor(static_cast<int64_t>(samples.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    results[at] = TokenizeOne(samples[at], max_length);
  });
  std::vector<TokenRow> rows;
  rows.reserve(results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].ok()) return At(samples[i].where, results[i].status());
    rows.push_back(*std::move(results[i]));
  }
  return rows;
}

absl::Status SampleTokenizer::LoadTemplate(const std::vector<Sample>& samples) {
  if (template_ != nullptr) return absl::OkStatus();
  for (const Sample& sample : samples) {
    if (sample.form != Sample::Form::kMessages) continue;
    auto loaded = ChatTemplate::Load(model_dir_, tokenizer_);
    if (!loaded.ok()) return At(sample.where, loaded.status());
    template_ = *std::move(loaded);
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenRow> SampleTokenizer::TokenizeOne(const Sample& sample,
                                                      int64_t max_length) const {
  switch (sample.form) {
    case Sample::Form::kText:
      return TokenizeText(sample, max_length);
    case Sample::Form::kMessages:
      return TokenizeMessages(sample, max_length);
    case Sample::Form::kTokenIds:
      return CheckIds(sample, max_length);
  }
  return absl::InternalError("unknown form of sample");
}

absl::StatusOr<TokenRow> SampleTokenizer::TokenizeText(const Sample& sample,
                                                       int64_t max_length) const {
  LLMC_ASSIGN_OR_RETURN(std::vector<int32_t> full, tokenizer_.Encode(sample.text));
  if (static_cast<int64_t>(full.size()) <= max_length) return TokenRow{std::move(full), false};
  LLMC_ASSIGN_OR_RETURN(const std::vector<int32_t> content,
                        tokenizer_.Encode(sample.text, {.add_special_tokens = false}));
  LLMC_ASSIGN_OR_RETURN(const std::vector<int32_t> around, tokenizer_.Encode(""));
  const std::optional<size_t> before = CountBefore(full, content, around);
  const int64_t room = max_length - static_cast<int64_t>(around.size());
  if (!before || room < 0) return Truncate(std::move(full), max_length);
  TokenRow row;
  row.truncated = true;
  const auto split = around.begin() + static_cast<int64_t>(*before);
  row.ids.assign(around.begin(), split);
  row.ids.insert(row.ids.end(), content.begin(), content.begin() + room);
  row.ids.insert(row.ids.end(), split, around.end());
  return row;
}

absl::StatusOr<TokenRow> SampleTokenizer::TokenizeMessages(const Sample& sample,
                                                           int64_t max_length) const {
  const TemplateTokens tokens = {tokenizer_.bos_token(), tokenizer_.eos_token(),
                                 tokenizer_.pad_token(), tokenizer_.unk_token()};
  LLMC_ASSIGN_OR_RETURN(const std::string text, template_->Render(sample.messages, tokens));
  // The template has written BOS where the model wants one.
  LLMC_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                        tokenizer_.Encode(text, {.add_special_tokens = false}));
  return Truncate(std::move(ids), max_length);
}

absl::StatusOr<TokenRow> SampleTokenizer::CheckIds(const Sample& sample, int64_t max_length) const {
  for (size_t i = 0; i < sample.token_ids.size(); ++i) {
    if (sample.token_ids[i] < tokenizer_.vocab_size()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("column \"input_ids\": id ", sample.token_ids[i], " at position ", i,
                     ", expected below the vocabulary size ", tokenizer_.vocab_size()));
  }
  return Truncate(sample.token_ids, max_length);
}

}  // namespace llmc::dataset
