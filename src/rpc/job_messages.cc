#include "rpc/job_messages.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"

namespace llmc {
namespace {

constexpr std::pair<SparseFormat, v1::SparseFormat> kSparseFormats[] = {
    {SparseFormat::kDense, v1::SPARSE_FORMAT_DENSE},
    {SparseFormat::kSparse24Bitmask, v1::SPARSE_FORMAT_SPARSE_24_BITMASK},
    {SparseFormat::kSparseBitmask, v1::SPARSE_FORMAT_SPARSE_BITMASK}};

}  // namespace

std::string ToProtoText(absl::string_view text) {
  std::string ascii;
  for (const char c : text.substr(0, 2000)) {
    ascii.push_back(absl::ascii_isprint(static_cast<unsigned char>(c)) || c == '\n' ? c : '?');
  }
  return ascii;
}

Job ToJob(const v1::JobSpec& spec) {
  Job job;
  job.model = spec.model();
  job.recipe = spec.has_recipe_text() ? "recipe" : spec.preset();
  if (spec.has_recipe_text()) job.recipe_text = spec.recipe_text();
  job.datasets.assign(spec.datasets().begin(), spec.datasets().end());
  job.output = spec.output();
  if (spec.has_num_calibration_samples()) {
    job.num_calibration_samples = spec.num_calibration_samples();
  }
  if (spec.has_max_seq_length()) job.max_seq_length = spec.max_seq_length();
  if (!spec.text_column().empty()) job.text_column = spec.text_column();
  if (spec.has_seed()) job.seed = spec.seed();
  job.shuffle = !spec.no_shuffle();
  if (spec.has_memory_budget_bytes()) job.memory_budget_bytes = spec.memory_budget_bytes();
  if (spec.has_device_memory_budget_bytes()) {
    job.device_memory_budget_bytes = spec.device_memory_budget_bytes();
  }
  job.work_dir = spec.work_dir();
  if (spec.has_max_shard_bytes()) job.max_shard_bytes = spec.max_shard_bytes();
  if (!spec.device().empty()) job.device = spec.device();
  if (spec.compute_dtype() == v1::COMPUTE_DTYPE_FLOAT32) {
    job.compute_dtype = ComputeDType::kFloat32;
  } else if (spec.compute_dtype() == v1::COMPUTE_DTYPE_BFLOAT16) {
    job.compute_dtype = ComputeDType::kBFloat16;
  }
  if (spec.quotient_rounding() == v1::QUOTIENT_ROUNDING_FLOAT32) {
    job.quotient_rounding = QuotientRounding::kFloat32;
  }
  for (const auto& [format, message] : kSparseFormats) {
    if (spec.sparse_format() == message) job.sparse_format = format;
  }
  job.eval_datasets.assign(spec.eval_datasets().begin(), spec.eval_datasets().end());
  if (spec.has_eval_num_windows()) job.eval_num_windows = spec.eval_num_windows();
  return job;
}

v1::JobSpec ToJobSpec(const Job& job) {
  v1::JobSpec spec;
  spec.set_model(job.model);
  if (job.recipe_text) {
    spec.set_recipe_text(*job.recipe_text);
  } else {
    spec.set_preset(job.recipe);
  }
  for (const std::string& path : job.datasets) spec.add_datasets(path);
  spec.set_output(job.output);
  spec.set_num_calibration_samples(job.num_calibration_samples);
  spec.set_max_seq_length(job.max_seq_length);
  spec.set_text_column(job.text_column);
  spec.set_seed(job.seed);
  spec.set_no_shuffle(!job.shuffle);
  if (job.memory_budget_bytes) spec.set_memory_budget_bytes(*job.memory_budget_bytes);
  if (job.device_memory_budget_bytes) {
    spec.set_device_memory_budget_bytes(*job.device_memory_budget_bytes);
  }
  spec.set_work_dir(job.work_dir);
  spec.set_max_shard_bytes(job.max_shard_bytes);
  spec.set_device(job.device);
  if (job.compute_dtype != ComputeDType::kAuto) {
    spec.set_compute_dtype(job.compute_dtype == ComputeDType::kFloat32
                               ? v1::COMPUTE_DTYPE_FLOAT32
                               : v1::COMPUTE_DTYPE_BFLOAT16);
  }
  spec.set_quotient_rounding(job.quotient_rounding == QuotientRounding::kFloat32
                                 ? v1::QUOTIENT_ROUNDING_FLOAT32
                                 : v1::QUOTIENT_ROUNDING_MODEL_DTYPE);
  for (const auto& [format, message] : kSparseFormats) {
    if (job.sparse_format == format) spec.set_sparse_format(message);
  }
  for (const std::string& path : job.eval_datasets) spec.add_eval_datasets(path);
  spec.set_eval_num_windows(job.eval_num_windows);
  return spec;
}

v1::StepRecord ToStepRecord(const StepEvent& event) {
  v1::StepRecord record;
  switch (event.kind) {
    case StepEvent::Kind::kBegin:
      record.set_kind(v1::StepRecord::KIND_BEGIN);
      break;
    case StepEvent::Kind::kProgress:
      record.set_kind(v1::StepRecord::KIND_PROGRESS);
      break;
    case StepEvent::Kind::kEnd:
      record.set_kind(v1::StepRecord::KIND_END);
      break;
    case StepEvent::Kind::kLinear:
      record.set_kind(v1::StepRecord::KIND_LINEAR);
      break;
    case StepEvent::Kind::kWarning:
      record.set_kind(v1::StepRecord::KIND_WARNING);
      break;
  }
  record.set_step(std::string(StepName(event.step)));
  record.set_rank(event.rank);
  record.set_layer(event.layer);
  record.set_num_layers(event.num_layers);
  record.set_time_seconds(event.time_s);
  record.set_done_frac(event.done_frac);
  record.set_rss_bytes(event.rss_bytes);
  record.set_module(event.module);
  record.set_output_error(event.output_error);
  record.set_message(event.message);
  return record;
}

StepEvent ToStepEvent(const v1::StepRecord& record) {
  StepEvent event;
  event.kind = StepEvent::Kind::kWarning;
  static const std::map<v1::StepRecord::Kind, StepEvent::Kind> kKinds = {
      {v1::StepRecord::KIND_BEGIN, StepEvent::Kind::kBegin},
      {v1::StepRecord::KIND_PROGRESS, StepEvent::Kind::kProgress},
      {v1::StepRecord::KIND_END, StepEvent::Kind::kEnd},
      {v1::StepRecord::KIND_LINEAR, StepEvent::Kind::kLinear}};
  bool known = false;
  for (int step = 0; step <= static_cast<int>(Step::kVerify); ++step) {
    if (StepName(static_cast<Step>(step)) != record.step()) continue;
    event.step = static_cast<Step>(step);
    known = true;
  }
  if (const auto kind = kKinds.find(record.kind()); known && kind != kKinds.end()) {
    event.kind = kind->second;
  }
  event.rank = record.rank();
  event.layer = record.layer();
  event.num_layers = record.num_layers();
  event.time_s = record.time_seconds();
  event.done_frac = record.done_frac();
  event.rss_bytes = record.rss_bytes();
  event.module = record.module();
  event.output_error = record.output_error();
  event.message = known ? record.message() : record.step();
  return event;
}

}  // namespace llmc
