#include "control/job_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/sqlite_connection.h"
#include "control/transition.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"

namespace llmc {
namespace {

constexpr int64_t kSchemaVersion = 1;
constexpr char kDatabase[] = "jobs.sqlite";
constexpr char kOwner[] = "owner";

std::string SelfDescription() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat("process ", getpid(), " on ", host);
}

std::string RandomBytes(size_t size) {
  std::random_device device;
  std::string bytes;
  while (bytes.size() < size) bytes.push_back(static_cast<char>(device()));
  return bytes;
}

// SQLite would take an empty file for a new database.
absl::Status CheckHeader(const std::filesystem::path& file) {
  constexpr absl::string_view kMagic("SQLite format 3\0", 16);
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    return absl::NotFoundError(absl::StrCat(file.string(), ": no such file"));
  }
  std::ifstream stream(file, std::ios::binary);
  std::string header(kMagic.size(), '\0');
  stream.read(header.data(), std::ssize(header));
  if (stream && header == kMagic) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file.string(), ": not a backup of a job store"));
}

absl::Status SyncFile(const std::filesystem::path& file) {
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoStatus(errno, file, "open");
  const int result = fsync(descriptor);
  const int sync_error = errno;
  close(descriptor);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(sync_error, file, "fsync");
}

template <typename Message>
absl::Status ParseInto(const SqlValue& value, absl::string_view what, std::vector<Message>& out) {
  if (out.emplace_back().ParseFromString(std::get<std::string>(value))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(what, ": a row that is not a ", what));
}

}  // namespace

JobStore::JobStore(std::filesystem::path directory) : directory_(std::move(directory)) {}

JobStore::~JobStore() = default;

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::filesystem::path& directory,
                                                         const StoreOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return ErrnoStatus(error.value(), directory, "create");
  std::unique_ptr<JobStore> store(new JobStore(directory));
  absl::Status status = store->Connect(options);
  if (absl::IsFailedPrecondition(status)) {
    const auto owner = ReadFile(directory / kOwner, 4096);
    return absl::FailedPreconditionError(
        absl::StrCat(directory.string(), ": in use by ", owner.ok() ? *owner : "another process"));
  }
  if (status.ok()) status = store->MakeSchema();
  if (status.ok()) status = store->LoadSecret();
  if (absl::IsDataLoss(status)) {
    return absl::DataLossError(
        absl::StrCat(status.message(), "; the job database is damaged: move ", directory.string(),
                     " away, then llmc-coordinator restore a backup, or start without jobs"));
  }
  if (status.ok()) status = WriteFileDurably(directory / kOwner, SelfDescription());
  if (!status.ok()) return status;
  return store;
}

absl::Status JobStore::Connect(const StoreOptions& options) {
  LLMC_ASSIGN_OR_RETURN(connection_, SqliteConnection::Open(directory_ / kDatabase, options.vfs));
  return absl::OkStatus();
}

absl::Status JobStore::MakeSchema() {
  std::string damage;
  LLMC_RETURN_IF_ERROR(connection_->Run("PRAGMA quick_check(1)", {}, [&](const auto& row) {
    if (std::get<std::string>(row[0]) != "ok") damage = std::get<std::string>(row[0]);
  }));
  if (!damage.empty()) return absl::DataLossError(absl::StrCat(directory_.string(), ": ", damage));
  int64_t version = 0;
  LLMC_RETURN_IF_ERROR(connection_->Run(
      "PRAGMA user_version", {}, [&](const auto& row) { version = std::get<int64_t>(row[0]); }));
  if (version == kSchemaVersion) return absl::OkStatus();
  if (version != 0) {
    return absl::FailedPreconditionError(absl::StrCat(directory_.string(), ": schema ", version,
                                                      ", written by a newer llmc; this one knows "
                                                      "schema ",
                                                      kSchemaVersion));
  }
  // Each of these may be the last before a crash, and all are repeatable.
  for (const char* sql :
       {"CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS events (id TEXT, sequence INTEGER, event BLOB NOT NULL, "
        "PRIMARY KEY (id, sequence)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS reports (id TEXT PRIMARY KEY, report BLOB NOT NULL)",
        "PRAGMA user_version=1"}) {
    LLMC_RETURN_IF_ERROR(Failpoint("store.schema"));
    LLMC_RETURN_IF_ERROR(connection_->Run(sql));
  }
  return absl::OkStatus();
}

absl::Status JobStore::LoadSecret() {
  const auto read = [this] {
    return connection_->Run("SELECT value FROM meta WHERE name=?1", {std::string("secret")},
                            [this](const auto& row) { secret_ = std::get<std::string>(row[0]); });
  };
  LLMC_RETURN_IF_ERROR(connection_->Run("INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2)",
                                        {std::string("secret"), RandomBytes(32)}));
  return read();
}

absl::StatusOr<std::vector<store::v1::JobRecord>> JobStore::LoadJobs() {
  std::vector<store::v1::JobRecord> records;
  absl::Status parsed;
  LLMC_RETURN_IF_ERROR(connection_->Run("SELECT record FROM jobs", {}, [&](const auto& row) {
    parsed.Update(ParseInto(row[0], "job", records));
  }));
  LLMC_RETURN_IF_ERROR(parsed);
  return records;
}

absl::Status JobStore::Write(const Change& change) {
  if (change.empty()) return absl::OkStatus();
  return Transact([&] { return WriteRows(change); });
}

absl::Status JobStore::Probe() {
  return Transact([this] {
    return connection_->Run("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
                            {std::string("probe"), RandomBytes(8)});
  });
}

absl::Status JobStore::Transact(const std::function<absl::Status()>& write) {
  absl::Status status = Failpoint("store.begin");
  if (status.ok()) status = connection_->Run("BEGIN IMMEDIATE");
  if (status.ok()) status = write();
  if (status.ok()) status = Failpoint("store.before_commit");
  if (status.ok()) status = connection_->Run("COMMIT");
  if (!status.ok()) connection_->Rollback();
  failing_ = !status.ok();
  if (!status.ok()) return absl::UnavailableError(absl::StrCat("job store: ", status.message()));
  (void)Failpoint("store.after_commit");
  return absl::OkStatus();
}

absl::Status JobStore::WriteRows(const Change& change) {
  for (const auto& [id, record] : change.jobs) {
    LLMC_RETURN_IF_ERROR(Failpoint("store.job"));
    LLMC_RETURN_IF_ERROR(
        connection_->Run("INSERT OR REPLACE INTO jobs (id, record) VALUES (?1, ?2)",
                         {id, record.SerializeAsString()}));
    if (record.first_sequence() > 1) {
      LLMC_RETURN_IF_ERROR(connection_->Run("DELETE FROM events WHERE id=?1 AND sequence<?2",
                                            {id, static_cast<int64_t>(record.first_sequence())}));
    }
  }
  for (const auto& [id, event] : change.events) {
    LLMC_RETURN_IF_ERROR(Failpoint("store.event"));
    LLMC_RETURN_IF_ERROR(
        connection_->Run("INSERT INTO events (id, sequence, event) VALUES (?1, ?2, ?3)",
                         {id, static_cast<int64_t>(event.sequence()), event.SerializeAsString()}));
  }
  for (const auto& [id, report] : change.reports) {
    LLMC_RETURN_IF_ERROR(connection_->Run(
        "INSERT OR REPLACE INTO reports (id, report) VALUES (?1, ?2)", {id, report}));
  }
  for (const std::string& id : change.deleted) {
    LLMC_RETURN_IF_ERROR(Failpoint("store.delete"));
    for (const char* table : {"jobs", "events", "reports"}) {
      LLMC_RETURN_IF_ERROR(
          connection_->Run(absl::StrCat("DELETE FROM ", table, " WHERE id=?1"), {id}));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::JobEvent>> JobStore::ReadEvents(absl::string_view job_id,
                                                               int64_t after, int limit) {
  std::vector<v1::JobEvent> events;
  absl::Status parsed;
  LLMC_RETURN_IF_ERROR(connection_->Run(
      "SELECT event FROM events WHERE id=?1 AND sequence>?2 ORDER BY sequence LIMIT ?3",
      {std::string(job_id), after, static_cast<int64_t>(limit)},
      [&](const auto& row) { parsed.Update(ParseInto(row[0], "event", events)); }));
  LLMC_RETURN_IF_ERROR(parsed);
  return events;
}

absl::StatusOr<std::string> JobStore::ReadReport(absl::string_view job_id) {
  std::string report;
  LLMC_RETURN_IF_ERROR(
      connection_->Run("SELECT report FROM reports WHERE id=?1", {std::string(job_id)},
                       [&](const auto& row) { report = std::get<std::string>(row[0]); }));
  if (!report.empty()) return report;
  return absl::NotFoundError(absl::StrCat("jobs/", job_id, ": no report yet"));
}

bool JobStore::IsAt(const std::filesystem::path& directory) {
  std::error_code error;
  return std::filesystem::exists(directory / kDatabase, error);
}

absl::Status JobStore::BackUp(const std::filesystem::path& file) {
  // Made by us first: SQLite would give it the mode of any file.
  const int descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return ErrnoStatus(errno, file, "create");
  absl::Status status = connection_->CopyInto(file);
  if (status.ok() && fsync(descriptor) != 0) status = ErrnoStatus(errno, file, "fsync");
  close(descriptor);
  if (status.ok()) return FsyncDirectory(std::filesystem::absolute(file).parent_path());
  unlink(file.c_str());
  return absl::UnavailableError(status.message());
}

absl::Status JobStore::Restore(const std::filesystem::path& file,
                               const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return ErrnoStatus(error.value(), directory, "create");
  if (IsAt(directory)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory.string(), ": holds a job store; move it away first"));
  }
  LLMC_RETURN_IF_ERROR(CheckHeader(file));
  // Checked before it has the store's name: a crash leaves no half store.
  const std::filesystem::path staging = directory / "restoring";
  std::filesystem::remove_all(staging, error);
  std::filesystem::create_directory(staging, error);
  std::filesystem::copy_file(file, staging / kDatabase, error);
  if (error) return ErrnoStatus(error.value(), file, "copy");
  LLMC_RETURN_IF_ERROR(SyncFile(staging / kDatabase));
  {
    LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<JobStore> store, Open(staging));
    LLMC_RETURN_IF_ERROR(store->LoadJobs().status());
  }
  std::filesystem::rename(staging / kDatabase, directory / kDatabase, error);
  if (error) return ErrnoStatus(error.value(), directory, "rename");
  std::filesystem::remove_all(staging, error);
  return FsyncDirectory(directory);
}

StoreSize JobStore::Size() const {
  std::error_code error;
  StoreSize size;
  const auto bytes = [&](const std::filesystem::path& path) {
    const auto found = std::filesystem::file_size(path, error);
    return error ? int64_t{0} : static_cast<int64_t>(found);
  };
  size.database_bytes = bytes(directory_ / kDatabase);
  size.wal_bytes = bytes(directory_ / (std::string(kDatabase) + "-wal"));
  return size;
}

}  // namespace llmc
