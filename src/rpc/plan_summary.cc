#include "rpc/plan_summary.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "rpc/job_messages.h"

namespace llmc {
namespace {

// [out_features, in_features] -> how many linears of a layer have it.
using Shapes = std::map<std::pair<int64_t, int64_t>, int64_t>;

int64_t RowsOf(const Shapes& shapes) {
  int64_t rows = 0;
  for (const auto& [shape, count] : shapes) rows += shape.first * count;
  return rows;
}

// Of the layer that has the most rows: layers may differ.
Shapes ShapesOfLargestLayer(const Plan& plan) {
  std::map<int64_t, Shapes> layers;
  for (const PlannedModule& module : plan.modules) {
    const std::vector<int64_t>& shape = module.source.shape;
    if (!module.is_quantized() || module.module.layer < 0 || shape.size() != 2) continue;
    ++layers[module.module.layer][{shape[0], shape[1]}];
  }
  Shapes largest;
  for (const auto& [layer, shapes] : layers) {
    if (RowsOf(shapes) > RowsOf(largest)) largest = shapes;
  }
  return largest;
}

}  // namespace

v1::PlanSummary MakePlanSummary(const Plan& plan, const Job& job) {
  v1::PlanSummary summary;
  for (const WorkUnit& unit : plan.units) {
    if (unit.first_layer >= 0) summary.set_num_layers(summary.num_layers() + unit.num_layers);
  }
  for (const PlannedModule& module : plan.modules) {
    if (!module.is_quantized()) continue;
    summary.set_num_quantized_modules(summary.num_quantized_modules() + 1);
  }
  for (const auto& [shape, count] : ShapesOfLargestLayer(plan)) {
    v1::WeightShape& weight = *summary.add_layer_weights();
    weight.set_out_features(shape.first);
    weight.set_in_features(shape.second);
    weight.set_count(count);
  }
  summary.set_num_units(static_cast<int64_t>(plan.units.size()));
  summary.set_calibrated(plan.calibrated);
  summary.set_num_samples(plan.calibrated ? job.num_calibration_samples : 0);
  for (const std::string& warning : plan.warnings) summary.add_warnings(ToProtoText(warning));
  for (int ranks = 1; ranks <= 1024; ranks *= 2) {
    const Estimate estimate =
        EstimatePlan(plan, ExtentFromFlags(job), Ranks{ranks, 1}, job.memory_budget_bytes);
    (*summary.mutable_rank_memory_bytes())[ranks] = estimate.peak_memory_bytes;
    if (ranks > 1) continue;
    summary.set_output_bytes(estimate.output_bytes);
    summary.set_seconds(estimate.seconds);
  }
  return summary;
}

absl::Status CheckSamePlan(const v1::PlanSummary& submitted, const v1::PlanSummary& found) {
  const auto estimates_cleared = [](v1::PlanSummary summary) {
    summary.clear_rank_memory_bytes();
    summary.clear_seconds();
    summary.clear_warnings();
    return summary;
  };
  google::protobuf::util::MessageDifferencer differencer;
  std::string difference;
  differencer.ReportDifferencesToString(&difference);
  if (differencer.Compare(estimates_cleared(submitted), estimates_cleared(found))) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the plan is not the one that was submitted; the model or the version of llmc "
                   "has changed: ",
                   difference));
}

}  // namespace llmc
