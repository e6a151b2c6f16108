#include "service/worker_service.h"

#include <atomic>
#include <thread>

#include "rpc/rpc_status.h"
#include "service/pool_session.h"

namespace llmc {
namespace {

constexpr char kService[] = "llmc.v1.WorkerService";

}  // namespace

int64_t WorkerServiceImpl::Enter(const std::string& instance) {
  std::lock_guard<std::mutex> lock(mutex_);
  return entries_[instance] = next_entry_++;
}

void WorkerServiceImpl::Leave(const std::string& instance, int64_t entry, bool goodbye) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(instance);
  if (found == entries_.end() || found->second != entry) return;
  entries_.erase(found);
  plane_->Detach(instance, goodbye);
}

absl::Status WorkerServiceImpl::Serve(grpc::ServerContext* call, Stream* stream) {
  v1::SessionRequest request;
  if (!stream->Read(&request) || !request.has_attach()) {
    return absl::InvalidArgumentError("session: expected attach as the first message");
  }
  const std::string instance = request.attach().instance();
  LLMC_ASSIGN_OR_RETURN(const v1::Attached attached, plane_->Attach(request.attach()));
  const int64_t entry = Enter(instance);
  PoolSession session(*plane_, *metrics_, instance,
                      [&](const v1::SessionResponse& message) { return stream->Write(message); });
  v1::SessionResponse response;
  *response.mutable_attached() = attached;
  session.Send(response);
  std::atomic<bool> ended{false};
  std::thread teller([&] {
    session.Tell(ended);
    // Stopping the server: the reader below wakes up.
    if (!ended) call->TryCancel();
  });
  absl::Status status;
  while (status.ok() && !session.said_goodbye() && stream->Read(&request)) {
    status = session.OnMessage(request);
  }
  ended = true;
  teller.join();
  Leave(instance, entry, session.said_goodbye());
  return status;
}

grpc::Status WorkerServiceImpl::Session(grpc::ServerContext* call, Stream* stream) {
  return gate_->Serve(*call, {kService, "Session", AccessRole::kWork},
                      [&](const Principal&) { return ToRpcStatus(Serve(call, stream)); });
}

grpc::Status WorkerServiceImpl::ReportRank(grpc::ServerContext* call,
                                           const v1::ReportRankRequest* request,
                                           v1::ReportRankResponse* response) {
  return gate_->Serve(*call, {kService, "ReportRank", AccessRole::kWork}, [&](const Principal&) {
    absl::StatusOr<v1::ReportRankResponse> answer = plane_->BeatRank(*request);
    if (!answer.ok()) return ToRpcStatus(answer.status());
    *response = *std::move(answer);
    return grpc::Status::OK;
  });
}

}  // namespace llmc
