// The gRPC port: services, health, reflection, TLS, limits.
#ifndef LLMC_SERVICE_GRPC_SERVER_H_
#define LLMC_SERVICE_GRPC_SERVER_H_

#include <memory>
#include <string>

#include "llmc/status.h"
#include "service/job_service.h"
#include "service/tls_certificate.h"

namespace grpc {
class Server;
}

namespace llmc {

class WorkerServiceImpl;

struct GrpcServerOptions {
  std::string address;  // "127.0.0.1:7180"; port 0: any.
  TlsOptions tls;
};

class GrpcServer {
 public:
  // kUnavailable: the address cannot be used.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const JobServiceParts& parts);
  ~GrpcServer();

  int port() const { return port_; }
  // What health checks hear.
  void SetServing(bool serving);
  // Not serving first; streams end; waits for at most `seconds`.
  void Stop(int seconds);

 private:
  GrpcServer() = default;

  std::unique_ptr<JobServiceImpl> jobs_;
  std::unique_ptr<WorkerServiceImpl> workers_;
  std::unique_ptr<grpc::Server> server_;
  ControlPlane* plane_ = nullptr;
  int port_ = 0;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_GRPC_SERVER_H_
