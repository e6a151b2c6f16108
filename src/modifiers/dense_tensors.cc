#include "modifiers/dense_tensors.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace llmc {

absl::StatusOr<HostTensor*> DenseTensors::Get(const std::string& name) {
  if (taken_.contains(name)) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": was quantised before"));
  }
  auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    LLMC_ASSIGN_OR_RETURN(HostTensor tensor, reader_(name));
    found = tensors_.emplace(name, std::move(tensor)).first;
  }
  return &found->second;
}

absl::StatusOr<HostTensor> DenseTensors::Take(const std::string& name) {
  LLMC_ASSIGN_OR_RETURN(HostTensor * tensor, Get(name));
  HostTensor taken = std::move(*tensor);
  tensors_.erase(name);
  taken_[name] = true;
  return taken;
}

HostTensor CopyOf(const HostTensor& tensor) {
  HostTensor copy(tensor.dtype(), tensor.shape());
  std::memcpy(copy.bytes().data(), tensor.bytes().data(), tensor.bytes().size());
  return copy;
}

}  // namespace llmc
