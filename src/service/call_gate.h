// What every call passes first: who is it, may they, how often; and what is
// counted when it ends.
#ifndef LLMC_SERVICE_CALL_GATE_H_
#define LLMC_SERVICE_CALL_GATE_H_

#include <functional>
#include <string>

#include "grpcpp/server_context.h"
#include "llmc/status.h"
#include "service/access.h"
#include "service/metrics.h"

namespace llmc {

// One method of a service.
struct Method {
  const char* service;
  const char* name;
  AccessRole role;
};

// Thread-safe.
class CallGate {
 public:
  // `tokens` null: everybody is "local" and an admin; for loopback only.
  CallGate(TokenFile* tokens, Metrics* metrics) : tokens_(tokens), metrics_(metrics) {}

  // Runs `body` for a caller that has the method's role and counts how it ended.
  grpc::Status Serve(const grpc::ServerContextBase& call, const Method& method,
                     const std::function<grpc::Status(const Principal&)>& body);

 private:
  absl::StatusOr<Principal> Admit(const grpc::ServerContextBase& call, const Method& method);

  TokenFile* const tokens_;
  Metrics* const metrics_;
  RateLimit submits_{300};
};

}  // namespace llmc

#endif  // LLMC_SERVICE_CALL_GATE_H_
