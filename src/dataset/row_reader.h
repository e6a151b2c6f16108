// Rows of dataset files, one at a time.
#ifndef LLMC_DATASET_ROW_READER_H_
#define LLMC_DATASET_ROW_READER_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// No row of any format may be larger.
inline constexpr size_t kMaxRowBytes = size_t{64} << 20;

struct Row {
  std::string where;  // "path:line", "path: row 7" (1-based) for Parquet.
  Value columns;      // A dict of column name to value; all text is valid UTF-8.
};

class RowReader {
 public:
  virtual ~RowReader() = default;

  // The next row; false at the end. Errors name file and line. After an error or
  // the end the reader is not used again.
  virtual absl::StatusOr<bool> Next(Row* row) = 0;
};

// Chooses, from the columns that a file has, those worth reading. Only formats that
// store columns apart (Parquet) ask. An error refuses the file.
using ColumnChoice = std::function<absl::StatusOr<std::vector<std::string>>(
    const std::vector<std::string>& columns)>;

// The files behind `paths` in reading order: directories become their files with a
// known extension by name, subdirectories after them; hidden entries are skipped.
// kNotFound; kInvalidArgument for an unknown extension or a directory without
// dataset files.
absl::StatusOr<std::vector<std::filesystem::path>> ListDatasetFiles(
    const std::vector<std::filesystem::path>& paths);

// Opens one file by its extension.
absl::StatusOr<std::unique_ptr<RowReader>> OpenRows(const std::filesystem::path& file,
                                                    const ColumnChoice& choose);

// All rows of several files, opened one after the other.
std::unique_ptr<RowReader> ConcatenateFiles(std::vector<std::filesystem::path> files,
                                            ColumnChoice choose);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_ROW_READER_H_
