// Error handling shared by every folder: absl::Status plus two macros.
//
// A message reads "where: what, expected ...". The code says whose fault it is:
//   kInvalidArgument     the user's input is wrong (exit code 2)
//   kNotFound            a file or name that the user gave does not exist (2)
//   kPermissionDenied    a path may not be read or written (2)
//   kFailedPrecondition  the state is wrong, e.g. an output that is not ours (2)
//   kResourceExhausted   memory or disk is too small (2)
//   kUnimplemented       not in this build (2)
//   kCancelled           stopped by a signal after a clean stop, resumable (3)
//   kDataLoss            stored bytes are damaged (1)
//   kUnavailable         a peer is gone; a retry may help (1)
//   kAborted             another rank failed, or the lease is lost (1)
//   kInternal            a bug (1)
#ifndef LLMC_STATUS_H_
#define LLMC_STATUS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace llmc {

// Exit code of a program that ends with `status`: 0 done, 1 the work failed,
// 2 the request is wrong, 3 cancelled (resumable).
int ExitCode(const absl::Status& status);

// `status` with "where: " put before its message; an OK status stays OK.
absl::Status At(absl::string_view where, const absl::Status& status);

}  // namespace llmc

#define LLMC_CONCAT_INNER_(a, b) a##b
#define LLMC_CONCAT_(a, b) LLMC_CONCAT_INNER_(a, b)

// Returns from the calling function when `expr` is not OK.
#define LLMC_RETURN_IF_ERROR(expr)                                \
  do {                                                            \
    if (absl::Status llmc_status_ = (expr); !llmc_status_.ok()) { \
      return llmc_status_;                                        \
    }                                                             \
  } while (false)

// Evaluates a StatusOr; returns its error, or moves its value into `lhs`.
#define LLMC_ASSIGN_OR_RETURN(lhs, expr) \
  LLMC_ASSIGN_OR_RETURN_IMPL_(LLMC_CONCAT_(llmc_or_, __LINE__), lhs, expr)
#define LLMC_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr) \
  auto result = (expr);                                \
  if (!result.ok()) return std::move(result).status(); \
  lhs = *std::move(result)

#endif  // LLMC_STATUS_H_
