#include "report/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "report/error_chart.h"
#include "report/html_text.h"
#include "sample_report.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using Json = nlohmann::json;

TEST(ReportJson, SampleRun_HasTheDocumentedKeys) {
  const Json json = Json::parse(ToJson(NamedSample("ranks4")));
  for (const char* key : {"schema_version",
                          "verdict",
                          "verdict_message",
                          "started_at",
                          "wall_time_s",
                          "model",
                          "output",
                          "command_line",
                          "reproduce_command",
                          "recipe",
                          "calibration",
                          "evaluation",
                          "planned_rank_peak_bytes",
                          "rank_budget_bytes",
                          "planned_device_peak_bytes",
                          "device_peak_bytes",
                          "environment",
                          "versions",
                          "hashes",
                          "resumed_from",
                          "omitted",
                          "warnings",
                          "linears",
                          "steps",
                          "memory"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json.size(), 25u) << "a new key belongs into docs/report-schema.md";
  EXPECT_EQ(json["schema_version"], 1);
  EXPECT_EQ(json["verdict"], "succeeded");
  EXPECT_EQ(json["linears"].size(), 36u * 7);
  EXPECT_EQ(json["linears"][0]["shape"], (Json::array({4096, 4096})));
  EXPECT_EQ(json["steps"]["rank"].size(), json["steps"]["begin_s"].size());
  EXPECT_EQ(json["environment"]["num_ranks"], 4);
}

TEST(ReportJson, EverySample_ComesBackTheSame) {
  for (const char* name : {"dense", "ranks4", "failed", "datafree", "clean"}) {
    const std::string text = ToJson(NamedSample(name));
    const auto report = ReportFromJson(text);
    ASSERT_TRUE(report.ok()) << name << ": " << report.status();
    EXPECT_EQ(ToJson(*report), text) << name;
  }
}

TEST(ReportJson, ErrorNotFiniteAndNotMeasured_StayApart) {
  RunReport report;
  report.linears.resize(3);
  report.linears[0].output_error = NAN;
  report.linears[1].output_error = 0.25;
  const auto back = ReportFromJson(ToJson(report));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(std::isnan(*back->linears[0].output_error));
  EXPECT_EQ(*back->linears[1].output_error, 0.25);
  EXPECT_FALSE(back->linears[2].output_error.has_value());
}

TEST(ReportJson, UnknownKey_IsIgnored) {
  Json json = Json::parse(ToJson(NamedSample("clean")));
  json["added_later"] = {{"x", 1}};
  EXPECT_TRUE(ReportFromJson(json.dump()).ok());
}

TEST(ReportJson, NewerSchema_IsRefused) {
  Json json = Json::parse(ToJson(RunReport()));
  json["schema_version"] = 2;
  EXPECT_EQ(ReportFromJson(json.dump()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ReportJson, EveryValueOfAnotherType_IsDataLossOrIgnored) {
  const Json good = Json::parse(ToJson(NamedSample("clean")));
  const Json replacements[] = {nullptr,       -1, 1e300, "text", true, Json::array({1, "x"}),
                               Json{{"a", 1}}};
  for (const auto& [key, unused] : good.items()) {
    for (const Json& value : replacements) {
      Json bad = good;
      bad[key] = value;
      const auto report = ReportFromJson(bad.dump());
      if (report.ok()) {
        EXPECT_LE(ToHtml(*report).size(), kMaxHtmlBytes) << key;
      } else {
        EXPECT_THAT(std::string(report.status().message()), HasSubstr("report")) << key;
      }
    }
  }
}

TEST(ReportJson, StepColumnsOfUnequalLength_AreDataLoss) {
  Json json = Json::parse(ToJson(NamedSample("clean")));
  json["steps"]["end_s"].erase(0);
  EXPECT_EQ(ReportFromJson(json.dump()).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ReportJson, InvalidUtf8_IsStillJson) {
  RunReport report;
  report.model_name = "\xff\xfe";
  EXPECT_NO_THROW(Json::parse(ToJson(report)));
}

TEST(ReportHtml, HostileStrings_NeverBecomeMarkup) {
  const std::string html = ToHtml(NamedSample("hostile"));
  EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_EQ(html.find('\x1b'), std::string::npos);
  EXPECT_THAT(html, Not(HasSubstr("\xe2\x80\xae")));
  EXPECT_EQ(std::vector<std::string>(absl::StrSplit(html, "</script>")).size(), 2u)
      << "only the island ends a script element";
}

TEST(ReportHtml, EverySample_FitsItsLimitAndNeedsNothingElse) {
  for (const char* name : {"dense", "large", "experts", "failed", "datafree", "hostile"}) {
    const std::string html = ToHtml(NamedSample(name));
    EXPECT_LE(html.size(), kMaxHtmlBytes) << name;
    for (const char* outside : {"src=\"", "url(", "@import", "<link", "http://", "https://"}) {
      EXPECT_THAT(html, Not(HasSubstr(outside))) << name;
    }
  }
}

TEST(ReportHtml, ManyMoreLinearsThanFit_SaysWhatItLeavesOut) {
  RunReport report = SampleReport({60, 32, 256});
  const std::string html = ToHtml(report);
  EXPECT_LE(html.size(), kMaxHtmlBytes);
  EXPECT_THAT(html, HasSubstr("The worst"));
  const size_t island = html.find("id=\"llmc-report\">") + 17;
  const Json json = Json::parse(html.substr(island, html.find("</script>", island) - island));
  EXPECT_EQ(json["linears"].size() + json["omitted"]["linears"].get<size_t>(),
            report.linears.size());
  EXPECT_EQ(Json::parse(ToJson(report))["linears"].size(), report.linears.size());
}

TEST(ReportHtml, EndlessStrings_AreCut) {
  RunReport report = NamedSample("clean");
  const std::string endless(3 << 20, '<');
  report.recipe = report.command_line = report.reproduce_command = report.model_name = endless;
  report.verdict_message = report.architecture = report.scheme = endless;
  for (LinearRow& row : report.linears) row.module = row.reason = endless;
  for (int i = 0; i < 1000; ++i) report.versions.emplace_back(endless.substr(0, 5000), "x");
  const std::string html = ToHtml(report);
  EXPECT_LE(html.size(), kMaxHtmlBytes);
  EXPECT_THAT(html, HasSubstr("[cut here]"));
}

TEST(ReportHtml, NothingKnown_IsStillAPage) {
  const std::string html = ToHtml(RunReport());
  EXPECT_THAT(html, HasSubstr("Succeeded"));
  EXPECT_THAT(html, HasSubstr("</html>"));
}

TEST(ReportHtml, NonsenseNumbers_DoNotReachTheCharts) {
  RunReport report = NamedSample("clean");
  report.wall_time_s = INFINITY;
  report.steps[0].begin_s = NAN;
  report.steps[1].end_s = 1e300;
  report.steps[2].begin_s = -5;
  report.steps[3].layer = int64_t{1} << 60;
  report.linears[0].layer = int64_t{1} << 60;
  report.linears[1].output_error = 1e308;
  report.linears[2].output_error = 0;
  report.memory[0].time_s = -1e300;
  report.evaluation->perplexity_after = NAN;
  const std::string html = ToHtml(report);
  const std::string page = html.substr(0, html.find("application/json"));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("\"inf")));
}

TEST(ReportHtml, WorstTable_IsSortedByError) {
  const std::string html = ToHtml(NamedSample("dense"));
  const size_t first = html.find("24.</span><wbr>self_attn.o_proj");
  const size_t table = html.find("id=\"worst\"");
  ASSERT_NE(first, std::string::npos);
  EXPECT_THAT(html.substr(table, 1500), HasSubstr("fallback"));
}

TEST(ErrorScale, SpreadOfErrors_EndsAtHalfDecades) {
  const ErrorScale scale({2e-4, 5e-3, 8e-2});
  EXPECT_NEAR(scale.low(), 1e-4, 1e-12);
  EXPECT_NEAR(scale.high(), 1e-1, 1e-9);
  EXPECT_NEAR(scale.At(std::sqrt(1e-5)), 0.5, 1e-9);
  EXPECT_EQ(scale.CssClass(1e-4), "e0");
  EXPECT_EQ(scale.CssClass(0.1), "e8");
  EXPECT_EQ(scale.CssClass(7.0), "e8");
  EXPECT_EQ(scale.CssClass(0.0), "e0");
  EXPECT_EQ(scale.CssClass(NAN), "nf");
  EXPECT_EQ(scale.CssClass(std::nullopt), "en");
}

TEST(Coord, AnyNumber_IsShortAndWithoutExponent) {
  EXPECT_EQ(Coord(1.5), "1.5");
  EXPECT_EQ(Coord(2), "2");
  EXPECT_EQ(Coord(1e-9), "0");
  EXPECT_EQ(Coord(-1e-9), "0");
  EXPECT_EQ(Coord(123456.789), "123456.79");
  EXPECT_EQ(Coord(NAN), "0");
  EXPECT_EQ(Coord(INFINITY), "0");
}

TEST(TerminalSummary, SampleRun_IsADozenAlignedLines) {
  Terminal terminal;
  terminal.unicode = true;
  const std::string text =
      ToTerminalSummary(NamedSample("ranks4"), terminal, "out/llmc_report.html");
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  EXPECT_GE(lines.size(), 10u);
  EXPECT_LE(lines.size(), 16u);
  for (const std::string& line : lines) {
    EXPECT_EQ(line.substr(0, 2), "  ");
    EXPECT_NE(line[19], ' ') << line;
    EXPECT_EQ(line[18], ' ') << line;
  }
  EXPECT_THAT(text, HasSubstr("16.0 GB → 5.68 GB  (2.81x smaller)"));
  EXPECT_THAT(text, HasSubstr("6.238 → 6.391  (+2.45 %)  KL 0.0187"));
  EXPECT_THAT(text, HasSubstr("4 ranks"));
  EXPECT_THAT(text, HasSubstr("out/llmc_report.html"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(TerminalSummary, NarrowTerminal_KeepsLinesWithinIt) {
  Terminal terminal;
  terminal.columns = 50;
  RunReport report = NamedSample("ranks4");
  report.model_name = std::string(400, 'n');
  report.output_path.clear();
  for (absl::string_view line : absl::StrSplit(ToTerminalSummary(report, terminal, ""), '\n')) {
    EXPECT_LE(DisplayWidth(line), 50) << line;
  }
}

TEST(TerminalSummary, HostileNames_AreEscaped) {
  Terminal terminal;
  terminal.color = false;
  const std::string text = ToTerminalSummary(NamedSample("hostile"), terminal, "\x1b]0;x\x07");
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
}

TEST(TerminalSummary, Colour_OnlyWhereTheTerminalHasIt) {
  Terminal terminal;
  terminal.color = true;
  EXPECT_THAT(ToTerminalSummary(NamedSample("clean"), terminal, ""), HasSubstr("\x1b[1;32m"));
  EXPECT_THAT(ToTerminalSummary(NamedSample("failed"), terminal, ""),
              HasSubstr("\x1b[1;31mFailed"));
}

TEST(DetectEnvironment, ThisMachine_IsNamed) {
  const EnvironmentFacts facts = DetectEnvironment();
  EXPECT_FALSE(facts.host.empty());
  EXPECT_GT(facts.num_cpus, 0);
  EXPECT_GT(facts.memory_bytes, 0);
}

}  // namespace
}  // namespace llmc
