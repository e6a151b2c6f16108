// The footer of a Parquet file: its schema and where its columns lie.
#ifndef LLMC_DATASET_PARQUET_METADATA_H_
#define LLMC_DATASET_PARQUET_METADATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc::dataset {

enum class ParquetType : uint8_t {
  kBoolean = 0,
  kInt32 = 1,
  kInt64 = 2,
  kInt96 = 3,
  kFloat = 4,
  kDouble = 5,
  kByteArray = 6,
  kFixedLenByteArray = 7,
};

enum class ParquetRepetition : uint8_t { kRequired = 0, kOptional = 1, kRepeated = 2 };

enum class ParquetAnnotation : uint8_t { kNone, kList, kMap, kUnsigned32 };

// A column, or a group of columns.
struct ParquetNode {
  std::string name;
  bool is_leaf = false;
  ParquetType type = ParquetType::kBoolean;  // Of a leaf.
  ParquetRepetition repetition = ParquetRepetition::kRequired;
  ParquetAnnotation annotation = ParquetAnnotation::kNone;
  int max_definition = 0;  // Optional and repeated nodes from the root to here.
  int max_repetition = 0;  // Repeated nodes from the root to here.
  size_t first_leaf = 0;   // The leaves below are first_leaf .. first_leaf + num_leaves.
  size_t num_leaves = 0;
  std::vector<ParquetNode> children;
};

// The pages of one leaf in one row group.
struct ParquetChunk {
  ParquetType type = ParquetType::kBoolean;
  int codec = 0;
  int64_t num_values = 0;  // Nulls included.
  int64_t offset = 0;      // Of the first page in the file.
  int64_t size = 0;        // Bytes of all pages, compressed.
};

struct ParquetRowGroup {
  int64_t num_rows = 0;
  std::vector<ParquetChunk> chunks;  // One per leaf of the schema.
};

struct ParquetMetadata {
  ParquetNode root;
  std::vector<ParquetRowGroup> row_groups;
};

// Reads a footer; `file_size` bounds the offsets. kInvalidArgument when it is
// damaged, kUnimplemented for columns in other files or encrypted ones.
absl::StatusOr<ParquetMetadata> ParseParquetMetadata(absl::string_view footer, int64_t file_size);

struct ParquetPageHeader {
  enum class Kind : uint8_t { kDataV1 = 0, kIndex = 1, kDictionary = 2, kDataV2 = 3 };
  Kind kind = Kind::kDataV1;
  int64_t uncompressed_size = 0;
  int64_t compressed_size = 0;
  int64_t num_values = 0;
  int encoding = 0;
  int definition_encoding = 3;
  int repetition_encoding = 3;
  int64_t definition_bytes = 0;  // V2.
  int64_t repetition_bytes = 0;  // V2.
  bool is_compressed = true;     // V2.
  size_t header_size = 0;
};

absl::StatusOr<ParquetPageHeader> ParseParquetPageHeader(absl::string_view bytes);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_METADATA_H_
