// Text to token ids, exactly as the Python package `tokenizers` gives them.
#ifndef LLMC_TOKENIZER_TOKENIZER_H_
#define LLMC_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

struct EncodeOptions {
  // Runs the post-processor of tokenizer.json, which adds BOS, EOS and the like
  // where the model wants them. Special tokens written out inside the text are
  // recognised either way.
  bool add_special_tokens = true;
};

// A Hugging Face `tokenizer.json`: added tokens, normalizer, pre-tokenizer,
// model (BPE or Unigram) and post-processor. Immutable, so every const member
// may be called from several threads at once; caches are inside. The
// `truncation` and `padding` fields of the file are ignored.
class Tokenizer {
 public:
  // Reads `model_dir`/tokenizer.json and, where there are any,
  // tokenizer_config.json (special tokens' names, model_max_length) and
  // special_tokens_map.json (names that the former lacks). kNotFound when the
  // directory does not exist; kInvalidArgument when tokenizer.json is absent, is
  // damaged, or asks for something that llmc cannot do exactly (the message names
  // the part and its type).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& model_dir);

  // The same from text already in memory; `config_json` may be empty.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view tokenizer_json,
                                                             absl::string_view config_json = "");

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Ids of `text`, each in [0, vocab_size()). kInvalidArgument when `text` is not
  // UTF-8 (the message gives the byte offset of the first wrong byte) or when a
  // character needs an unknown token that the file lacks. (A BPE model that names
  // no unknown token leaves such characters out, as the package does.)
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options = {}) const;

  // Largest id plus one, added tokens included.
  int32_t vocab_size() const;

  // Id of a token or added token as tokenizer.json spells it.
  std::optional<int32_t> IdOf(absl::string_view token) const;

  // The token with that id, as tokenizer.json spells it.
  std::optional<std::string> TokenOf(int32_t id) const;

  // Special tokens that tokenizer_config.json names, e.g. "<s>"; their ids.
  // Absent where the file does not name one or names one that does not exist.
  const std::optional<std::string>& bos_token() const;
  const std::optional<std::string>& eos_token() const;
  const std::optional<std::string>& pad_token() const;
  const std::optional<std::string>& unk_token() const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;

  // Longest sequence the model was made for, in tokens; absent where the file
  // says nothing or the "no limit" number that transformers writes.
  std::optional<int64_t> model_max_length() const;

  // The chat template of tokenizer_config.json ("default" of a named list), if it
  // has one. Models also ship it as chat_template.jinja; that file is the caller's.
  const std::optional<std::string>& chat_template() const;

 private:
  struct Parts;
  static absl::StatusOr<std::unique_ptr<Parts>> ParseParts(absl::string_view tokenizer_json);
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_TOKENIZER_H_
