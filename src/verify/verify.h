// Proves that an output directory is sound, or says what is wrong with it.
#ifndef LLMC_VERIFY_VERIFY_H_
#define LLMC_VERIFY_VERIFY_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "nlohmann/json.hpp"

namespace llmc {

enum class ProblemCode : uint8_t {
  kUnreadable,        // config.json, an index or a weight file cannot be opened or parsed.
  kMissingTensor,     // The scheme promises a tensor that is not stored.
  kExtraTensor,       // Stored, but nothing promises it.
  kWrongDtype,        //
  kWrongShape,        //
  kBadScale,          // Not finite, not positive, or an E8M0 NaN.
  kBadValues,         // NaN codes, one code everywhere, integers out of range.
  kBadZeroPoint,      // Outside the range of the scheme.
  kPaddingBits,       // Unused bits of a packed row are not zero.
  kWeightShape,       // weight_shape is not the shape of the weight.
  kScaleDoesNotFit,   // Dequantised weight is too far from the dense one.
  kUntouchedChanged,  // A tensor that is not compressed differs from the source.
  kHashDiffers,       // Bytes are not those that the manifest records.
  kMissingFile,       // Tokenizer, generation config, a file of the manifest.
  kIndexWrong,        // total_size, total_parameters or weight_map.
  kTieFlag,           // tie_word_embeddings does not fit the tensors.
  kConfigWrong,       // quantization_config is not what clients load.
};

// "missing_tensor", ...: stable names for JSON output.
absl::string_view ProblemName(ProblemCode code);

struct Problem {
  ProblemCode code = ProblemCode::kUnreadable;
  std::string subject;  // Tensor, module or file name as stored (hostile).
  std::string text;     // What is wrong and what was expected, safe to print.
};

struct VerifyOptions {
  bool read_values = true;   // False: headers and files only.
  bool check_hashes = true;  // Against llmc_manifest.json, where there is one.
  // The recipe scaled, rotated or pruned weights (also concluded from recipe.yaml
  // and transform_config): dense tensors may differ from the source, and
  // dequantised weights are not compared with it.
  bool weights_transformed = false;
};

struct VerifyReport {
  std::vector<Problem> problems;  // By subject, then code.
  std::vector<std::string> warnings;
  int64_t num_tensors = 0;
  int64_t num_quantized_modules = 0;
  int64_t num_bytes_read = 0;
  int64_t num_weights_compared = 0;   // Modules dequantised and compared with the dense model.
  double largest_relative_error = 0;  // max over them of |W - W'|_F / |W|_F.
  std::string largest_error_module;

  bool ok() const { return problems.empty(); }
};

// Checks `dir`; with `against`, the dense directory it was made from, also that
// every dequantised weight is near the dense one and every other tensor is bit
// for bit the same. Memory: a few tensors per thread. An error only when `dir` or
// `against` does not exist; damage is a problem in the report.
absl::StatusOr<VerifyReport> VerifyCheckpoint(
    const std::filesystem::path& dir,
    const std::optional<std::filesystem::path>& against = std::nullopt,
    const VerifyOptions& options = {});

// One JSON object: ok, problems [{code, subject, text}], warnings, counts.
nlohmann::json ToJson(const VerifyReport& report);

}  // namespace llmc

#endif  // LLMC_VERIFY_VERIFY_H_
