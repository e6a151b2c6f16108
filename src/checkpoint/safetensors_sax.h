// The JSON of a safetensors header, read event by event: what it says, not yet
// checked against the file.
#ifndef LLMC_CHECKPOINT_SAFETENSORS_SAX_H_
#define LLMC_CHECKPOINT_SAFETENSORS_SAX_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct RawHeader {
  std::vector<RawTensor> tensors;  // In the order of the text.
  std::map<std::string, std::string> metadata;
};

// kInvalidArgument with the position in the text when it is not a header.
absl::StatusOr<RawHeader> ParseRawHeader(absl::string_view json);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_SAFETENSORS_SAX_H_
