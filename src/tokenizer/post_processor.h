// The `post_processor` of tokenizer.json: puts BOS, EOS and the like around ids.
#ifndef LLMC_TOKENIZER_POST_PROCESSOR_H_
#define LLMC_TOKENIZER_POST_PROCESSOR_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "llmc/status.h"

namespace llmc {

// Ids of the text, in as many parts as the steps so far have made of it.
using IdParts = std::vector<std::vector<int32_t>>;

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;

  // Rewrites `parts`. kInvalidArgument when a template meets more than two parts,
  // which its file does not provide for.
  virtual absl::Status Apply(bool add_special_tokens, IdParts* parts) const = 0;

  // Largest id it can add, -1 when none.
  virtual int32_t max_id() const = 0;
};

// The kinds TemplateProcessing, ByteLevel (which changes offsets only),
// BertProcessing, RobertaProcessing and Sequence; null for JSON null.
absl::StatusOr<std::unique_ptr<PostProcessor>> ParsePostProcessor(const nlohmann::json& json);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_POST_PROCESSOR_H_
