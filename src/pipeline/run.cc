#include "pipeline/run.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/output_directory.h"
#include "collective/device_collective.h"
#include "evaluation/evaluation.h"
#include "kernels/device_queue.h"
#include "llmc/byte_size.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"
#include "llmc/parallel.h"
#include "pipeline/calibrated_run.h"
#include "pipeline/data_free_run.h"
#include "pipeline/run_report_facts.h"
#include "pipeline/sparse_repack.h"
#include "plan/pruning_plan.h"
#include "report/step_stream.h"
#include "tokenizer/tokenizer.h"
#include "verify/verify.h"

namespace llmc {
namespace {

constexpr const char* kReportDir = "llmc_report";

// The samples as text for a broadcast, and back.
std::string Pack(const CalibrationSamples& samples) {
  nlohmann::json json = {{"rows", samples.rows},
                         {"num_tokens", samples.num_tokens},
                         {"warnings", samples.warnings},
                         {"hash", samples.hash}};
  const std::vector<uint8_t> bytes = nlohmann::json::to_cbor(json);
  return {bytes.begin(), bytes.end()};
}
CalibrationSamples Unpack(const std::string& text) {
  const nlohmann::json json = nlohmann::json::from_cbor(text.begin(), text.end());
  CalibrationSamples samples;
  samples.rows = json["rows"].get<std::vector<std::vector<int32_t>>>();
  samples.num_tokens = json["num_tokens"].get<int64_t>();
  samples.warnings = json["warnings"].get<std::vector<std::string>>();
  samples.hash = json["hash"].get<std::string>();
  return samples;
}

// Rank 0's text on every rank.
absl::Status BroadcastText(Collective& collective, std::string& text) {
  int64_t size[1] = {static_cast<int64_t>(text.size())};
  LLMC_RETURN_IF_ERROR(collective.Broadcast(std::as_writable_bytes(std::span<int64_t>(size)), 0));
  text.resize(static_cast<size_t>(size[0]));
  return collective.Broadcast(std::as_writable_bytes(std::span<char>(text)), 0);
}

// One run, step by step.
class JobRun {
 public:
  JobRun(Job job, Collective& collective, const ComputeDevice& device, const RunOptions& options,
         RunReport& report)
      : job_(std::move(job)),
        collective_(collective),
        options_(options),
        report_(report),
        clock_(options.sink, collective.rank(), [&device] { device.SampleMemory(); }),
        run_{.job = job_,
             .plan = plan_,
             .collective = collective,
             .device = device,
             .device_collective = nullptr,
             .clock = clock_,
             .writer = nullptr,
             .samples = {},
             .estimate = {},
             .stop = options.stop} {}

  // Why the device is not the one that was hoped for.
  void Remark(const std::string& remark) { device_remark_ = remark; }

  absl::Status Run() {
    LLMC_RETURN_IF_ERROR(ConnectDevices());
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(MakeThePlan()));
    LLMC_RETURN_IF_ERROR(ReadCalibration());
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(CheckEstimate()));
    LLMC_RETURN_IF_ERROR(DivertOutput());
    if (!already_committed_) LLMC_RETURN_IF_ERROR(OpenWriter());
    if (run_.is_leader()) AddPlanFacts(run_, options_.command_line, builder_);
    if (!already_committed_) {
      LLMC_RETURN_IF_ERROR(plan_.calibrated ? RunCalibrated(run_) : RunDataFree(run_));
      LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(Commit()));
    }
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(Verify()));
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(Repack()));
    // The plan's figure is for the work; the evaluation holds whole logits.
    peak_bytes_ = PeakResidentBytes();
    return EvaluatePerplexity();
  }

  // Gathers the other ranks' events and closes the report. Local when the ranks
  // may have parted.
  void FinishReport(const absl::Status& status) {
    for (const StepEvent& event : clock_.events()) builder_.Add(event);
    if (status.ok() || status.code() == absl::StatusCode::kCancelled) GatherEvents();
    if (!run_.is_leader()) return;
    RunReport& facts = builder_.report();
    facts.verdict = status.ok()                                     ? Verdict::kSucceeded
                    : status.code() == absl::StatusCode::kCancelled ? Verdict::kCancelled
                                                                    : Verdict::kFailed;
    facts.verdict_message = std::string(status.message());
    report_ = std::move(builder_).Build();
    if (status.ok()) WriteReportFiles();
  }

 private:
  // Collective. NCCL takes one rank a device; ranks that share one go through the host.
  absl::Status ConnectDevices() {
    if (run_.device.is_host()) return absl::OkStatus();
    DeviceCollectiveOptions options;
    if (collective_.ranks_on_host() > kernels::NumDevices()) {
      options.transport = DeviceTransport::kStaged;
    }
    LLMC_ASSIGN_OR_RETURN(
        device_collective_,
        MakeDeviceCollective(collective_, run_.device.queue()->device(), options));
    run_.device_collective = device_collective_.get();
    return absl::OkStatus();
  }

  absl::Status MakeThePlan() {
    StepScope scope(clock_, Step::kPlan);
    LLMC_ASSIGN_OR_RETURN(plan_, MakePlan(job_));
    job_.compute_dtype = plan_.compute_dtype;
    if (options_.check_plan) LLMC_RETURN_IF_ERROR(options_.check_plan(plan_));
    clock_.set_num_layers(
        std::count_if(plan_.units.begin(), plan_.units.end(),
                      [](const WorkUnit& unit) { return unit.first_layer >= 0; }));
    if (run_.is_leader()) {
      for (const std::string& warning : plan_.warnings) clock_.Warn(Step::kPlan, warning);
      if (!device_remark_.empty()) clock_.Warn(Step::kPlan, device_remark_);
    }
    if (plan_.calibrated && job_.datasets.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--dataset: none given, but the recipe needs calibration data: ",
                       plan_.calibration_reason));
    }
    return absl::OkStatus();
  }

  // Text is read and tokenised once, by rank 0.
  absl::Status ReadCalibration() {
    if (!plan_.calibrated) return absl::OkStatus();
    std::string packed;
    absl::Status local;
    if (run_.is_leader()) {
      absl::StatusOr<CalibrationSamples> samples = LoadSamples();
      if (samples.ok()) packed = Pack(*samples);
      local = samples.status();
    }
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(local));
    LLMC_RETURN_IF_ERROR(BroadcastText(collective_, packed));
    run_.samples = Unpack(packed);
    if (run_.is_leader()) {
      for (const std::string& warning : run_.samples.warnings) clock_.Warn(Step::kPlan, warning);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<CalibrationSamples> LoadSamples() {
    LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                          Tokenizer::Load(plan_.source->dir()));
    DatasetOptions options;
    for (const std::string& path : job_.datasets) options.paths.emplace_back(path);
    options.text_column = job_.text_column;
    options.num_samples = job_.num_calibration_samples;
    options.max_seq_length = job_.max_seq_length;
    options.seed = job_.seed;
    options.shuffle = job_.shuffle;
    return LoadCalibrationSamples(*tokenizer, options, plan_.source->dir());
  }

  absl::Status CheckEstimate() {
    CalibrationExtent extent;
    extent.num_samples = static_cast<int64_t>(run_.samples.rows.size());
    extent.num_tokens = run_.samples.num_tokens;
    for (const auto& row : run_.samples.rows) {
      extent.longest = std::max(extent.longest, static_cast<int64_t>(row.size()));
    }
    const Ranks ranks{collective_.world_size(), NumThreads()};
    run_.estimate =
        EstimatePlan(plan_, extent, ranks, job_.memory_budget_bytes, DeviceBudget());
    const Ranks on_host{collective_.ranks_on_host(), NumThreads()};
    return CheckResources(job_, run_.estimate, on_host);
  }

  // What this rank may take of its device: of what is free now its share, and no more than
  // the flag says. None on the host.
  std::optional<int64_t> DeviceBudget() const {
    if (run_.device.is_host()) return std::nullopt;
    const int num_devices = std::max(1, kernels::NumDevices());
    const int ranks_of_device = (collective_.ranks_on_host() + num_devices - 1) / num_devices;
    const int64_t share = run_.device.free_bytes() / ranks_of_device;
    return std::min(share, job_.device_memory_budget_bytes.value_or(share));
  }

  WriterOptions MakeWriterOptions() const {
    WriterOptions options;
    options.output_dir = job_.output;
    options.model_dir = plan_.source->dir();
    options.layout = plan_.layout;
    options.fingerprint = JobFingerprint(job_, plan_, run_.samples.hash);
    options.fresh = job_.fresh;
    options.overwrite = job_.fresh;
    return options;
  }

  // When an earlier attempt last finished a unit; empty without one.
  std::string LastWriteToJournal() const {
    absl::StatusOr<std::filesystem::path> output = NormalizeOutput(job_.output);
    if (!output.ok()) return "";
    const std::string staging = absl::StrCat(output->string(), kPartialSuffix);
    const std::filesystem::path journal = std::filesystem::path(staging) / kJournalFileName;
    struct stat file {};
    return stat(journal.c_str(), &file) == 0 ? TimeText(file.st_mtime) : "";
  }

  void WarnFinishedBefore() {
    if (!run_.is_leader()) return;
    clock_.Warn(Step::kClaim, absl::StrCat(job_.output,
                                           ": finished before; nothing was done "
                                           "(--fresh makes it again)"));
  }

  absl::Status OpenWriter() {
    StepScope scope(clock_, Step::kClaim);
    absl::Status local;
    if (run_.is_leader()) {
      stopped_at_ = LastWriteToJournal();
      local = Adopt(CheckpointWriter::Create(MakeWriterOptions()));
    }
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(local));
    int64_t committed[1] = {writer_ != nullptr && writer_->committed() ? 1 : 0};
    LLMC_RETURN_IF_ERROR(collective_.AllReduceMax(std::span<int64_t>(committed)));
    already_committed_ = committed[0] != 0;
    if (already_committed_) {
      WarnFinishedBefore();
      return absl::OkStatus();
    }
    if (!run_.is_leader()) local = Adopt(CheckpointWriter::Open(MakeWriterOptions()));
    return collective_.AgreeOnStatus(local);
  }

  absl::Status Adopt(absl::StatusOr<std::unique_ptr<CheckpointWriter>> writer) {
    if (!writer.ok()) return writer.status();
    writer_ = *std::move(writer);
    run_.writer = writer_.get();
    if (!run_.is_leader()) return absl::OkStatus();
    for (const std::string& warning : writer_->warnings()) clock_.Warn(Step::kClaim, warning);
    int64_t done = 0;
    for (const WorkUnit& unit : plan_.units) done += writer_->IsDone(unit.name) ? 1 : 0;
    if (done > 0 && !writer_->committed()) {
      builder_.report().resumed_from.push_back({done, stopped_at_, ""});
      clock_.Warn(Step::kClaim,
                  absl::StrCat("resuming: ", done, " of ", plan_.units.size(), " units are done"));
    }
    return absl::OkStatus();
  }

  // With a sparse layout the job writes zeros like any number into a sibling of the
  // output, which Repack then replaces. A finished output is found before any work.
  absl::Status DivertOutput() {
    if (plan_.sparse_format == SparseFormat::kDense) return absl::OkStatus();
    packed_output_ = job_.output;
    int64_t finished[1] = {0};
    absl::Status local;
    if (run_.is_leader()) {
      const absl::StatusOr<bool> is_finished = IsRepacked(RequestOfRepack());
      local = is_finished.status();
      finished[0] = is_finished.ok() && *is_finished ? 1 : 0;
    }
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(local));
    LLMC_RETURN_IF_ERROR(collective_.AllReduceMax(std::span<int64_t>(finished)));
    already_committed_ = finished[0] != 0;
    if (already_committed_) {
      packed_output_.clear();
      WarnFinishedBefore();
    } else {
      job_.output = packed_output_ + std::string(kUnpackedSuffix);
    }
    return absl::OkStatus();
  }

  RepackRequest RequestOfRepack() const {
    RepackRequest request;
    request.output_dir = packed_output_;
    request.format = plan_.sparse_format;
    request.modules = SparseModules(plan_);
    request.fingerprint = JobFingerprint(job_, plan_, run_.samples.hash);
    request.max_shard_bytes = job_.max_shard_bytes;
    request.fresh = job_.fresh;
    return request;
  }

  // Rank 0 alone: a copy from disk to disk.
  absl::Status Repack() {
    if (packed_output_.empty()) return absl::OkStatus();
    const std::string unpacked = std::exchange(job_.output, packed_output_);
    if (!run_.is_leader()) return absl::OkStatus();
    writer_.reset();
    LLMC_ASSIGN_OR_RETURN(const CommitContents contents, OtherFiles());
    if (options_.may_publish) LLMC_RETURN_IF_ERROR(options_.may_publish());
    LLMC_RETURN_IF_ERROR(RepackSparse(unpacked, RequestOfRepack(), contents));
    return Verify();
  }

  absl::Status Commit() {
    StepScope scope(clock_, Step::kCommit);
    if (!run_.is_leader()) return absl::OkStatus();
    LLMC_ASSIGN_OR_RETURN(const CommitContents contents, OtherFiles());
    if (options_.may_publish) LLMC_RETURN_IF_ERROR(options_.may_publish());
    return writer_->Commit(contents);
  }

  absl::StatusOr<CommitContents> OtherFiles() const {
    CommitContents contents;
    contents.config_json = plan_.config_json;
    contents.files["recipe.yaml"] = ResolvedRecipeYaml(plan_.recipe);
    contents.files["README.md"] = ModelCard(run_);
    contents.source_dir = plan_.source->dir();
    LLMC_ASSIGN_OR_RETURN(contents.source_files, plan_.source->SourceFiles());
    return contents;
  }

  // Rank 0 re-opens what was written.
  absl::Status Verify() {
    StepScope scope(clock_, Step::kVerify);
    if (!run_.is_leader()) return absl::OkStatus();
    VerifyOptions options;
    LLMC_ASSIGN_OR_RETURN(const VerifyReport found,
                          VerifyCheckpoint(job_.output, std::nullopt, options));
    if (found.ok()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(job_.output, ": ", found.problems.size(),
                                            " problem(s), first: ", found.problems[0].subject, ": ",
                                            found.problems[0].text));
  }

  absl::Status EvaluatePerplexity() {
    if (job_.eval_datasets.empty()) return absl::OkStatus();
    std::string packed;
    absl::Status local;
    if (run_.is_leader()) {
      absl::StatusOr<EvaluationWindows> windows = LoadWindows();
      if (windows.ok()) {
        CalibrationSamples rows;
        rows.rows = windows->windows;
        packed = Pack(rows);
      }
      local = windows.status();
    }
    LLMC_RETURN_IF_ERROR(collective_.AgreeOnStatus(local));
    LLMC_RETURN_IF_ERROR(BroadcastText(collective_, packed));
    return EvaluateWindows(Unpack(packed).rows);
  }

  absl::StatusOr<EvaluationWindows> LoadWindows() {
    LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                          Tokenizer::Load(plan_.source->dir()));
    EvaluationOptions options;
    for (const std::string& path : job_.eval_datasets) options.paths.emplace_back(path);
    options.text_column = job_.text_column;
    options.window_length = job_.max_seq_length;
    options.num_windows = job_.eval_num_windows;
    return LoadEvaluationWindows(*tokenizer, options, plan_.source->dir());
  }

  absl::Status EvaluateWindows(const std::vector<std::vector<int32_t>>& windows) {
    EvaluationRequest request;
    request.model = job_.output;
    request.against = plan_.source->dir();
    request.windows = windows;
    request.collective = &collective_;
    LLMC_ASSIGN_OR_RETURN(const EvaluationResult result, Evaluate(request));
    EvaluationFacts facts;
    facts.dataset = absl::StrJoin(job_.eval_datasets, ", ");
    facts.num_windows = result.num_windows;
    facts.window_length = static_cast<int64_t>(windows.front().size());
    facts.perplexity_before = result.against_perplexity;
    facts.perplexity_after = result.perplexity;
    facts.mean_kl = result.kl_mean;
    builder_.report().evaluation = std::move(facts);
    return absl::OkStatus();
  }

  void GatherEvents() {
    std::string lines;
    for (const StepEvent& event : clock_.events()) absl::StrAppend(&lines, ToJsonLine(event), "\n");
    absl::StatusOr<std::vector<std::string>> all = collective_.GatherStrings(lines, 0);
    absl::StatusOr<std::vector<std::string>> peaks =
        collective_.GatherStrings(absl::StrCat(peak_bytes_), 0);
    absl::StatusOr<std::vector<std::string>> device_peaks =
        collective_.GatherStrings(absl::StrCat(run_.device.peak_bytes()), 0);
    if (!all.ok() || !peaks.ok() || !device_peaks.ok() || !run_.is_leader()) return;
    for (const std::string& peak : *device_peaks) {
      int64_t& most = builder_.report().device_peak_bytes;
      most = std::max<int64_t>(most, std::stoll(peak));
    }
    for (size_t r = 1; r < all->size(); ++r) (void)builder_.AddJsonLines((*all)[r]);
    for (size_t r = 0; r < peaks->size(); ++r) {
      builder_.report().memory.push_back(
          {static_cast<int>(r), clock_.Now(), std::stoll((*peaks)[r])});
    }
  }

  // A report that cannot be written must not fail a finished job.
  void WriteReportFiles() {
    const std::filesystem::path dir = std::filesystem::path(job_.output) / kReportDir;
    std::error_code error;
    std::filesystem::create_directories(dir, error);
    absl::Status status = WriteFileDurably(dir / "report.json", ToJson(report_));
    status.Update(WriteFileDurably(dir / "report.html", ToHtml(report_)));
    if (!status.ok()) clock_.Warn(Step::kVerify, std::string(status.message()));
  }

  Job job_;
  Collective& collective_;
  const RunOptions& options_;
  RunReport& report_;
  Plan plan_;
  ReportBuilder builder_;
  StepClock clock_;
  RunState run_;
  std::unique_ptr<DeviceCollective> device_collective_;
  std::unique_ptr<CheckpointWriter> writer_;
  bool already_committed_ = false;
  std::string stopped_at_;  // Of the attempt that is resumed.
  int64_t peak_bytes_ = 0;
  std::string device_remark_;
  std::string packed_output_;  // Where the job ends when its output is repacked; else "".
};

}  // namespace

namespace {

// Collective: the device of this rank. All ranks compute on the same kind, so that the
// bytes do not depend on who did what; one without a device keeps them on the CPU.
absl::StatusOr<std::unique_ptr<ComputeDevice>> ChooseDevice(const Job& job,
                                                            Collective& collective) {
  auto device = ComputeDevice::Choose(job.device, collective.rank_on_host());
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(device.status()));
  int64_t is_device[1] = {(*device)->is_host() ? 0 : 1};
  LLMC_RETURN_IF_ERROR(collective.AllReduceMin(std::span<int64_t>(is_device)));
  if (is_device[0] == 0 && !(*device)->is_host()) {
    return ComputeDevice::Choose("cpu", collective.rank_on_host());
  }
  return device;
}

}  // namespace

absl::Status RunJob(Job job, Collective& collective, const RunOptions& options, RunReport& report) {
  SetFailpointRank(collective.rank());
  const absl::StatusOr<std::unique_ptr<ComputeDevice>> device = ChooseDevice(job, collective);
  if (!device.ok()) {
    report.verdict = Verdict::kFailed;
    report.verdict_message = std::string(device.status().message());
    return device.status();
  }
  const std::string remark = ComputeDevice::WhyHost(job.device);
  job.device = (*device)->is_host() ? "cpu" : "cuda";
  JobRun run(std::move(job), collective, **device, options, report);
  run.Remark(remark);
  const absl::Status status = run.Run();
  run.FinishReport(status);
  return status;
}

}  // namespace llmc
