#include "client/job_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/terminal.h"

namespace llmc {
namespace {

void AddLine(const std::string& name, const std::string& value, std::string& out) {
  if (!value.empty()) absl::StrAppendFormat(&out, "%-10s %s\n", name, EscapeForTerminal(value));
}

std::string RecipeText(const v1::JobSpec& spec) {
  return spec.has_preset() ? spec.preset() : "recipe";
}

std::string LayersText(const v1::JobProgress& progress) {
  if (progress.num_layers() == 0) return "-";
  return absl::StrCat(progress.layers_done(), "/", progress.num_layers());
}

std::string TimesText(const v1::Job& job, int64_t now_s) {
  std::string text = absl::StrCat("submitted ", AgeText(now_s - job.create_time().seconds()),
                                  " ago by ", job.submitter());
  if (job.has_start_time()) {
    const int64_t end = job.has_end_time() ? job.end_time().seconds() : now_s;
    absl::StrAppend(&text, job.has_end_time() ? ", took " : ", began ",
                    AgeText(end - job.start_time().seconds()), job.has_end_time() ? "" : " ago");
  }
  return text;
}

std::string ShareText(const v1::Job& job, const v1::RankShare& share) {
  const v1::Partition& partition = job.partition();
  const std::string pieces = absl::StrCat(share.first_piece(), ", ",
                                          share.first_piece() + partition.world_size(), ", ...");
  if (partition.shares_tensors()) return absl::StrCat("tensors ", pieces, " of a layer");
  std::vector<std::string> ranges;
  for (int i = 0; i < std::min(share.rows_size(), job.plan().layer_weights_size()); ++i) {
    ranges.push_back(absl::StrCat(share.rows(i).begin(), "-", share.rows(i).end(), " of ",
                                  job.plan().layer_weights(i).out_features()));
  }
  return absl::StrCat("sample batches ", pieces, "; rows ", absl::StrJoin(ranges, ", "), " (",
                      share.rows_per_layer(), " of a layer)");
}

std::string PlanText(const v1::PlanSummary& plan) {
  if (plan.num_units() == 0) return "";
  return absl::StrCat(plan.num_layers(), " layers, ", plan.num_quantized_modules(), " linears",
                      plan.calibrated() ? absl::StrCat(", ", plan.num_samples(), " samples") : "",
                      ", output of ", FormatByteSize(plan.output_bytes()));
}

}  // namespace

std::string AgeText(int64_t seconds) {
  seconds = std::max<int64_t>(0, seconds);
  if (seconds < 120) return absl::StrCat(seconds, " s");
  if (seconds < 7200) return absl::StrCat(seconds / 60, " min");
  if (seconds < 172'800) return absl::StrCat(seconds / 3600, " h");
  return absl::StrCat(seconds / 86'400, " d");
}

std::string StateText(v1::JobState state) {
  return v1::JobState_Name(state).substr(std::string("JOB_STATE_").size());
}

std::string ToText(const v1::Job& job, int64_t now_s) {
  std::string out;
  AddLine("name", job.name(), out);
  AddLine("state", StateText(job.state()), out);
  AddLine("waits for", job.waits_for(), out);
  AddLine("error", job.error().message(), out);
  AddLine("model", job.spec().model(), out);
  AddLine("recipe", RecipeText(job.spec()), out);
  for (const std::string& dataset : job.spec().datasets()) AddLine("dataset", dataset, out);
  AddLine("output", job.spec().output(), out);
  AddLine("plan", PlanText(job.plan()), out);
  for (const std::string& warning : job.plan().warnings()) AddLine("warning", warning, out);
  AddLine("priority", absl::StrCat(job.priority()), out);
  for (const auto& [key, value] : job.labels())
    AddLine("label", absl::StrCat(key, "=", value), out);
  if (job.has_create_time()) AddLine("time", TimesText(job, now_s), out);
  if (job.attempt() > 0) AddLine("attempt", absl::StrCat(job.attempt()), out);
  AddLine("pool", job.pool(), out);
  if (job.progress().num_layers() > 0) {
    AddLine("layers",
            absl::StrCat(job.progress().layers_done(), " of ", job.progress().num_layers(), ", ",
                         job.progress().step()),
            out);
  }
  for (const v1::RankShare& share : job.partition().ranks()) {
    AddLine(absl::StrCat("rank ", share.rank()), ShareText(job, share), out);
  }
  return out;
}

std::string ToText(const v1::ListJobsResponse& jobs, int64_t now_s) {
  std::string out = absl::StrFormat("%-24s %-10s %-8s %-8s %-12s %s\n", "JOB", "STATE", "LAYERS",
                                    "AGE", "RECIPE", "OUTPUT");
  for (const v1::Job& job : jobs.jobs()) {
    absl::StrAppendFormat(
        &out, "%-24s %-10s %-8s %-8s %-12s %s\n", job.name().substr(5), StateText(job.state()),
        LayersText(job.progress()), AgeText(now_s - job.create_time().seconds()),
        EscapeForTerminal(RecipeText(job.spec())), EscapeForTerminal(job.spec().output()));
  }
  return out;
}

std::string ToText(const v1::ListPoolsResponse& pools) {
  if (pools.pools().empty()) return "no pool is attached\n";
  std::string out;
  for (const v1::Pool& pool : pools.pools()) {
    const std::string doing = !pool.connected()     ? "connection lost"
                              : !pool.job().empty() ? pool.job()
                              : pool.draining()     ? "draining"
                                                    : "idle";
    absl::StrAppend(&out, EscapeForTerminal(pool.name()), "  ", doing, "\n");
    for (const v1::PoolRank& rank : pool.ranks()) {
      absl::StrAppendFormat(&out, "  rank %-4d %s, process %d, %s, %d thread(s), %s of %s%s\n",
                            rank.rank(), EscapeForTerminal(rank.host()), rank.pid(),
                            EscapeForTerminal(rank.device()), rank.num_threads(),
                            FormatByteSize(rank.rss_bytes()), FormatByteSize(rank.memory_bytes()),
                            rank.silent() ? ", silent" : "");
    }
  }
  return out;
}

}  // namespace llmc
