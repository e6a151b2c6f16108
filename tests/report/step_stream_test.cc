#include "report/step_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace llmc {
namespace {

using ::testing::HasSubstr;

StepEvent FullEvent() {
  StepEvent event;
  event.kind = StepEvent::Kind::kLinear;
  event.step = Step::kSolve;
  event.rank = 3;
  event.layer = 17;
  event.num_layers = 80;
  event.time_s = 12.0625;
  event.done_frac = 0.5;
  event.rss_bytes = 5'000'000'000;
  event.module = "model.layers.17.mlp.down_proj";
  event.output_error = 1.0 / 3;
  event.message = "GPTQ damping=0.01";
  return event;
}

void ExpectSame(const StepEvent& a, const StepEvent& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.layer, b.layer);
  EXPECT_EQ(a.num_layers, b.num_layers);
  EXPECT_EQ(a.time_s, b.time_s);
  EXPECT_EQ(a.done_frac, b.done_frac);
  EXPECT_EQ(a.rss_bytes, b.rss_bytes);
  EXPECT_EQ(a.module, b.module);
  EXPECT_EQ(a.output_error, b.output_error);
  EXPECT_EQ(a.message, b.message);
}

TEST(StepEventJson, FullEvent_ComesBackTheSame) {
  const std::string line = ToJsonLine(FullEvent());
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto event = StepEventFromJsonLine(line);
  ASSERT_TRUE(event.ok()) << event.status();
  ExpectSame(*event, FullEvent());
}

TEST(StepEventJson, EveryKindAndStep_ComesBackTheSame) {
  for (int kind = 0; kind < 5; ++kind) {
    for (int step = 0; step <= static_cast<int>(Step::kVerify); ++step) {
      StepEvent event;
      event.kind = static_cast<StepEvent::Kind>(kind);
      event.step = static_cast<Step>(step);
      const auto back = StepEventFromJsonLine(ToJsonLine(event));
      ASSERT_TRUE(back.ok()) << back.status();
      ExpectSame(*back, event);
    }
  }
}

TEST(StepEventJson, HostileText_StaysOneLineOfUtf8) {
  StepEvent event = FullEvent();
  event.module = "a\nb\"\\\x1b[31m\xff";
  const std::string line = ToJsonLine(event);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = StepEventFromJsonLine(line);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->module, "a\nb\"\\\x1b[31m\xef\xbf\xbd");
}

TEST(StepEventJson, ErrorIsNotFinite_ComesBackAsNan) {
  StepEvent event = FullEvent();
  event.output_error = NAN;
  const auto back = StepEventFromJsonLine(ToJsonLine(event));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(std::isnan(back->output_error));
}

TEST(StepEventJson, BadLines_AreDataLossWithAReason) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "JSON object"},
      {"[]", "JSON object"},
      {"{\"kind\":\"begin\"", "JSON object"},
      {R"({"step":"Load"})", "kind"},
      {R"({"kind":"start","step":"Load"})", "kind"},
      {R"({"kind":"begin","step":"load"})", "step"},
      {R"({"kind":1,"step":"Load"})", "kind"},
      {R"({"kind":"begin","step":"Load","rank":-1})", "rank"},
      {R"({"kind":"begin","step":"Load","rank":1.5})", "rank"},
      {R"({"kind":"begin","step":"Load","rank":18446744073709551615})", "rank"},
      {R"({"kind":"begin","step":"Load","layer":-2})", "layer"},
      {R"({"kind":"begin","step":"Load","layer":1e300})", "layer"},
      {R"({"kind":"begin","step":"Load","time_s":-1})", "time_s"},
      {R"({"kind":"begin","step":"Load","time_s":null})", "time_s"},
      {R"({"kind":"progress","step":"Load","done_frac":2})", "done_frac"},
      {R"({"kind":"begin","step":"Load","module":7})", "module"},
  };
  for (const auto& [line, what] : cases) {
    const auto event = StepEventFromJsonLine(line);
    ASSERT_FALSE(event.ok()) << line;
    EXPECT_EQ(event.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(event.status().message()), HasSubstr(what)) << line;
  }
}

TEST(StepEventJson, OverlongOrDeeplyNestedLine_IsRefused) {
  EXPECT_FALSE(StepEventFromJsonLine(std::string(70000, ' ') + "{}").ok());
  EXPECT_FALSE(StepEventFromJsonLine(std::string(60000, '[')).ok());
}

TEST(FanOut, EmptyFunctionAmongSinks_IsSkipped) {
  int calls = 0;
  const StepSink sink =
      FanOut({[&](const StepEvent&) { ++calls; }, nullptr, [&](const StepEvent&) { calls += 10; }});
  sink(FullEvent());
  EXPECT_EQ(calls, 11);
}

TEST(SolveNote, AllFields_ComeBackTheSame) {
  const SolveNote note = {"RTN", true, 0.1, 12, "Hessian: not positive definite"};
  EXPECT_EQ(ToString(note), "RTN fallback damping=0.1 tokens=12: Hessian: not positive definite");
  EXPECT_EQ(ParseSolveNote(ToString(note)), note);
  const SolveNote plain = {"GPTQ", false, std::nullopt, std::nullopt, ""};
  EXPECT_EQ(ParseSolveNote(ToString(plain)), plain);
  const SolveNote pruned = {"SparseGPT + GPTQ", false, 0.01, 7, "", 0.5};
  EXPECT_EQ(ToString(pruned), "SparseGPT + GPTQ damping=0.01 tokens=7 sparsity=0.5");
  EXPECT_EQ(ParseSolveNote(ToString(pruned)), pruned);
}

TEST(SolveNote, FreeText_BecomesMethodAndReason) {
  EXPECT_EQ(ParseSolveNote("").method, "");
  const SolveNote note = ParseSolveNote("some other solver: because");
  EXPECT_EQ(note.method, "some other solver");
  EXPECT_EQ(note.reason, "because");
  EXPECT_EQ(ParseSolveNote("GPTQ tokens=many").method, "GPTQ tokens=many");
}

}  // namespace
}  // namespace llmc
