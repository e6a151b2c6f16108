#include "service/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "absl/strings/str_cat.h"
#include "service/worker_service.h"

namespace llmc {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kReloadSeconds = 2;

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const TlsOptions& tls) {
  if (tls.certificate_file.empty()) return grpc::InsecureServerCredentials();
  LLMC_RETURN_IF_ERROR(TlsMaterial::Load(tls).status());
  // The provider reads the files again when they change, for new connections.
  const auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      tls.key_file, tls.certificate_file, tls.client_ca_file, kReloadSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca_file.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
  // So that balancers and upgrades work; sessions and watches go on by themselves.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, 3'600'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 300'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  // Two coordinators on one port would share the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota("llmc");
  quota.Resize(size_t{256} << 20);
  quota.SetMaxThreads(kMaxWatchStreams + 400);
  builder.SetResourceQuota(quota);
}

}  // namespace

GrpcServer::~GrpcServer() { Stop(1); }

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const JobServiceParts& parts) {
  std::unique_ptr<GrpcServer> made(new GrpcServer);
  made->plane_ = parts.plane;
  made->jobs_ = std::make_unique<JobServiceImpl>(parts);
  made->workers_ = std::make_unique<WorkerServiceImpl>(parts.plane, parts.gate, parts.metrics);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  LLMC_ASSIGN_OR_RETURN(const auto credentials, MakeCredentials(options.tls));
  SetLimits(builder);
  builder.AddListeningPort(options.address, credentials, &made->port_);
  builder.RegisterService(made->jobs_.get());
  builder.RegisterService(made->workers_.get());
  made->server_ = builder.BuildAndStart();
  if (made->server_ == nullptr || made->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("--listen: cannot listen on ", options.address));
  }
  made->SetServing(true);
  return made;
}

void GrpcServer::SetServing(bool serving) {
  auto* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);
  health->SetServingStatus("llmc.v1.JobService", serving);
  health->SetServingStatus("llmc.v1.WorkerService", serving);
}

void GrpcServer::Stop(int seconds) {
  if (server_ == nullptr) return;
  SetServing(false);
  plane_->Stop();
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
  server_->Wait();
  server_.reset();
}

}  // namespace llmc
