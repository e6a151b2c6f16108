// What a resolution must satisfy before any work starts.
#ifndef LLMC_RECIPE_RESOLUTION_CHECKS_H_
#define LLMC_RECIPE_RESOLUTION_CHECKS_H_

#include <string>
#include <vector>

#include "llmc/status.h"
#include "recipe/resolve.h"

namespace llmc {

// "a, b, c" of at most 50 names, then "and N more".
std::string ListOf(const std::vector<std::string>& names);

// Every target and ignore entry matches something. A missing lm_head in `ignore` is
// a warning: tied models have none.
absl::Status CheckAllMatch(const Recipe& recipe, const QuantizationFields& fields,
                           const std::vector<ModuleRef>& modules, const ResolveOptions& options,
                           std::vector<std::string>& warnings);

// The part of it about an ignore list, for modifiers that quantise nothing.
absl::Status CheckIgnoresMatch(const Recipe& recipe, const std::vector<std::string>& ignore,
                               const std::vector<ModuleRef>& modules, const ResolveOptions& options,
                               std::vector<std::string>& warnings);

// At least one module or the KV cache is quantised.
absl::Status CheckSomethingHappens(const Recipe& recipe, const Resolution& resolution);

// Weight groups divide in_features; a warning where run-time groups of inputs do not.
absl::Status CheckGroupSizes(const Recipe& recipe, const std::vector<ModuleRef>& modules,
                             Resolution& resolution);

// Fused sets share one scheme: an error for NVFP4, else a warning.
absl::Status CheckFusedSets(const Recipe& recipe, const std::vector<ModuleRef>& modules,
                            Resolution& resolution);

}  // namespace llmc

#endif  // LLMC_RECIPE_RESOLUTION_CHECKS_H_
