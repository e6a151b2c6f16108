// One move of one job, with its event.
#ifndef LLMC_CONTROL_TRANSITION_H_
#define LLMC_CONTROL_TRANSITION_H_

#include <string>

#include "control/coordinator.h"

namespace llmc {

// Moves `record` to `to`, appends the event and puts the record in `change`.
// The edge must be one of MayMove.
void Move(store::v1::JobRecord& record, v1::JobState to, const std::string& reason, Now now,
          Change& change);

// Appends an event that changes no state.
void AppendEvent(store::v1::JobRecord& record, v1::JobEvent event, Now now, Change& change);

// The last part of "jobs/x".
absl::string_view JobIdOf(absl::string_view name);

google::protobuf::Timestamp ToTimestamp(int64_t millis);

}  // namespace llmc

#endif  // LLMC_CONTROL_TRANSITION_H_
