// The safetensors file format: an 8-byte little-endian header length, a JSON
// header, then the tensors without holes.
//
// Accepts what the reference reader (safetensors 0.8.0) accepts, except that a
// tensor or metadata key given twice, a dtype that llmc has no type for, and a
// dimension above 2^63 - 1 are refused.
#ifndef LLMC_CHECKPOINT_SAFETENSORS_H_
#define LLMC_CHECKPOINT_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "checkpoint/posix_file.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// A tensor and where its bytes begin: in the data part for a header, in the file
// for everything else.
struct StoredTensor {
  TensorSpec spec;
  int64_t offset = 0;
};

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;            // By offset, then name; offsets in the file.
  std::map<std::string, std::string> metadata;  // "__metadata__".
};

// Reads and checks the header of an open file. kInvalidArgument naming file and
// tensor when it is not valid; memory stays in proportion to the real file.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const PosixFile& file);

// The same for header text (without the length) whose data part has
// `num_data_bytes` bytes; offsets are relative to the data part.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t num_data_bytes);

// The bytes before the data part: length, JSON, padding to a multiple of 8, byte
// for byte as the reference writer makes them. Offsets relative to the data.
std::string EncodeSafetensorsHeader(const std::vector<StoredTensor>& tensors,
                                    const std::map<std::string, std::string>& metadata);

// Rank of a dtype in the reference writer's file order (larger comes first), so
// that every tensor is aligned to its element size.
int SafetensorsOrder(DType dtype);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_SAFETENSORS_H_
