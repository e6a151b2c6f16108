#include "service/call_gate.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"

namespace llmc {
namespace {

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<Principal> CallGate::Admit(const grpc::ServerContextBase& call,
                                          const Method& method) {
  Principal principal{"local", {AccessRole::kAdmin}};
  if (tokens_ != nullptr) {
    const auto& metadata = call.client_metadata();
    const auto header = metadata.find("authorization");
    const absl::string_view value =
        header == metadata.end() ? absl::string_view()
                                 : absl::string_view(header->second.data(), header->second.size());
    LLMC_ASSIGN_OR_RETURN(principal, tokens_->Authenticate(value));
  }
  if (!principal.Has(method.role)) {
    return WithReason("ROLE_MISSING", absl::PermissionDeniedError(absl::StrCat(
                                          principal.name, " may not call ", method.name)));
  }
  if (method.role == AccessRole::kSubmit && !submits_.Allow(principal.name, SteadySeconds())) {
    return WithReason("RATE_LIMITED",
                      absl::ResourceExhaustedError(absl::StrCat(
                          principal.name, ": too many requests, try again in a second")));
  }
  return principal;
}

grpc::Status CallGate::Serve(const grpc::ServerContextBase& call, const Method& method,
                             const std::function<grpc::Status(const Principal&)>& body) {
  const double begin = SteadySeconds();
  const absl::StatusOr<Principal> principal = Admit(call, method);
  grpc::Status status;
  if (principal.ok()) {
    status = body(*principal);
  } else {
    status = ToRpcStatus(principal.status());
    metrics_->CountAuthFailure(ReasonOf(principal.status()));
  }
  const std::string code = absl::StatusCodeToString(
      static_cast<absl::StatusCode>(static_cast<int>(status.error_code())));
  metrics_->CountCall({method.service, method.name, code}, SteadySeconds() - begin);
  return status;
}

}  // namespace llmc
