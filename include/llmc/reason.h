// A word that programs may rely on, beside a status's message for people.
#ifndef LLMC_REASON_H_
#define LLMC_REASON_H_

#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// Marks `status` with an UPPER_SNAKE reason; OK stays OK. Lost when ranks agree on
// a status.
absl::Status WithReason(absl::string_view reason, absl::Status status);
std::string ReasonOf(const absl::Status& status);  // "" when it has none.

}  // namespace llmc

#endif  // LLMC_REASON_H_
