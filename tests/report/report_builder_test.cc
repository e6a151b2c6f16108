#include "report/report_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/badness.h"
#include "report/step_stream.h"

namespace llmc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StepEvent Event(StepEvent::Kind kind, Step step, int rank, int64_t layer, double time_s) {
  StepEvent event;
  event.kind = kind;
  event.step = step;
  event.rank = rank;
  event.layer = layer;
  event.time_s = time_s;
  return event;
}

StepEvent LinearEvent(const std::string& module, double error, const std::string& message) {
  StepEvent event = Event(StepEvent::Kind::kLinear, Step::kSolve, 0, 2, 5);
  event.module = module;
  event.output_error = error;
  event.message = message;
  return event;
}

TEST(ReportBuilder, BeginAndEndOfMixedRanks_MakeIntervalsByRank) {
  ReportBuilder builder;
  builder.Add(Event(StepEvent::Kind::kBegin, Step::kSolve, 1, 0, 1));
  builder.Add(Event(StepEvent::Kind::kBegin, Step::kSolve, 0, 0, 2));
  builder.Add(Event(StepEvent::Kind::kBegin, Step::kLoad, 0, 1, 2.5));
  builder.Add(Event(StepEvent::Kind::kEnd, Step::kSolve, 1, 0, 4));
  builder.Add(Event(StepEvent::Kind::kEnd, Step::kSolve, 0, 0, 7));
  builder.Add(Event(StepEvent::Kind::kEnd, Step::kLoad, 0, 1, 3));
  const RunReport report = std::move(builder).Build();
  ASSERT_EQ(report.steps.size(), 3u);
  EXPECT_EQ(report.steps[0].rank, 0);
  EXPECT_EQ(report.steps[0].begin_s, 2);
  EXPECT_EQ(report.steps[0].end_s, 7);
  EXPECT_EQ(report.steps[1].step, Step::kLoad);
  EXPECT_EQ(report.steps[2].rank, 1);
  EXPECT_EQ(report.environment.num_ranks, 2);
  EXPECT_EQ(report.num_layers, 2);
  EXPECT_EQ(report.wall_time_s, 7);
}

TEST(ReportBuilder, RunStopsInsideAStep_ClosesItAsUnfinished) {
  ReportBuilder builder;
  builder.Add(Event(StepEvent::Kind::kBegin, Step::kSolve, 0, 0, 1));
  builder.Add(Event(StepEvent::Kind::kProgress, Step::kSolve, 0, 0, 9));
  const RunReport report = std::move(builder).Build();
  ASSERT_EQ(report.steps.size(), 1u);
  EXPECT_FALSE(report.steps[0].finished);
  EXPECT_EQ(report.steps[0].end_s, 9);
}

TEST(ReportBuilder, EndWithoutBegin_IsOnlyAMemorySample) {
  ReportBuilder builder;
  StepEvent event = Event(StepEvent::Kind::kEnd, Step::kSolve, 0, 0, 1);
  event.rss_bytes = 77;
  builder.Add(event);
  const RunReport report = std::move(builder).Build();
  EXPECT_TRUE(report.steps.empty());
  ASSERT_EQ(report.memory.size(), 1u);
  EXPECT_EQ(report.memory[0].rss_bytes, 77);
}

TEST(ReportBuilder, LinearEvent_FillsThePlannedRow) {
  ReportBuilder builder;
  LinearRow planned;
  planned.module = "model.layers.2.mlp.up_proj";
  planned.layer = 2;
  planned.scheme = "W4A16 g128";
  planned.shape = {8, 4};
  planned.bytes_after = 20;
  planned.method = "GPTQ";
  builder.AddLinear(planned);
  builder.Add(LinearEvent(planned.module, 0.25, "GPTQ damping=0.01 tokens=100"));
  builder.Add(LinearEvent(planned.module, 0.5, "GPTQ damping=0.1 tokens=90"));
  const RunReport report = std::move(builder).Build();
  ASSERT_EQ(report.linears.size(), 1u);
  const LinearRow& row = report.linears[0];
  EXPECT_EQ(row.scheme, "W4A16 g128");
  EXPECT_EQ(*row.output_error, 0.5) << "the largest of all ranks";
  EXPECT_EQ(*row.damping_frac, 0.1);
  EXPECT_EQ(*row.num_tokens, 100);
  EXPECT_FALSE(row.is_fallback);
  EXPECT_EQ(report.bits_per_weight, 5) << "20 bytes over 32 weights";
}

TEST(ReportBuilder, LinearEventWithoutPlan_MakesARow) {
  ReportBuilder builder;
  builder.Add(LinearEvent("lm_head", -1, "RTN fallback: no tokens"));
  const RunReport report = std::move(builder).Build();
  ASSERT_EQ(report.linears.size(), 1u);
  EXPECT_FALSE(report.linears[0].output_error.has_value()) << "negative: not measured";
  EXPECT_TRUE(report.linears[0].is_fallback);
  EXPECT_EQ(report.linears[0].method, "RTN");
  EXPECT_EQ(report.linears[0].reason, "no tokens");
}

TEST(ReportBuilder, NanErrorOfOneRank_StaysTheWorst) {
  ReportBuilder builder;
  builder.Add(LinearEvent("a", 0.5, ""));
  builder.Add(LinearEvent("a", NAN, ""));
  builder.Add(LinearEvent("a", 0.7, ""));
  const RunReport report = std::move(builder).Build();
  EXPECT_TRUE(std::isnan(*report.linears[0].output_error));
}

TEST(ReportBuilder, JsonLinesOfAnotherRank_AreAdded) {
  StepEvent begin = Event(StepEvent::Kind::kBegin, Step::kCapture, 5, 1, 2);
  StepEvent end = Event(StepEvent::Kind::kEnd, Step::kCapture, 5, 1, 3);
  ReportBuilder builder;
  ASSERT_TRUE(builder.AddJsonLines(ToJsonLine(begin) + "\n\n" + ToJsonLine(end)).ok());
  const RunReport report = std::move(builder).Build();
  ASSERT_EQ(report.steps.size(), 1u);
  EXPECT_EQ(report.steps[0].rank, 5);
}

TEST(ReportBuilder, BadJsonLine_IsNamedAndEarlierOnesAreKept) {
  ReportBuilder builder;
  const std::string good = ToJsonLine(Event(StepEvent::Kind::kWarning, Step::kPlan, 0, -1, 0));
  const absl::Status status = builder.AddJsonLines(good + "\n" + good + "\noops\n" + good);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 3"));
  EXPECT_EQ(std::move(builder).Build().warnings.size(), 2u);
}

TEST(ReportBuilder, TooManyWarnings_AreCountedNotKept) {
  ReportBuilder builder;
  for (size_t i = 0; i < ReportBuilder::kMaxWarnings + 7; ++i) {
    builder.Add(Event(StepEvent::Kind::kWarning, Step::kSolve, 0, 0, 1));
  }
  const RunReport report = std::move(builder).Build();
  EXPECT_EQ(report.warnings.size(), ReportBuilder::kMaxWarnings);
  EXPECT_EQ(report.warnings_dropped, 7);
}

LinearRow Row(const std::string& module, int64_t layer, std::optional<double> error) {
  LinearRow row;
  row.module = module;
  row.layer = layer;
  row.output_error = error;
  return row;
}

TEST(WorstFirst, NotFiniteThenLargest_UnmeasuredLast) {
  std::vector<LinearRow> rows = {Row("small", 0, 0.1), Row("none", 0, std::nullopt),
                                 Row("nan", 0, NAN), Row("fallback", 0, std::nullopt),
                                 Row("large", 0, 0.9)};
  rows[3].is_fallback = true;
  std::vector<std::string> order;
  for (const LinearRow* row : WorstFirst(rows, 10)) order.push_back(row->module);
  EXPECT_THAT(order, ElementsAre("nan", "large", "small", "fallback", "none"));
  EXPECT_EQ(WorstFirst(rows, 2).size(), 2u);
}

TEST(KindOf, LayerAndExpertNumbers_AreTakenOut) {
  EXPECT_EQ(KindOf(Row("model.layers.3.self_attn.q_proj", 3, 0)), "self_attn.q_proj");
  EXPECT_EQ(KindOf(Row("model.layers.3.mlp.experts.3.up_proj", 3, 0)), "mlp.experts.*.up_proj");
  EXPECT_EQ(KindOf(Row("lm_head", -1, 0)), "lm_head");
  EXPECT_EQ(KindOf(Row("odd", 5, 0)), "odd");
  EXPECT_EQ(KindOf(Row("", 5, 0)), "");
}

}  // namespace
}  // namespace llmc
