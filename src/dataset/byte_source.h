// The bytes of a file, plain or decompressed while they are read.
#ifndef LLMC_DATASET_BYTE_SOURCE_H_
#define LLMC_DATASET_BYTE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "llmc/status.h"

namespace llmc::dataset {

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Fills up to `size` > 0 bytes at `to`; 0 at the end. kInvalidArgument when
  // compressed bytes are damaged or end early.
  virtual absl::StatusOr<size_t> Read(char* to, size_t size) = 0;
};

enum class Compression : uint8_t { kNone, kGzip, kZstd };

// Opens a regular file. kNotFound, kPermissionDenied; kInvalidArgument when it is
// no regular file.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::filesystem::path& path,
                                                     Compression compression);

// What `source` decompresses to.
std::unique_ptr<ByteSource> Decompress(std::unique_ptr<ByteSource> source, Compression compression);

// Bytes of a source one by one or line by line, with the line number. A byte order
// mark at the start is skipped.
class TextReader {
 public:
  explicit TextReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

  static constexpr int kEnd = -1;

  // The next byte, or kEnd; Peek leaves it there.
  absl::StatusOr<int> Peek();
  absl::StatusOr<int> Get();

  // The next line without its "\n" or "\r\n"; false at the end. kInvalidArgument
  // when it is longer than `max_bytes`.
  absl::StatusOr<bool> GetLine(std::string* line, size_t max_bytes);

  // 1-based line of the byte that Get would return.
  int64_t line() const { return line_; }

 private:
  absl::Status Fill();

  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t position_ = 0;
  bool started_ = false;
  int64_t line_ = 1;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_BYTE_SOURCE_H_
