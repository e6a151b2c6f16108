// Reads rotary position embedding parameters in both spellings of config.json.
#ifndef LLMC_ARCHITECTURE_ROPE_PARAMETERS_H_
#define LLMC_ARCHITECTURE_ROPE_PARAMETERS_H_

#include "architecture/model_spec.h"
#include "llmc/status.h"
#include "nlohmann/json.hpp"

namespace llmc {

// `config` is the whole config.json (an object). New spelling: `rope_parameters`;
// old: `rope_theta`, `rope_scaling` {`type` or `rope_type`, ...}. `rope_scaling`
// wins where both are given, as in transformers.
absl::StatusOr<RopeParameters> ParseRopeParameters(const nlohmann::json& config, int64_t head_dim,
                                                   int64_t max_position_embeddings);

}  // namespace llmc

#endif  // LLMC_ARCHITECTURE_ROPE_PARAMETERS_H_
