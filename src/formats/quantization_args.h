// QuantizationArgs and Scheme to and from JSON, with the validity rules that the
// clients of compressed-tensors enforce.
#ifndef LLMC_FORMATS_QUANTIZATION_ARGS_H_
#define LLMC_FORMATS_QUANTIZATION_ARGS_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

// What a group's entry may be applied to.
enum class ArgsRole : uint8_t { kWeights, kInputActivations, kOutputActivations, kKvCache };

// "weights", "input_activations", "output_activations", "kv_cache_scheme".
absl::string_view ArgsRoleName(ArgsRole role);

// The 12 keys of a quantisation entry, in the reference's field order.
const std::vector<std::string>& QuantizationArgsKeys();

// Reads an entry that a user wrote. Missing keys take the reference's defaults
// (8-bit symmetric int); a missing `strategy` follows from `group_size` (none:
// tensor, > 0: group, -1: channel, stored as kChannel with no group_size).
// kInvalidArgument "num_bits: 5, expected 4 or 8 for type float" for an unknown
// key, a wrong type or a combination that the clients refuse. Messages start
// with the key, or with the strategy for combinations.
absl::StatusOr<QuantizationArgs> ParseQuantizationArgs(const nlohmann::json& json);

// The rules between fields; ParseQuantizationArgs has applied them.
absl::Status ValidateQuantizationArgs(const QuantizationArgs& args);

// What `args` may be in its role: weights are not dynamic, not per token, int of
// 2 to 8 bits or float; fp4 is symmetric in groups of 16 or 32; only weights
// have an actorder; inputs and outputs have no channel or block strategy; a KV
// cache is static and per tensor or per head. Stricter than the reference, which
// fails later or writes files that no client loads.
absl::Status ValidateArgsForRole(const QuantizationArgs& args, ArgsRole role);

// All parts of a scheme, each for its role.
absl::Status ValidateScheme(const Scheme& scheme);

// Always the 12 keys; `zp_dtype` is null when symmetric.
nlohmann::json QuantizationArgsToJson(const QuantizationArgs& args);

}  // namespace llmc

#endif  // LLMC_FORMATS_QUANTIZATION_ARGS_H_
