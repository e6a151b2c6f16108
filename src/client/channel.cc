#include "client/channel.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "llmc/file.h"

namespace llmc {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;

// The server may be gone for a moment: a unary call tries again for a while.
constexpr char kServiceConfig[] =
    R"({"methodConfig":[{"name":[{"service":"llmc.v1.JobService"}],"retryPolicy":{"maxAttempts":5,)"
    R"("initialBackoff":"0.2s","maxBackoff":"5s","backoffMultiplier":2,)"
    R"("retryableStatusCodes":["UNAVAILABLE"]}}]})";

bool IsLocal(const std::string& address) {
  return absl::StartsWith(address, "127.") || absl::StartsWith(address, "localhost:") ||
         absl::StartsWith(address, "[::1]") || absl::StartsWith(address, "unix:");
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ChannelOptions& options) {
  if (options.ca_file.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  LLMC_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(options.ca_file, 1 << 20));
  if (!options.certificate_file.empty()) {
    LLMC_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadFile(options.certificate_file, 1 << 20));
    LLMC_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadFile(options.key_file, 1 << 20));
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

void AddChannelFlags(CLI::App& app, ChannelOptions& options) {
  app.add_option("--coordinator", options.address, "address of the coordinator")
      ->type_name("HOST:PORT")
      ->envname("LLMC_COORDINATOR");
  app.add_option("--tls-ca", options.ca_file,
                 "PEM of the CA that the coordinator's certificate is of")
      ->envname("LLMC_TLS_CA");
  app.add_option("--tls-cert", options.certificate_file, "this client's PEM chain")
      ->envname("LLMC_TLS_CERT");
  app.add_option("--tls-key", options.key_file, "its key")->envname("LLMC_TLS_KEY");
  app.add_option("--token-file", options.token_file, "file that holds this client's token")
      ->envname("LLMC_TOKEN_FILE");
  app.add_option("--timeout", options.timeout_s, "seconds that one call may take")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
}

std::vector<std::string> ReadableByOthers(const ChannelOptions& options) {
  std::vector<std::string> found;
  for (const std::string& file : {options.token_file, options.key_file}) {
    struct stat status {};
    const bool readable =
        !file.empty() && stat(file.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0;
    if (readable) found.push_back(file);
  }
  return found;
}

absl::StatusOr<std::unique_ptr<CoordinatorChannel>> CoordinatorChannel::Open(
    const ChannelOptions& options) {
  if (options.address.empty()) {
    return absl::InvalidArgumentError("--coordinator (or LLMC_COORDINATOR) is required");
  }
  std::unique_ptr<CoordinatorChannel> made(new CoordinatorChannel);
  if (!options.token_file.empty()) {
    LLMC_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.token_file, 4096));
    made->token_ = std::string(absl::StripAsciiWhitespace(text));
    if (options.ca_file.empty() && !IsLocal(options.address)) {
      return absl::InvalidArgumentError(
          "--tls-ca is required: the token would travel in clear to another host");
    }
  }
  LLMC_ASSIGN_OR_RETURN(made->credentials_, MakeCredentials(options));
  made->address_ = options.address;
  made->timeout_s_ = options.timeout_s;
  made->channel_ = made->Connect();
  return made;
}

std::shared_ptr<grpc::Channel> CoordinatorChannel::Connect() const {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // Else a new channel would share the old one's connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address_, credentials_, arguments);
}

std::shared_ptr<grpc::Channel> CoordinatorChannel::channel() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return channel_;
}

void CoordinatorChannel::Renew(const std::shared_ptr<grpc::Channel>& silent) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (channel_ == silent) channel_ = Connect();
}

void CoordinatorChannel::Prepare(grpc::ClientContext& call, bool is_stream) const {
  if (!token_.empty()) call.AddMetadata("authorization", absl::StrCat("Bearer ", token_));
  if (is_stream) return;
  call.set_deadline(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(static_cast<int64_t>(timeout_s_ * 1000)));
}

}  // namespace llmc
