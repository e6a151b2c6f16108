#include "rpc/job_messages.h"

#include <gtest/gtest.h>

#include "google/protobuf/util/message_differencer.h"
#include "google/rpc/error_details.pb.h"
#include "rpc/rpc_status.h"

namespace llmc {
namespace {

using google::protobuf::util::MessageDifferencer;

TEST(JobMessages, AnEmptySpec_HasTheDefaultsOfAJob) {
  const Job job = ToJob(v1::JobSpec());
  const Job defaults;
  EXPECT_EQ(job.num_calibration_samples, defaults.num_calibration_samples);
  EXPECT_EQ(job.max_seq_length, defaults.max_seq_length);
  EXPECT_EQ(job.seed, defaults.seed);
  EXPECT_EQ(job.shuffle, defaults.shuffle);
  EXPECT_EQ(job.text_column, defaults.text_column);
  EXPECT_EQ(job.max_shard_bytes, defaults.max_shard_bytes);
  EXPECT_EQ(job.eval_num_windows, defaults.eval_num_windows);
  EXPECT_EQ(job.device, defaults.device);
}

TEST(JobMessages, EveryFieldOfASpec_SurvivesTheWayThroughAJob) {
  v1::JobSpec spec;
  spec.set_model("/m");
  spec.set_recipe_text("x: y");
  spec.add_datasets("/d1");
  spec.add_datasets("/d2");
  spec.set_output("/o");
  spec.set_num_calibration_samples(7);
  spec.set_max_seq_length(9);
  spec.set_text_column("body");
  spec.set_seed(UINT64_MAX);
  spec.set_no_shuffle(true);
  spec.set_memory_budget_bytes(1 << 30);
  spec.set_work_dir("/w");
  spec.set_max_shard_bytes(1 << 20);
  spec.set_device("cpu");
  spec.set_compute_dtype(v1::COMPUTE_DTYPE_BFLOAT16);
  spec.set_quotient_rounding(v1::QUOTIENT_ROUNDING_FLOAT32);
  spec.add_eval_datasets("/e");
  spec.set_eval_num_windows(3);
  spec.set_sparse_format(v1::SPARSE_FORMAT_SPARSE_24_BITMASK);
  spec.set_device_memory_budget_bytes(5'000'000);
  // A field that is added to the proto must be added here and to the conversions.
  EXPECT_EQ(v1::JobSpec::descriptor()->field_count(), 20);
  EXPECT_TRUE(MessageDifferencer::Equals(ToJobSpec(ToJob(spec)), spec));
}

TEST(JobMessages, Steps_SurviveTheWire) {
  StepEvent event;
  event.kind = StepEvent::Kind::kLinear;
  event.step = Step::kSolve;
  event.rank = 3;
  event.layer = 5;
  event.num_layers = 9;
  event.module = "model.layers.5.mlp.up_proj";
  event.output_error = 0.25;
  event.message = "GPTQ";
  const StepEvent back = ToStepEvent(ToStepRecord(event));
  EXPECT_EQ(back.kind, event.kind);
  EXPECT_EQ(back.step, event.step);
  EXPECT_EQ(back.layer, 5);
  EXPECT_EQ(back.module, event.module);
  EXPECT_EQ(back.output_error, 0.25);
  v1::StepRecord newer;
  newer.set_step("Polish");
  newer.set_kind(v1::StepRecord::KIND_END);
  EXPECT_EQ(ToStepEvent(newer).kind, StepEvent::Kind::kWarning);
}

TEST(RpcStatus, Reasons_SurviveTheWire) {
  const absl::Status status = WithReason("JOB_STATE", absl::FailedPreconditionError("no"));
  const absl::Status back = FromRpcStatus(ToRpcStatus(status));
  EXPECT_EQ(back.code(), status.code());
  EXPECT_EQ(back.message(), "no");
  EXPECT_EQ(ReasonOf(back), "JOB_STATE");
}

TEST(RpcStatus, Violations_AreAllInOneBadRequest) {
  const grpc::Status status = ToRpcStatus(std::vector<FieldViolation>{{"a", "one"}, {"b", "two"}});
  google::rpc::Status packed;
  ASSERT_TRUE(packed.ParseFromString(status.error_details()));
  int bad_requests = 0;
  for (const auto& detail : packed.details()) {
    google::rpc::BadRequest bad;
    if (!detail.UnpackTo(&bad)) continue;
    ++bad_requests;
    EXPECT_EQ(bad.field_violations_size(), 2);
  }
  EXPECT_EQ(bad_requests, 1);
  EXPECT_NE(FromRpcStatus(status).message().find("b: two"), absl::string_view::npos);
}

}  // namespace
}  // namespace llmc
