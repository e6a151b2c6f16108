// The `normalizer` of tokenizer.json: text to text, before it is cut.
#ifndef LLMC_TOKENIZER_NORMALIZER_H_
#define LLMC_TOKENIZER_NORMALIZER_H_

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "llmc/status.h"

namespace llmc {

// A text on its way, valid UTF-8. `head` counts its leading bytes that stem from
// the first character of the input: Metaspace's "first" scheme asks whether a
// piece begins there. 0 for a piece that begins later.
struct NormalizedText {
  std::string text;
  size_t head = 0;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;

  // Rewrites `text`. Fails only as Regex::FindAll does.
  virtual absl::Status Apply(NormalizedText* text) const = 0;
};

// A normalizer of the kinds NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace,
// Strip, StripAccents, Nmt, ByteLevel and Sequence; null for JSON null.
absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const nlohmann::json& json);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_NORMALIZER_H_
