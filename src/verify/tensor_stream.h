// Questions about whole tensors and files, answered piece by piece.
#ifndef LLMC_VERIFY_TENSOR_STREAM_H_
#define LLMC_VERIFY_TENSOR_STREAM_H_

#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/posix_file.h"
#include "llmc/status.h"

namespace llmc {

// ContentHash of a tensor's bytes, of a file's bytes.
absl::StatusOr<std::string> HashTensor(const Checkpoint& checkpoint, const std::string& name);
absl::StatusOr<std::string> HashFile(const PosixFile& file);

// "" when sound; else which element is not finite, or not a possible scale.
std::string FiniteTensorProblem(const Checkpoint& checkpoint, const TensorSpec& spec);
std::string ScaleTensorProblem(const Checkpoint& checkpoint, const TensorSpec& spec);

}  // namespace llmc

#endif  // LLMC_VERIFY_TENSOR_STREAM_H_
