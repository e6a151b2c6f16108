// JobService over gRPC.
#ifndef LLMC_SERVICE_JOB_SERVICE_H_
#define LLMC_SERVICE_JOB_SERVICE_H_

#include <functional>
#include <mutex>
#include <string>

#include "llmc/v1/job_service.grpc.pb.h"
#include "rpc/allowed_roots.h"
#include "service/call_gate.h"
#include "service/control_plane.h"

namespace llmc {

// At most so many WatchJob streams at a time: each keeps a thread.
inline constexpr int kMaxWatchStreams = 1200;

// Everything is borrowed and outlives the service.
struct JobServiceParts {
  ControlPlane* plane = nullptr;
  CallGate* gate = nullptr;
  Metrics* metrics = nullptr;
  const AllowedRoots* roots = nullptr;
};

class JobServiceImpl final : public v1::JobService::Service {
 public:
  explicit JobServiceImpl(const JobServiceParts& parts) : parts_(parts) {}

  grpc::Status CreateJob(grpc::ServerContext* call, const v1::CreateJobRequest* request,
                         v1::Job* response) override;
  grpc::Status GetJob(grpc::ServerContext* call, const v1::GetJobRequest* request,
                      v1::Job* response) override;
  grpc::Status ListJobs(grpc::ServerContext* call, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override;
  grpc::Status WatchJob(grpc::ServerContext* call, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override;
  grpc::Status CancelJob(grpc::ServerContext* call, const v1::CancelJobRequest* request,
                         v1::Job* response) override;
  grpc::Status PauseJob(grpc::ServerContext* call, const v1::PauseJobRequest* request,
                        v1::Job* response) override;
  grpc::Status ResumeJob(grpc::ServerContext* call, const v1::ResumeJobRequest* request,
                         v1::Job* response) override;
  grpc::Status RetryJob(grpc::ServerContext* call, const v1::RetryJobRequest* request,
                        v1::Job* response) override;
  grpc::Status DeleteJob(grpc::ServerContext* call, const v1::DeleteJobRequest* request,
                         google::protobuf::Empty* response) override;
  grpc::Status GetReport(grpc::ServerContext* call, const v1::GetReportRequest* request,
                         v1::GetReportResponse* response) override;
  grpc::Status ListPools(grpc::ServerContext* call, const v1::ListPoolsRequest* request,
                         v1::ListPoolsResponse* response) override;
  grpc::Status BackupStore(grpc::ServerContext* call, const v1::BackupStoreRequest* request,
                           grpc::ServerWriter<v1::BackupStoreResponse>* writer) override;

 private:
  // The job that a call is about, and the etag it must have.
  struct Target {
    absl::string_view id;
    absl::string_view etag;
  };
  using Verb = std::function<absl::StatusOr<Decision>(const Coordinator&, const Target&, Now)>;

  template <typename Request>
  grpc::Status Change(grpc::ServerContext* call, const char* method, const Request& request,
                      const Verb& verb, v1::Job& response);
  absl::Status SendBackup(grpc::ServerWriter<v1::BackupStoreResponse>& writer);
  grpc::Status Create(const v1::CreateJobRequest& request, const Principal& who, v1::Job& response);
  grpc::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse& response) const;

  const JobServiceParts parts_;
  std::mutex backup_mutex_;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_JOB_SERVICE_H_
