// How a program reaches its coordinator.
#ifndef LLMC_CLIENT_CHANNEL_H_
#define LLMC_CLIENT_CHANNEL_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"
#include "llmc/status.h"

namespace llmc {

struct ChannelOptions {
  std::string address;  // "host:port".
  std::string ca_file;  // Given: TLS, and the server must show a certificate of this CA.
  std::string certificate_file;
  std::string key_file;
  std::string token_file;  // Its first line is the token.
  double timeout_s = 10;   // Of one call that is no stream.
};

// --coordinator, --tls-ca, --tls-cert, --tls-key, --token-file and --timeout, each
// also from LLMC_... in the environment.
void AddChannelFlags(CLI::App& app, ChannelOptions& options);

// Of the token and key files those that any user of this host may read.
std::vector<std::string> ReadableByOthers(const ChannelOptions& options);

class CoordinatorChannel {
 public:
  // kInvalidArgument: no address; a token would travel in clear to another host.
  static absl::StatusOr<std::unique_ptr<CoordinatorChannel>> Open(const ChannelOptions& options);

  // The connection for new calls.
  std::shared_ptr<grpc::Channel> channel() const;
  // Gives up a connection from which no answer comes, as after a host or a firewall has
  // forgotten it: calls from here on use a new one. A second call for the same does nothing.
  void Renew(const std::shared_ptr<grpc::Channel>& silent) const;
  // Adds the token, and a deadline unless `is_stream`.
  void Prepare(grpc::ClientContext& call, bool is_stream = false) const;

 private:
  CoordinatorChannel() = default;
  std::shared_ptr<grpc::Channel> Connect() const;

  std::string address_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<grpc::Channel> channel_;
  std::string token_;
  double timeout_s_ = 10;
};

}  // namespace llmc

#endif  // LLMC_CLIENT_CHANNEL_H_
