// The HTTP port: the page, its live data, metrics, health. Read-only.
#ifndef LLMC_SERVICE_HTTP_SERVER_H_
#define LLMC_SERVICE_HTTP_SERVER_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "llmc/status.h"
#include "service/control_plane.h"
#include "service/grpc_server.h"
#include "service/tls_certificate.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace llmc {

struct HttpServerOptions {
  std::string address;  // "127.0.0.1:7181"; port 0: any.
  TlsOptions tls;
};

// Paths: / and /jobs/ID (the page), /api/state and /api/jobs/ID (JSON), /events
// (server-sent events: "something changed"), /jobs/ID/report, /metrics, /healthz
// (the process lives), /readyz (the store can be written).
class HttpServer {
 public:
  // kUnavailable: the address cannot be used.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           const JobServiceParts& parts,
                                                           TokenFile* tokens);
  ~HttpServer();
  int port() const { return port_; }
  void Stop();

 private:
  HttpServer(const JobServiceParts& parts, TokenFile* tokens);
  absl::Status MakeServer(const TlsOptions& tls);
  void AddRoutes();
  bool MayRead(const httplib::Request& request, httplib::Response& response);
  void ServeState(httplib::Response& response);
  void ServeJob(const std::string& id, int64_t after, httplib::Response& response);
  void ServeReport(const std::string& id, httplib::Response& response);
  void ServeEvents(httplib::Response& response);

  const JobServiceParts parts_;
  TokenFile* const tokens_;
  std::unique_ptr<TlsCertificate> certificate_;  // Outlives the server.
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  std::atomic<int> num_event_streams_{0};
  std::atomic<bool> stopping_{false};
  int port_ = 0;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_HTTP_SERVER_H_
