// Fills a RunReport with what the plan and the run know.
#ifndef LLMC_PIPELINE_RUN_REPORT_FACTS_H_
#define LLMC_PIPELINE_RUN_REPORT_FACTS_H_

#include <ctime>
#include <string>

#include "pipeline/run_state.h"
#include "report/report_builder.h"

namespace llmc {

// Before the work: names, sizes, recipe, environment, one row for each linear.
void AddPlanFacts(const RunState& run, const std::string& command_line, ReportBuilder& builder);

// ISO 8601, UTC, to the second.
std::string TimeText(std::time_t time);

// The command with every default spelled out.
std::string ReproduceCommand(const Job& job, int world_size);

// README.md of the output: a model card with front matter.
std::string ModelCard(const RunState& run);

}  // namespace llmc

#endif  // LLMC_PIPELINE_RUN_REPORT_FACTS_H_
