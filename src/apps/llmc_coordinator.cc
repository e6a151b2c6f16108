// llmc-coordinator: queues jobs, leases them to pools, remembers everything.
// Links neither LibTorch nor MPI.

#include <signal.h>
#include <sys/stat.h>

#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "cli/exit.h"
#include "control/job_store.h"
#include "rpc/allowed_roots.h"
#include "service/access.h"
#include "service/grpc_server.h"
#include "service/http_server.h"
#include "service/json_log.h"

namespace {

// What a supervisor must not retry.
constexpr int kBadConfiguration = 78;

struct Flags {
  std::string backup_file;
  std::string listen = "127.0.0.1:7180";
  std::string http_listen = "127.0.0.1:7181";
  std::string state_dir;
  std::vector<std::string> allow_roots;
  llmc::TlsOptions tls;
  std::string token_file;
  bool insecure = false;
  llmc::CoordinatorOptions coordinator;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen, "gRPC address")->capture_default_str();
  app.add_option("--http-listen", flags.http_listen, "page and metrics")->capture_default_str();
  app.add_option("--state-dir", flags.state_dir, "where jobs are kept");
  app.add_option("--allow-root", flags.allow_roots, "directory that job paths may not leave");
  app.add_option("--tls-cert", flags.tls.certificate_file, "PEM chain, read again when it changes");
  app.add_option("--tls-key", flags.tls.key_file, "its PEM key");
  app.add_option("--tls-client-ca", flags.tls.client_ca_file,
                 "clients must show a certificate of this CA");
  app.add_option("--token-file", flags.token_file,
                 "lines \"<sha256 of token> <name> <watch|submit|work|admin,...>\"");
  app.add_flag("--insecure", flags.insecure, "no TLS, no tokens; loopback addresses only");
  llmc::CoordinatorOptions& options = flags.coordinator;
  const auto millis = [&app](const char* name, int64_t& value, const char* text) {
    app.add_option(name, value, text)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
        ->capture_default_str();
  };
  millis("--lease-ttl-ms", options.lease_ttl_ms, "a pool that is silent for so long loses its job");
  millis("--heartbeat-interval-ms", options.heartbeat_interval_ms, "how often pools report");
  millis("--rank-silence-ms", options.rank_silence_ms, "a rank that is silent for so long hangs");
  millis("--backoff-ms", options.backoff_ms, "wait after a failed attempt; doubles");
  millis("--max-events-per-job", options.max_events_per_job, "older events are dropped");
  millis("--max-jobs", options.max_jobs, "jobs that have not ended");
  app.add_option("--max-attempts", options.max_attempts, "failed attempts before a job is given up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option_function<int>(
         "--retain-days",
         [&options](int days) { options.retention_ms = int64_t{days} * 24 * 3600 * 1000; },
         "ended jobs are forgotten after so long (30)")
      ->check(CLI::Range(1, 36500));
}

absl::Status CheckSecurity(const Flags& flags) {
  // Not CLI11's `required`: the commands on a store do without.
  if (flags.state_dir.empty()) return absl::InvalidArgumentError("--state-dir is required");
  if (flags.allow_roots.empty()) return absl::InvalidArgumentError("--allow-root is required");
  const bool loopback = llmc::IsLoopback(flags.listen) && llmc::IsLoopback(flags.http_listen);
  if (flags.insecure) {
    if (loopback) return absl::OkStatus();
    return absl::InvalidArgumentError("--insecure: only for loopback addresses");
  }
  if (flags.token_file.empty()) {
    return absl::InvalidArgumentError(
        "--token-file is required; on a loopback address --insecure does without");
  }
  const bool has_tls = !flags.tls.certificate_file.empty() && !flags.tls.key_file.empty();
  if (!has_tls && !loopback) {
    return absl::InvalidArgumentError(
        "--tls-cert and --tls-key are required for an address that is not loopback");
  }
  if (flags.tls.certificate_file.empty() != flags.tls.key_file.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key: expected both or none");
  }
  return absl::OkStatus();
}

// Blocks the signals in every thread; the main thread waits for them.
sigset_t BlockSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Between two heartbeats a pool cannot know that its lease goes on.
absl::Status CheckTimes(const llmc::CoordinatorOptions& options) {
  if (options.lease_ttl_ms >= 3 * options.heartbeat_interval_ms) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--lease-ttl-ms: ", options.lease_ttl_ms,
                   ", expected at least three times --heartbeat-interval-ms (",
                   options.heartbeat_interval_ms, ")"));
}

absl::Status Serve(const Flags& flags, const sigset_t& signals) {
  LLMC_RETURN_IF_ERROR(CheckTimes(flags.coordinator));
  LLMC_ASSIGN_OR_RETURN(const llmc::AllowedRoots roots,
                        llmc::AllowedRoots::Open(flags.allow_roots));
  std::unique_ptr<llmc::TokenFile> tokens;
  if (!flags.token_file.empty()) {
    LLMC_ASSIGN_OR_RETURN(tokens, llmc::TokenFile::Load(flags.token_file));
  }
  LLMC_ASSIGN_OR_RETURN(std::unique_ptr<llmc::JobStore> store,
                        llmc::JobStore::Open(flags.state_dir));
  llmc::Metrics metrics;
  llmc::ControlPlane plane(std::move(store), flags.coordinator, &metrics);
  LLMC_RETURN_IF_ERROR(plane.Start());
  llmc::CallGate gate(tokens.get(), &metrics);
  const llmc::JobServiceParts parts{&plane, &gate, &metrics, &roots};
  LLMC_ASSIGN_OR_RETURN(const auto grpc_server,
                        llmc::GrpcServer::Start({flags.listen, flags.tls}, parts));
  LLMC_ASSIGN_OR_RETURN(
      const auto http_server,
      llmc::HttpServer::Start({flags.http_listen, flags.tls}, parts, tokens.get()));
  llmc::LogJson("info", "serving",
                {{"grpc_port", absl::StrCat(grpc_server->port())},
                 {"http_port", absl::StrCat(http_server->port())}});
  int signal = 0;
  while (true) {
    const timespec second{1, 0};
    signal = sigtimedwait(&signals, nullptr, &second);
    if (signal > 0) break;
    grpc_server->SetServing(!plane.store_failing());
  }
  llmc::LogJson("info", "stopping", {{"signal", absl::StrCat(signal)}});
  grpc_server->Stop(5);
  http_server->Stop();
  return absl::OkStatus();
}

// The commands that work on a store which no coordinator has open.
void AddStoreCommands(CLI::App& app, Flags& flags) {
  const auto add = [&](const char* name, const char* description, const char* file_option,
                       const char* file_description) {
    CLI::App* command = app.add_subcommand(name, description);
    command->add_option("--state-dir", flags.state_dir, "where jobs are kept")->required();
    command->add_option(file_option, flags.backup_file, file_description)->required();
  };
  add("backup",
      "copy the store of a coordinator that is not running; `llmc backup` asks one that is",
      "--output", "file to write; must not exist");
  add("restore", "make a state directory from a backup", "--from",
      "file that a backup has written");
}

absl::Status BackUp(const Flags& flags) {
  // Opening would make an empty store.
  if (!llmc::JobStore::IsAt(flags.state_dir)) {
    return absl::NotFoundError(absl::StrCat(flags.state_dir, ": holds no job store"));
  }
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<llmc::JobStore> store,
                        llmc::JobStore::Open(flags.state_dir));
  return store->BackUp(flags.backup_file);
}

absl::Status RunCoordinator(const Flags& flags) {
  LLMC_RETURN_IF_ERROR(CheckSecurity(flags));
  return Serve(flags, BlockSignals());
}

absl::Status Run(const CLI::App& app, const Flags& flags) {
  umask(077);
  if (app.get_subcommands().empty()) return RunCoordinator(flags);
  if (app.get_subcommands().front()->get_name() == "backup") return BackUp(flags);
  return llmc::JobStore::Restore(flags.backup_file, flags.state_dir);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Queues compression jobs and leases them to pools.", "llmc-coordinator");
  app.set_version_flag("--version", "llmc-coordinator 0.1.0");
  Flags flags;
  AddFlags(app, flags);
  AddStoreCommands(app, flags);
  bool done = false;
  absl::Status status = llmc::Parse(app, argc, argv, &done);
  if (done) return 0;
  if (status.ok()) status = Run(app, flags);
  if (status.ok()) return 0;
  llmc::LogJson("error", status.message());
  return absl::IsUnavailable(status) ? 1 : kBadConfiguration;
}
