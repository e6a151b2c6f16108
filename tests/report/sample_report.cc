#include "sample_report.h"

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "report/report_builder.h"
#include "report/step_stream.h"

namespace llmc {
namespace {

// Even noise in [0, 1) from a counter (Weyl sequence).
double Noise(int64_t seed) {
  const double x = static_cast<double>(seed) * 0.6180339887498949;
  return x - std::floor(x);
}

struct Linear {
  const char* name;
  int64_t out, in;
  double hardness;
};

constexpr Linear kLinears[] = {
    {"self_attn.q_proj", 4096, 4096, 1.0}, {"self_attn.k_proj", 1024, 4096, 0.7},
    {"self_attn.v_proj", 1024, 4096, 2.2}, {"self_attn.o_proj", 4096, 4096, 3.5},
    {"mlp.gate_proj", 12288, 4096, 2.4},   {"mlp.up_proj", 12288, 4096, 2.8},
    {"mlp.down_proj", 4096, 12288, 6.0},
};

class SampleRun {
 public:
  explicit SampleRun(const SampleShape& shape) : shape_(shape) {}

  RunReport Make() {
    FillFacts();
    AddLinears();
    for (int rank = 0; rank < shape_.num_ranks; ++rank) RunRank(rank);
    FillSizes();
    return std::move(builder_).Build();
  }

 private:
  StepEvent EventOf(int rank, int64_t layer) const {
    StepEvent event;
    event.rank = rank;
    event.layer = layer;
    event.num_layers = shape_.num_layers;
    return event;
  }

  void FillFacts() {
    RunReport& report = builder_.report();
    report.started_at = "2026-05-04T09:12:33Z";
    report.model_name = "example-org/Aster-8B-Instruct";
    report.model_path = "/models/example-org/Aster-8B-Instruct";
    report.output_path = "/models/out/Aster-8B-Instruct-W4A16";
    report.architecture = "LlamaForCausalLM";
    report.num_layers = shape_.num_layers;
    report.num_parameters = 8030261248;
    report.scheme = "GPTQ W4A16, groups of 128, symmetric";
    report.recipe =
        "quantization_stage:\n  quantization_modifiers:\n    GPTQModifier:\n"
        "      targets: [Linear]\n      ignore: [lm_head]\n      scheme: W4A16\n"
        "      dampening_frac: 0.01\n      actorder: static\n";
    report.command_line =
        "mpirun -np 4 llmc-worker compress --model example-org/Aster-8B-Instruct --recipe "
        "recipe.yaml --dataset calibration.jsonl.zst --output /models/out/Aster-8B-Instruct-W4A16";
    report.reproduce_command =
        absl::StrCat(report.command_line,
                     " --num-calibration-samples 512 --max-seq-length 2048 --seed 42 --shuffle "
                     "--memory-budget 24GiB --device cpu");
    report.calibration = CalibrationFacts{{"calibration.jsonl.zst"}, 512, 1048576, 2048, 42, true,
                                          "xxh3:8a1f3c0f5de0b7c2"};
    report.evaluation = EvaluationFacts{"wikitext-2 test", 160, 2048, 6.238, 6.391, 0.0187};
    report.planned_rank_peak_bytes = 5'900'000'000;
    report.rank_budget_bytes = 8'000'000'000;
    report.environment = {"node-17",
                          "AMD EPYC 9654 96-Core Processor",
                          "cpu",
                          "Linux 6.1.0 x86_64",
                          96,
                          811'000'000'000,
                          shape_.num_ranks,
                          (shape_.num_ranks + 7) / 8,
                          24};
    report.versions = {{"llmc", "0.1.0"}, {"LibTorch", "2.11.0"}, {"Open MPI", "4.1.4"}};
    report.hashes = {
        {"plan", "xxh3:41be9c0d1f22a871"},
        {"recipe", "xxh3:c0ffee5511aa0912"},
        {"source", "sha256:9f2c1d7f0a55b3f0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e"},
        {"output", "sha256:03b8d1c4a6e2f9075b1c3d5e7f90a2b4c6d8e0f1a3b5c7d9e1f203142536475a"}};
  }

  double ErrorOf(int64_t layer, int64_t index, double hardness) const {
    const double depth = static_cast<double>(layer) / static_cast<double>(shape_.num_layers);
    const double edge = layer < 2 ? 3.0 : 1.0 + 1.5 * depth;
    return 4e-4 * hardness * edge * std::exp(0.7 * (Noise(layer * 17 + index * 5 + 3) - 0.5));
  }

  void AddLinear(int64_t layer, const std::string& name, const Linear& shape, int64_t index) {
    LinearRow row;
    row.module = absl::StrCat("model.layers.", layer, ".", name);
    row.layer = layer;
    row.scheme = "W4A16 g128";
    row.shape = {shape.out, shape.in};
    row.bytes_before = shape.out * shape.in * 2;
    row.bytes_after = shape.out * shape.in / 2 + shape.out * shape.in / 64;
    builder_.AddLinear(row);
    StepEvent event = EventOf(0, layer);
    event.kind = StepEvent::Kind::kLinear;
    event.step = Step::kSolve;
    event.module = row.module;
    event.output_error = ErrorOf(layer, index, shape.hardness);
    const bool expert = shape_.num_experts > 0 && index >= 4;
    const int64_t tokens =
        expert ? static_cast<int64_t>(65536 * Noise(index * 31 + layer)) : 1048576;
    SolveNote note{"GPTQ", false, 0.01, tokens, ""};
    if (index == 3 && layer % 13 == 11) {
      note = {"RTN", true, 1.0, tokens, "Hessian is not positive definite after 3 retries"};
      event.output_error *= 9;
    }
    event.message = ToString(note);
    linear_events_.push_back(event);
  }

  void AddLinears() {
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
      for (int i = 0; i < 7; ++i) {
        if (shape_.num_experts > 0 && i >= 4) continue;
        AddLinear(layer, kLinears[i].name, kLinears[i], i);
      }
      for (int expert = 0; expert < shape_.num_experts; ++expert) {
        for (int i = 4; i < 7; ++i) {
          const std::string name =
              absl::StrCat("mlp.experts.", expert, ".", std::string(kLinears[i].name).substr(4));
          AddLinear(layer, name, {name.c_str(), 1536, 2048, kLinears[i].hardness},
                    4 + expert * 3 + i);
        }
      }
    }
  }

  void Emit(StepEvent event, Step step, double begin_s, double end_s) {
    event.kind = StepEvent::Kind::kBegin;
    event.step = step;
    event.time_s = begin_s;
    builder_.Add(event);
    event.kind = StepEvent::Kind::kEnd;
    event.time_s = end_s;
    const double rise = step == Step::kCapture || step == Step::kSolve ? 1.0 : 0.55;
    event.rss_bytes =
        static_cast<int64_t>(5.2e9 * rise * (0.92 + 0.08 * Noise(event.layer * 7 + event.rank)));
    builder_.Add(event);
  }

  void RunLayer(StepEvent event, double* now) {
    const double slow = 1 + 0.25 * Noise(event.rank * 3 + 1);
    double t = *now;
    Emit(event, Step::kLoad, std::max(0.0, t - 3), std::max(0.5, t - 1));
    const auto spend = [&](Step step, double seconds) {
      Emit(event, step, t, t + seconds);
      t += seconds;
    };
    spend(Step::kCapture, 5.0 * slow);
    spend(Step::kReduce, 0.6 + (1.25 - slow) * 5);
    spend(Step::kSolve, 6.5 + Noise(event.layer));
    spend(Step::kPropagate, 2.2 * slow);
    Emit(event, Step::kWrite, t, t + 1.3);
    // All ranks start the next layer together.
    *now += 17.0 + Noise(event.layer);
  }

  void RunRank(int rank) {
    StepEvent event = EventOf(rank, -1);
    Emit(event, Step::kPlan, 0, 0.8);
    double now = 4;
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
      event.layer = layer;
      RunLayer(event, &now);
    }
    event.layer = -1;
    Emit(event, Step::kCommit, now, now + 2.5);
    Emit(event, Step::kVerify, now + 2.5, now + 9);
    if (rank == 0) Tell(now);
  }

  void Tell(double now) {
    for (StepEvent& event : linear_events_) {
      event.time_s = now;
      builder_.Add(event);
      const SolveNote note = ParseSolveNote(event.message);
      if (!note.is_fallback) continue;
      event.kind = StepEvent::Kind::kWarning;
      event.message = absl::StrCat(note.reason, "; rounded to nearest");
      builder_.Add(event);
    }
  }

  void FillSizes() {
    RunReport& report = builder_.report();
    for (const LinearRow& row : report.linears) {
      report.source_bytes += row.bytes_before;
      report.output_bytes += row.bytes_after;
    }
    report.source_bytes += 2'100'000'000;
    report.output_bytes += 2'100'000'000;
  }

  const SampleShape shape_;
  ReportBuilder builder_;
  std::vector<StepEvent> linear_events_;
};

RunReport Failed() {
  RunReport report = SampleReport({6, 4, 0});
  report.verdict = Verdict::kFailed;
  report.verdict_message =
      "layer 5: Write: /models/out: No space left on device, expected 212 MB free. Free the space "
      "and run the same command again; 5 of 32 layers are kept.";
  report.output_bytes = 0;
  report.evaluation.reset();
  report.linears[3].output_error = std::numeric_limits<double>::quiet_NaN();
  report.resumed_from = {{3, "2026-05-04T08:55:01Z", "signal 15"}};
  return report;
}

RunReport DataFree() {
  RunReport report = SampleReport({12, 2, 0});
  for (LinearRow& row : report.linears) {
    row.output_error.reset();
    row.method = "RTN";
    row.is_fallback = false;
    row.reason.clear();
    row.damping_frac.reset();
    row.num_tokens.reset();
  }
  report.calibration.reset();
  report.evaluation.reset();
  report.warnings.clear();
  report.scheme = "RTN FP8 dynamic";
  return report;
}

RunReport Clean() {
  RunReport report = SampleReport({4, 1, 0});
  report.warnings.clear();
  for (LinearRow& row : report.linears) row.is_fallback = false;
  return report;
}

RunReport Hostile() {
  RunReport report = SampleReport({4, 2, 0});
  const std::string text = kHostileText;
  for (std::string* field : {&report.model_name, &report.model_path, &report.scheme, &report.recipe,
                             &report.command_line, &report.reproduce_command, &report.architecture,
                             &report.verdict_message, &report.started_at, &report.output_path,
                             &report.environment.host, &report.environment.device}) {
    *field = text;
  }
  report.model_name += std::string(3000, 'x');
  for (LinearRow& row : report.linears) row.module += text, row.reason = text, row.scheme = text;
  report.warnings.push_back({1, Step::kSolve, 0, 1, text, text + std::string(9000, 'w')});
  report.versions.emplace_back(text, text);
  report.hashes.emplace_back(text, text);
  report.resumed_from = {{1, text, text}};
  report.calibration->datasets = {text};
  report.evaluation->dataset = text;
  return report;
}

}  // namespace

RunReport SampleReport(const SampleShape& shape) { return SampleRun(shape).Make(); }

RunReport NamedSample(const std::string& name) {
  if (name == "large") return SampleReport({80, 64, 0});
  if (name == "ranks4") return SampleReport({36, 4, 0});
  if (name == "experts") return SampleReport({48, 8, 128});
  if (name == "failed") return Failed();
  if (name == "datafree") return DataFree();
  if (name == "clean") return Clean();
  if (name == "hostile") return Hostile();
  return SampleReport({});
}

}  // namespace llmc
