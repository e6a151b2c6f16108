#include "control/job_state.h"

#include <map>
#include <set>

namespace llmc {

absl::string_view StateName(v1::JobState state) {
  constexpr absl::string_view kPrefix = "JOB_STATE_";
  const absl::string_view name = v1::JobState_Name(state);
  return name.substr(0, kPrefix.size()) == kPrefix ? name.substr(kPrefix.size()) : "UNSPECIFIED";
}

bool IsEnd(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

bool HoldsLease(v1::JobState state) {
  return state == v1::JOB_STATE_LEASED || state == v1::JOB_STATE_RUNNING ||
         state == v1::JOB_STATE_PAUSING || state == v1::JOB_STATE_CANCELLING;
}

bool MayMove(v1::JobState from, v1::JobState to) {
  using enum v1::JobState;
  static const std::map<v1::JobState, std::set<v1::JobState>> kEdges = {
      {JOB_STATE_UNSPECIFIED, {JOB_STATE_QUEUED}},
      {JOB_STATE_QUEUED, {JOB_STATE_LEASED, JOB_STATE_PAUSED, JOB_STATE_CANCELLED}},
      {JOB_STATE_LEASED,
       {JOB_STATE_RUNNING, JOB_STATE_QUEUED, JOB_STATE_PAUSING, JOB_STATE_CANCELLING,
        JOB_STATE_SUCCEEDED, JOB_STATE_FAILED}},
      {JOB_STATE_RUNNING,
       {JOB_STATE_QUEUED, JOB_STATE_PAUSING, JOB_STATE_CANCELLING, JOB_STATE_SUCCEEDED,
        JOB_STATE_FAILED}},
      {JOB_STATE_PAUSING,
       {JOB_STATE_PAUSED, JOB_STATE_CANCELLING, JOB_STATE_SUCCEEDED, JOB_STATE_FAILED}},
      {JOB_STATE_PAUSED, {JOB_STATE_QUEUED, JOB_STATE_CANCELLED}},
      {JOB_STATE_CANCELLING, {JOB_STATE_CANCELLED, JOB_STATE_SUCCEEDED}},
      {JOB_STATE_FAILED, {JOB_STATE_QUEUED}},
      {JOB_STATE_CANCELLED, {JOB_STATE_QUEUED}},
  };
  const auto edges = kEdges.find(from);
  return edges != kEdges.end() && edges->second.contains(to);
}

}  // namespace llmc
