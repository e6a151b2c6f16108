#include "rpc/rpc_status.h"

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace llmc {
namespace {

google::rpc::ErrorInfo MakeErrorInfo(const std::string& reason) {
  google::rpc::ErrorInfo error;
  error.set_reason(reason);
  error.set_domain("llmc.dev");
  return error;
}

grpc::Status Pack(absl::StatusCode code, const std::string& message,
                  std::vector<const google::protobuf::Message*> details) {
  google::rpc::Status packed;
  packed.set_code(static_cast<int>(code));
  packed.set_message(message);
  for (const auto* detail : details) packed.add_details()->PackFrom(*detail);
  return grpc::Status(static_cast<grpc::StatusCode>(code), message, packed.SerializeAsString());
}

}  // namespace

grpc::Status ToRpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string reason = ReasonOf(status);
  if (reason.empty()) reason = absl::StatusCodeToString(status.code());
  const google::rpc::ErrorInfo error = MakeErrorInfo(reason);
  std::vector<const google::protobuf::Message*> details = {&error};
  google::rpc::RetryInfo retry;
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) {
    retry.mutable_retry_delay()->set_seconds(1);
    details.push_back(&retry);
  }
  return Pack(status.code(), std::string(status.message()), details);
}

grpc::Status ToRpcStatus(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad;
  for (const auto& [field, description] : violations) {
    google::rpc::BadRequest::FieldViolation& violation = *bad.add_field_violations();
    violation.set_field(field);
    violation.set_description(description);
  }
  const google::rpc::ErrorInfo error = MakeErrorInfo("INVALID_JOB");
  const std::string message = absl::StrCat(
      violations.front().first, ": ", violations.front().second,
      violations.size() > 1 ? absl::StrCat(" (and ", violations.size() - 1, " more)") : "");
  return Pack(absl::StatusCode::kInvalidArgument, message, {&error, &bad});
}

absl::Status FromRpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  std::string reason;
  google::rpc::Status packed;
  if (packed.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : packed.details()) {
      google::rpc::BadRequest bad;
      google::rpc::ErrorInfo error;
      if (detail.UnpackTo(&error)) reason = error.reason();
      if (!detail.UnpackTo(&bad) || bad.field_violations_size() < 2) continue;
      message = absl::StrCat(bad.field_violations_size(), " things are wrong:");
      for (const auto& violation : bad.field_violations()) {
        absl::StrAppend(&message, "\n  ", violation.field(), ": ", violation.description());
      }
    }
  }
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), message);
  return reason.empty() ? result : WithReason(reason, std::move(result));
}

}  // namespace llmc
