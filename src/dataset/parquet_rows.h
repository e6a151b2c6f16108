// Rows of a Parquet file (docs/decisions/ says why llmc reads them itself).
#ifndef LLMC_DATASET_PARQUET_ROWS_H_
#define LLMC_DATASET_PARQUET_ROWS_H_

#include <filesystem>
#include <memory>

#include "dataset/row_reader.h"

namespace llmc::dataset {

// Reads the columns that `choose` picks, page by page: memory does not grow with
// the row groups. Data pages v1 and v2; PLAIN, dictionary, RLE, DELTA_BINARY_PACKED,
// DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY; uncompressed, Snappy, gzip and zstd;
// nested lists, maps and structs of text, integers, floats and booleans.
// kInvalidArgument when the file is damaged; kUnimplemented, by name, for other
// encodings, codecs and for encrypted files.
absl::StatusOr<std::unique_ptr<RowReader>> ParquetRows(const std::filesystem::path& path,
                                                       const ColumnChoice& choose);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_ROWS_H_
