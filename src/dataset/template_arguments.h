// Reading the arguments of a filter, test, method or function.
#ifndef LLMC_DATASET_TEMPLATE_ARGUMENTS_H_
#define LLMC_DATASET_TEMPLATE_ARGUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// The argument at `position` or called `name`; `fallback` when it is not given.
// kInvalidArgument when it has another type.
absl::StatusOr<int64_t> IntegerArgument(const CallArguments& arguments, size_t position,
                                        absl::string_view name, int64_t fallback);
absl::StatusOr<bool> BoolArgument(const CallArguments& arguments, size_t position,
                                  absl::string_view name, bool fallback);
absl::StatusOr<std::string> TextArgument(const CallArguments& arguments, size_t position,
                                         absl::string_view name, absl::string_view fallback);

// As TextArgument, but it must be given.
absl::StatusOr<std::string> RequiredText(const CallArguments& arguments, size_t position,
                                         absl::string_view name);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_ARGUMENTS_H_
