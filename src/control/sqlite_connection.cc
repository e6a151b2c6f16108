#include "control/sqlite_connection.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"

namespace llmc {

absl::StatusOr<std::unique_ptr<SqliteConnection>> SqliteConnection::Open(const std::string& path,
                                                                         const std::string& vfs) {
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection);
  connection->path_ = path;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int error = sqlite3_open_v2(path.c_str(), &connection->database_, flags,
                                    vfs.empty() ? nullptr : vfs.c_str());
  if (error != SQLITE_OK) return connection->Failure("open");
  sqlite3_extended_result_codes(connection->database_, 1);
  // Exclusive before WAL: then no shared memory is used, and the lock is kept.
  for (const char* pragma : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL",
                             "PRAGMA synchronous=FULL", "PRAGMA trusted_schema=OFF"}) {
    LLMC_RETURN_IF_ERROR(connection->Run(pragma));
  }
  return connection;
}

SqliteConnection::~SqliteConnection() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(database_);
}

absl::Status SqliteConnection::Failure(absl::string_view what) const {
  const std::string message = absl::StrCat(path_, ": ", what, ": ", sqlite3_errmsg(database_), " (",
                                           sqlite3_extended_errcode(database_), ")");
  switch (sqlite3_errcode(database_) & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::FailedPreconditionError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<sqlite3_stmt*> SqliteConnection::Prepared(const std::string& sql) {
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr &&
      sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
    return Failure("prepare");
  }
  return statement;
}

absl::Status SqliteConnection::Run(
    const std::string& sql, const std::vector<SqlValue>& values,
    const std::function<void(const std::vector<SqlValue>&)>& on_row) {
  LLMC_ASSIGN_OR_RETURN(sqlite3_stmt* const statement, Prepared(sql));
  for (size_t i = 0; i < values.size(); ++i) {
    const int place = static_cast<int>(i) + 1;
    if (const int64_t* number = std::get_if<int64_t>(&values[i])) {
      sqlite3_bind_int64(statement, place, *number);
    } else {
      const std::string& bytes = std::get<std::string>(values[i]);
      sqlite3_bind_blob64(statement, place, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
    }
  }
  int result = SQLITE_ROW;
  while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
    if (!on_row) continue;
    std::vector<SqlValue> row;
    for (int c = 0; c < sqlite3_column_count(statement); ++c) {
      if (sqlite3_column_type(statement, c) == SQLITE_INTEGER) {
        row.emplace_back(static_cast<int64_t>(sqlite3_column_int64(statement, c)));
      } else {
        const char* bytes = static_cast<const char*>(sqlite3_column_blob(statement, c));
        row.emplace_back(std::string(bytes == nullptr ? "" : bytes,
                                     static_cast<size_t>(sqlite3_column_bytes(statement, c))));
      }
    }
    on_row(row);
  }
  const absl::Status status =
      result == SQLITE_DONE ? absl::OkStatus() : Failure(sql.substr(0, sql.find(' ')));
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return status;
}

absl::Status SqliteConnection::CopyInto(const std::string& path) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database_, "VACUUM INTO ?1", -1, &statement, nullptr) != SQLITE_OK) {
    return Failure("prepare");
  }
  sqlite3_bind_text64(statement, 1, path.data(), path.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  const int result = sqlite3_step(statement);
  const absl::Status status =
      result == SQLITE_DONE ? absl::OkStatus() : Failure("copy into a backup");
  sqlite3_finalize(statement);
  return status;
}

void SqliteConnection::Rollback() {
  // Some failures end the transaction by themselves.
  if (sqlite3_get_autocommit(database_) == 0) (void)Run("ROLLBACK");
}

}  // namespace llmc
