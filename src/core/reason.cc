#include "llmc/reason.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace llmc {
namespace {

constexpr char kReasonUrl[] = "llmc.dev/reason";

}  // namespace

absl::Status WithReason(absl::string_view reason, absl::Status status) {
  if (!status.ok()) status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> reason = status.GetPayload(kReasonUrl);
  return reason ? std::string(*reason) : "";
}

}  // namespace llmc
