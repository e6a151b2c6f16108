// Jobs, their events and reports on disk: SQLite, one connection that locks out
// every other process, WAL, synchronous=FULL.
#ifndef LLMC_CONTROL_JOB_STORE_H_
#define LLMC_CONTROL_JOB_STORE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/coordinator.h"
#include "llmc/status.h"

namespace llmc {

class SqliteConnection;

struct StoreOptions {
  std::string vfs;  // Of SQLite, for tests; empty: the default one.
};

// Bytes on disk.
struct StoreSize {
  int64_t database_bytes = 0;
  int64_t wal_bytes = 0;
};

// Thread-safety: none; the coordinator's lock holds here too.
class JobStore {
 public:
  // Makes `directory` and the database when they are not there.
  // kFailedPrecondition: another coordinator has it (the message names it), or a
  // newer llmc wrote it. kDataLoss: damaged; the message says how to restore.
  // kUnavailable: the disk fails.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::filesystem::path& directory,
                                                        const StoreOptions& options = {});
  ~JobStore();

  absl::StatusOr<std::vector<store::v1::JobRecord>> LoadJobs();

  // One transaction, durable when OK. kUnavailable: nothing of it will be seen by
  // this process, and the next call may succeed.
  absl::Status Write(const Change& change);

  // A durable write of nothing that matters: whether the disk works again.
  absl::Status Probe();

  // At most `limit` events of the job with sequence > `after`, in order.
  absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(absl::string_view job_id, int64_t after,
                                                       int limit);
  // kNotFound: no attempt of this job has left a report.
  absl::StatusOr<std::string> ReadReport(absl::string_view job_id);

  // Whether `directory` holds a store.
  static bool IsAt(const std::filesystem::path& directory);
  // A consistent copy in `file`, a new file of mode 0600, durable when OK.
  // kUnavailable: the disk fails; no file is left.
  absl::Status BackUp(const std::filesystem::path& file);
  // Makes `directory` with the store that BackUp has written to `file`.
  // kFailedPrecondition: there is a store already, or a newer llmc wrote the file.
  // kDataLoss: it is damaged, or no backup.
  static absl::Status Restore(const std::filesystem::path& file,
                              const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  // A random secret that lives as long as the database. 32 bytes.
  const std::string& secret() const { return secret_; }
  StoreSize Size() const;
  // True: the last Write or Probe failed.
  bool failing() const { return failing_; }

 private:
  explicit JobStore(std::filesystem::path directory);
  absl::Status Connect(const StoreOptions& options);
  absl::Status MakeSchema();
  absl::Status LoadSecret();
  absl::Status Transact(const std::function<absl::Status()>& write);
  absl::Status WriteRows(const Change& change);

  const std::filesystem::path directory_;
  std::unique_ptr<SqliteConnection> connection_;
  std::string secret_;
  bool failing_ = false;
};

}  // namespace llmc

#endif  // LLMC_CONTROL_JOB_STORE_H_
