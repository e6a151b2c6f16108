// What a plan says about a job, as coordinator and pools exchange it.
#ifndef LLMC_RPC_PLAN_SUMMARY_H_
#define LLMC_RPC_PLAN_SUMMARY_H_

#include "llmc/status.h"
#include "llmc/v1/job.pb.h"
#include "plan/job.h"
#include "plan/plan.h"

namespace llmc {

v1::PlanSummary MakePlanSummary(const Plan& plan, const Job& job);

// kFailedPrecondition when a pool's plan is not the one that was submitted: its files
// or its version differ. Estimates and warnings may.
absl::Status CheckSamePlan(const v1::PlanSummary& submitted, const v1::PlanSummary& found);

}  // namespace llmc

#endif  // LLMC_RPC_PLAN_SUMMARY_H_
