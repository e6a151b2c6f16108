// Parquet's encodings, decoded value by value: a few bytes may claim billions of
// values, so none is expanded ahead of its use.
#ifndef LLMC_DATASET_PARQUET_ENCODING_H_
#define LLMC_DATASET_PARQUET_ENCODING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataset/parquet_metadata.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// The RLE / bit-packing hybrid, for levels, dictionary indices and booleans.
class HybridDecoder {
 public:
  HybridDecoder() = default;
  // `bit_width` is at most 32. Width 0 gives zeros without reading.
  HybridDecoder(absl::string_view bytes, int bit_width) : bytes_(bytes), bit_width_(bit_width) {}

  absl::StatusOr<uint32_t> Next();

 private:
  absl::Status StartRun();

  absl::string_view bytes_;
  int bit_width_ = 0;
  uint64_t left_ = 0;  // Values left in the run.
  bool packed_ = false;
  uint32_t repeated_ = 0;
  uint64_t bits_ = 0;
  int num_bits_ = 0;
};

// DELTA_BINARY_PACKED integers. `Remaining` is what follows once all are read.
class DeltaDecoder {
 public:
  static absl::StatusOr<DeltaDecoder> Open(absl::string_view bytes);

  int64_t num_values() const { return num_values_; }
  absl::StatusOr<int64_t> Next();
  // Reads on to the end of the last block, whose padding belongs to the stream.
  absl::StatusOr<absl::string_view> SkipToRest();

 private:
  absl::StatusOr<uint64_t> ReadVarint();
  absl::Status StartBlock();
  absl::Status StartMiniblock();

  absl::string_view bytes_;
  int64_t num_values_ = 0;
  int64_t num_read_ = 0;
  int64_t num_miniblocks_ = 0;
  int64_t per_miniblock_ = 0;
  int64_t value_ = 0;      // The last one; the first before any is read.
  int64_t min_delta_ = 0;  // Of the block.
  std::vector<uint8_t> widths_;
  size_t next_miniblock_ = 0;
  int64_t left_ = 0;  // Deltas left in the miniblock.
  absl::string_view miniblock_;
  int width_ = 0;
  int64_t bit_ = 0;
};

// The values of one page, without nulls.
class ParquetValues {
 public:
  virtual ~ParquetValues() = default;
  virtual absl::StatusOr<Value> Next() = 0;
};

// `bytes` outlives the decoder, `dictionary` (null when the column has none) too.
// kUnimplemented, by name, for encodings llmc does not read.
struct ParquetEncodedValues {
  absl::string_view bytes;
  int encoding = 0;
  const ParquetNode* leaf = nullptr;
  const std::vector<Value>* dictionary = nullptr;
};
absl::StatusOr<std::unique_ptr<ParquetValues>> DecodeValues(const ParquetEncodedValues& encoded);

// All values of a dictionary page (PLAIN).
absl::StatusOr<std::vector<Value>> DecodeDictionary(absl::string_view bytes,
                                                    const ParquetNode& leaf);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_ENCODING_H_
