#include "service/pool_session.h"

#include "control/transition.h"
#include "llmc/failpoint.h"

namespace llmc {
namespace {

constexpr auto kLook = std::chrono::milliseconds(500);

// A store that fails now may work at the next try; the worker asks again.
bool MayPass(const absl::Status& status) { return absl::IsUnavailable(status); }

}  // namespace

bool PoolSession::Send(const v1::SessionResponse& response) {
  std::lock_guard<std::mutex> lock(write_mutex_);
  return write_(response);
}

absl::Status PoolSession::OnHeartbeat(const v1::Heartbeat& heartbeat) {
  LLMC_ASSIGN_OR_RETURN(const v1::HeartbeatAck ack, plane_.Beat(instance_, heartbeat));
  if (heartbeat.has_lease()) metrics_.CountRenewal(ack.lease_valid());
  {
    std::lock_guard<std::mutex> lock(lease_mutex_);
    lease_ = heartbeat.lease();
    told_ = ack.stop();
  }
  v1::SessionResponse response;
  *response.mutable_heartbeat_ack() = ack;
  Send(response);
  return absl::OkStatus();
}

absl::Status PoolSession::OnPublish(const v1::LeaseId& lease) {
  const absl::StatusOr<bool> granted = plane_.AskPublish(instance_, lease);
  if (MayPass(granted.status())) return absl::OkStatus();
  v1::SessionResponse response;
  *response.mutable_publish_answer()->mutable_lease() = lease;
  response.mutable_publish_answer()->set_granted(granted.ok() && *granted);
  Send(response);
  return absl::OkStatus();
}

absl::Status PoolSession::OnMessage(const v1::SessionRequest& request) {
  LLMC_RETURN_IF_ERROR(Failpoint("session.message"));
  v1::SessionResponse response;
  switch (request.message_case()) {
    case v1::SessionRequest::kHeartbeat:
      return OnHeartbeat(request.heartbeat());
    case v1::SessionRequest::kPublish:
      return OnPublish(request.publish().lease());
    case v1::SessionRequest::kSteps: {
      const absl::Status status = plane_.ReportSteps(instance_, request.steps());
      if (MayPass(status)) return absl::OkStatus();
      // Steps of a lost lease are dropped; the next heartbeat tells the worker.
      *response.mutable_steps_ack()->mutable_lease() = request.steps().lease();
      response.mutable_steps_ack()->set_batch(request.steps().batch());
      break;
    }
    case v1::SessionRequest::kFinished: {
      {
        // What happens to the job from here on is no reason to stop.
        std::lock_guard<std::mutex> lock(lease_mutex_);
        lease_.Clear();
      }
      const absl::Status status = plane_.Finish(instance_, request.finished());
      if (MayPass(status)) return absl::OkStatus();
      *response.mutable_finished_ack()->mutable_lease() = request.finished().lease();
      break;
    }
    case v1::SessionRequest::kGoodbye:
      said_goodbye_ = true;
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError("session: expected a message after attach");
  }
  Send(response);
  return absl::OkStatus();
}

void PoolSession::TellToStop() {
  v1::SessionResponse response;
  {
    std::lock_guard<std::mutex> lock(lease_mutex_);
    if (lease_.job().empty()) return;
    const absl::StatusOr<v1::Job> job = plane_.Get(JobIdOf(lease_.job()));
    v1::StopReason stop = v1::STOP_REASON_UNSPECIFIED;
    if (!job.ok() || job->incarnation() != lease_.incarnation() || !HoldsLease(job->state())) {
      stop = v1::STOP_REASON_LEASE_LOST;
    } else if (job->state() == v1::JOB_STATE_PAUSING) {
      stop = v1::STOP_REASON_PAUSE;
    } else if (job->state() == v1::JOB_STATE_CANCELLING) {
      stop = v1::STOP_REASON_CANCEL;
    }
    if (stop == told_ || stop == v1::STOP_REASON_UNSPECIFIED) return;
    told_ = stop;
    response.mutable_heartbeat_ack()->set_stop(stop);
    response.mutable_heartbeat_ack()->set_lease_valid(stop != v1::STOP_REASON_LEASE_LOST);
  }
  Send(response);
}

void PoolSession::Tell(const std::atomic<bool>& ended) {
  int64_t version = -1;
  while (!ended) {
    TellToStop();
    const absl::StatusOr<std::optional<v1::LeaseOffer>> offer = plane_.NextLease(instance_);
    if (offer.ok() && *offer) {
      v1::SessionResponse response;
      *response.mutable_offer() = **offer;
      {
        std::lock_guard<std::mutex> lock(lease_mutex_);
        lease_ = (*offer)->lease();
        told_ = v1::STOP_REASON_UNSPECIFIED;
      }
      Send(response);
    }
    version = plane_.WaitForChange(version, kLook);
    if (plane_.stopping()) return;
  }
}

}  // namespace llmc
