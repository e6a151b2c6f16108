// absl::Status on the wire and back, with Google's error details.
#ifndef LLMC_RPC_RPC_STATUS_H_
#define LLMC_RPC_RPC_STATUS_H_

#include <string>
#include <utility>
#include <vector>

#include "grpcpp/support/status.h"
#include "llmc/reason.h"
#include "llmc/status.h"

namespace llmc {

// Field path such as "job.spec.model", and what is wrong with it.
using FieldViolation = std::pair<std::string, std::string>;

// One ErrorInfo (reason, or the code's name when the status has none; domain
// "llmc.dev"), RetryInfo where a retry may help.
grpc::Status ToRpcStatus(const absl::Status& status);

// INVALID_ARGUMENT with one BadRequest that lists all of them.
grpc::Status ToRpcStatus(const std::vector<FieldViolation>& violations);

// The reverse; the violations become lines of the message.
absl::Status FromRpcStatus(const grpc::Status& status);

}  // namespace llmc

#endif  // LLMC_RPC_RPC_STATUS_H_
