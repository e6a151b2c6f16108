// One leaf column of one row group, as (repetition, definition, value) entries.
#ifndef LLMC_DATASET_PARQUET_COLUMN_H_
#define LLMC_DATASET_PARQUET_COLUMN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataset/parquet_encoding.h"
#include "dataset/parquet_metadata.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// Bytes of a file by offset. Thread-compatible.
class RandomAccessFile {
 public:
  static absl::StatusOr<std::shared_ptr<RandomAccessFile>> Open(const std::string& path);
  ~RandomAccessFile();
  RandomAccessFile(const RandomAccessFile&) = delete;
  RandomAccessFile& operator=(const RandomAccessFile&) = delete;

  int64_t size() const { return size_; }
  // Exactly `count` bytes at `offset`, which the caller keeps inside the file.
  absl::StatusOr<std::string> Read(int64_t offset, int64_t count) const;

 private:
  RandomAccessFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  int64_t size_ = 0;
};

// Walks the entries of a chunk, reading one page at a time.
class ParquetColumn {
 public:
  // `leaf` outlives this.
  ParquetColumn(std::shared_ptr<const RandomAccessFile> file, const ParquetNode& leaf,
                const ParquetChunk& chunk);

  // Makes the next entry current; false at the end of the chunk.
  absl::StatusOr<bool> Load();

  // Of the current entry, which Load has made.
  int repetition() const { return repetition_; }
  int definition() const { return definition_; }
  bool is_null() const { return definition_ < leaf_.max_definition; }

  // The current entry's value (None for a null); goes past it.
  absl::StatusOr<Value> Take();

 private:
  absl::Status LoadPage();
  absl::StatusOr<ParquetPageHeader> ReadPageHeader();
  absl::Status OpenDictionary(const ParquetPageHeader& header, const std::string& raw);
  absl::Status OpenDataV1(const ParquetPageHeader& header, const std::string& raw);
  absl::Status OpenDataV2(const ParquetPageHeader& header, std::string raw);
  absl::Status OpenValues(absl::string_view bytes, int encoding);

  std::shared_ptr<const RandomAccessFile> file_;
  const ParquetNode& leaf_;
  ParquetChunk chunk_;
  int64_t offset_;       // Of the next page.
  int64_t end_;          // Of the chunk.
  int64_t values_left_;  // In the chunk, after the current page.
  int64_t page_values_left_ = 0;
  bool loaded_ = false;
  int repetition_ = 0;
  int definition_ = 0;
  std::string page_;  // What the decoders below point into.
  HybridDecoder repetitions_;
  HybridDecoder definitions_;
  std::unique_ptr<ParquetValues> values_;
  std::vector<Value> dictionary_;
  bool has_dictionary_ = false;
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_COLUMN_H_
