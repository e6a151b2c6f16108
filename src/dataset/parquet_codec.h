// Decompression of Parquet pages.
#ifndef LLMC_DATASET_PARQUET_CODEC_H_
#define LLMC_DATASET_PARQUET_CODEC_H_

#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc::dataset {

// `codec` as Parquet numbers it: 0 none, 1 Snappy, 2 gzip, 6 zstd. The result has
// exactly `size` bytes. kInvalidArgument when the bytes are damaged or give another
// size; kUnimplemented, by name, for other codecs. Memory grows with what is
// really decompressed, not with `size`.
absl::StatusOr<std::string> DecompressPage(int codec, absl::string_view bytes, size_t size);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PARQUET_CODEC_H_
