#include "llmc/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

namespace llmc {
namespace {

TEST(ExitCode, EveryCode_SaysWhoseFaultItIs) {
  using absl::StatusCode;
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  for (StatusCode code : {StatusCode::kInvalidArgument, StatusCode::kNotFound,
                          StatusCode::kPermissionDenied, StatusCode::kFailedPrecondition,
                          StatusCode::kResourceExhausted, StatusCode::kUnimplemented}) {
    EXPECT_EQ(ExitCode(absl::Status(code, "x")), 2);
  }
  for (StatusCode code : {StatusCode::kDataLoss, StatusCode::kUnavailable, StatusCode::kAborted,
                          StatusCode::kInternal, StatusCode::kUnknown}) {
    EXPECT_EQ(ExitCode(absl::Status(code, "x")), 1);
  }
  EXPECT_EQ(ExitCode(absl::CancelledError("x")), 3);
}

TEST(At, Failure_PlaceGoesBeforeTheMessage) {
  EXPECT_EQ(At("file", absl::DataLossError("damaged")), absl::DataLossError("file: damaged"));
}

TEST(At, Ok_StaysOk) { EXPECT_TRUE(At("file", absl::OkStatus()).ok()); }

absl::StatusOr<std::unique_ptr<int>> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError("odd");
  return std::make_unique<int>(number / 2);
}

absl::StatusOr<int> Quarter(int number) {
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<int> half, Half(number));
  LLMC_ASSIGN_OR_RETURN(std::unique_ptr<int> quarter, Half(*half));
  return *std::exchange(quarter, nullptr);
}

absl::Status CountedFailure(int& evaluations, bool fails) {
  LLMC_RETURN_IF_ERROR(++evaluations > 0 && fails ? absl::InternalError("no") : absl::OkStatus());
  evaluations += 10;
  return absl::OkStatus();
}

TEST(AssignOrReturn, Values_AreMovedAndErrorsReturned) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(7).status(), absl::InvalidArgumentError("odd"));
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));
}

TEST(ReturnIfError, Expression_IsEvaluatedOnce) {
  int evaluations = 0;
  EXPECT_TRUE(CountedFailure(evaluations, false).ok());
  EXPECT_EQ(evaluations, 11);
  evaluations = 0;
  EXPECT_EQ(CountedFailure(evaluations, true), absl::InternalError("no"));
  EXPECT_EQ(evaluations, 1);
}

}  // namespace
}  // namespace llmc
