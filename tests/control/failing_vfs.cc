#include "failing_vfs.h"

#include <sqlite3.h>

#include <csignal>
#include <cstring>
#include <new>

namespace llmc {
namespace {

Fault fault = Fault::kNone;
int64_t fault_at = 0;
int64_t seen = 0;

// SQLITE_OK, or what the operation shall return.
int Meet(int error, bool may_be_full) {
  if (++seen != fault_at) return SQLITE_OK;
  if (fault == Fault::kKill) raise(SIGKILL);
  if (fault == Fault::kFull) return may_be_full ? SQLITE_FULL : error;
  return fault == Fault::kError ? error : SQLITE_OK;
}

struct ShimFile {
  sqlite3_file shim;
  sqlite3_file* real;
};

sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<ShimFile*>(file)->real; }

int Close(sqlite3_file* file) {
  sqlite3_file* real = Real(file);
  const int result = real->pMethods == nullptr ? SQLITE_OK : real->pMethods->xClose(real);
  operator delete(real);
  return result;
}
int Read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
  return Real(file)->pMethods->xRead(Real(file), out, size, offset);
}
int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
  if (const int error = Meet(SQLITE_IOERR_WRITE, true); error != SQLITE_OK) {
    // Half of it is on disk.
    (void)Real(file)->pMethods->xWrite(Real(file), bytes, size / 2, offset);
    return error;
  }
  return Real(file)->pMethods->xWrite(Real(file), bytes, size, offset);
}
int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  if (const int error = Meet(SQLITE_IOERR_TRUNCATE, false); error != SQLITE_OK) return error;
  return Real(file)->pMethods->xTruncate(Real(file), size);
}
int Sync(sqlite3_file* file, int flags) {
  if (const int error = Meet(SQLITE_IOERR_FSYNC, false); error != SQLITE_OK) return error;
  return Real(file)->pMethods->xSync(Real(file), flags);
}
int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  return Real(file)->pMethods->xFileSize(Real(file), size);
}
int Lock(sqlite3_file* file, int level) { return Real(file)->pMethods->xLock(Real(file), level); }
int Unlock(sqlite3_file* file, int level) {
  return Real(file)->pMethods->xUnlock(Real(file), level);
}
int CheckReservedLock(sqlite3_file* file, int* result) {
  return Real(file)->pMethods->xCheckReservedLock(Real(file), result);
}
int FileControl(sqlite3_file* file, int op, void* argument) {
  return Real(file)->pMethods->xFileControl(Real(file), op, argument);
}
int SectorSize(sqlite3_file* file) { return Real(file)->pMethods->xSectorSize(Real(file)); }
int DeviceCharacteristics(sqlite3_file* file) {
  return Real(file)->pMethods->xDeviceCharacteristics(Real(file));
}

// Version 1: no shared memory, so WAL works only with the exclusive lock.
const sqlite3_io_methods kMethods = {1,
                                     Close,
                                     Read,
                                     Write,
                                     Truncate,
                                     Sync,
                                     FileSize,
                                     Lock,
                                     Unlock,
                                     CheckReservedLock,
                                     FileControl,
                                     SectorSize,
                                     DeviceCharacteristics,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr};

sqlite3_vfs* RealVfs() {
  static sqlite3_vfs* real = sqlite3_vfs_find(nullptr);
  return real;
}

int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  if (const int error = Meet(SQLITE_CANTOPEN, false); error != SQLITE_OK) {
    file->pMethods = nullptr;
    return error;
  }
  auto* shim = reinterpret_cast<ShimFile*>(file);
  shim->real = static_cast<sqlite3_file*>(operator new(RealVfs()->szOsFile));
  std::memset(static_cast<void*>(shim->real), 0, static_cast<size_t>(RealVfs()->szOsFile));
  const int result = RealVfs()->xOpen(RealVfs(), name, shim->real, flags, out_flags);
  file->pMethods = result == SQLITE_OK ? &kMethods : nullptr;
  if (result != SQLITE_OK) operator delete(shim->real);
  return result;
}

int Delete(sqlite3_vfs*, const char* name, int sync_directory) {
  if (const int error = Meet(SQLITE_IOERR_DELETE, false); error != SQLITE_OK) return error;
  return RealVfs()->xDelete(RealVfs(), name, sync_directory);
}

}  // namespace

void SetFault(Fault wanted, int64_t at) {
  static const bool registered = [] {
    static sqlite3_vfs vfs = *RealVfs();
    vfs.zName = "failing";
    vfs.szOsFile = sizeof(ShimFile);
    vfs.xOpen = Open;
    vfs.xDelete = Delete;
    return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK;
  }();
  (void)registered;
  fault = wanted;
  fault_at = at;
  seen = 0;
}

int64_t OperationsSeen() { return seen; }

}  // namespace llmc
