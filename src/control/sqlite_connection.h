// SQLite's C interface with absl::Status. The one file that includes sqlite3.h is
// sqlite_connection.cc.
#ifndef LLMC_CONTROL_SQLITE_CONNECTION_H_
#define LLMC_CONTROL_SQLITE_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace llmc {

// Text is bound as a blob: bytes in, the same bytes out.
using SqlValue = std::variant<int64_t, std::string>;

class SqliteConnection {
 public:
  // kFailedPrecondition: locked. kDataLoss: not a database. kUnavailable: other
  // failures of the disk.
  static absl::StatusOr<std::unique_ptr<SqliteConnection>> Open(const std::string& path,
                                                                const std::string& vfs);
  ~SqliteConnection();

  // Runs one statement; `on_row` is called with the columns of every row.
  absl::Status Run(const std::string& sql, const std::vector<SqlValue>& values = {},
                   const std::function<void(const std::vector<SqlValue>&)>& on_row = {});
  // A compact, consistent copy in a new file, not synchronised yet.
  absl::Status CopyInto(const std::string& path);
  // Rolls back if a transaction is open.
  void Rollback();

 private:
  SqliteConnection() = default;
  absl::StatusOr<sqlite3_stmt*> Prepared(const std::string& sql);
  absl::Status Failure(absl::string_view what) const;

  sqlite3* database_ = nullptr;
  std::string path_;
  std::map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace llmc

#endif  // LLMC_CONTROL_SQLITE_CONNECTION_H_
