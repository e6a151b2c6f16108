// WorkerService over gRPC: sessions of pools.
#ifndef LLMC_SERVICE_WORKER_SERVICE_H_
#define LLMC_SERVICE_WORKER_SERVICE_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "llmc/v1/worker_service.grpc.pb.h"
#include "service/call_gate.h"
#include "service/control_plane.h"

namespace llmc {

class WorkerServiceImpl final : public v1::WorkerService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::SessionResponse, v1::SessionRequest>;

  WorkerServiceImpl(ControlPlane* plane, CallGate* gate, Metrics* metrics)
      : plane_(plane), gate_(gate), metrics_(metrics) {}

  grpc::Status Session(grpc::ServerContext* call, Stream* stream) override;
  grpc::Status ReportRank(grpc::ServerContext* call, const v1::ReportRankRequest* request,
                          v1::ReportRankResponse* response) override;

 private:
  absl::Status Serve(grpc::ServerContext* call, Stream* stream);
  // An instance that came back has a new stream; the end of the old one means nothing.
  int64_t Enter(const std::string& instance);
  void Leave(const std::string& instance, int64_t entry, bool goodbye);

  ControlPlane* const plane_;
  CallGate* const gate_;
  Metrics* const metrics_;
  std::mutex mutex_;
  std::map<std::string, int64_t> entries_;
  int64_t next_entry_ = 1;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_WORKER_SERVICE_H_
