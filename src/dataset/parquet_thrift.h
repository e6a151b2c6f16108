// The Thrift compact protocol, as far as Parquet's headers use it.
#ifndef LLMC_DATASET_PARQUET_THRIFT_H_
#define LLMC_DATASET_PARQUET_THRIFT_H_

#include <cstdint>
#include <functional>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc::dataset {

// Wire types of struct fields.
enum class ThriftType : uint8_t {
  kStop = 0,
  kTrue = 1,
  kFalse = 2,
  kByte = 3,
  kI16 = 4,
  kI32 = 5,
  kI64 = 6,
  kDouble = 7,
  kBinary = 8,
  kList = 9,
  kSet = 10,
  kMap = 11,
  kStruct = 12,
};

// Reads values one after the other. Every error is kInvalidArgument; nothing is
// allocated by claimed sizes.
class ThriftReader {
 public:
  explicit ThriftReader(absl::string_view bytes) : bytes_(bytes) {}

  // Calls `field` for each field of a struct; it reads the value or skips it.
  using Field = std::function<absl::Status(int id, ThriftType type)>;
  absl::Status ReadStruct(const Field& field);

  // Calls `element` once per element of a list, each of which it must read.
  absl::Status ReadList(const std::function<absl::Status(ThriftType type)>& element);

  absl::StatusOr<int64_t> ReadInteger();
  absl::StatusOr<absl::string_view> ReadBinary();
  absl::Status Skip(ThriftType type);

  size_t position() const { return position_; }

 private:
  absl::StatusOr<uint8_t> ReadByte();
  absl::StatusOr<uint64_t> ReadVarint();
  absl::Status SkipMap();

  absl::string_view bytes_;
  size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_THRIFT_H_
