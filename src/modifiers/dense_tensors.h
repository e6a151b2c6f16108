// The dense tensors of one unit on their way through the recipe's modifiers.
#ifndef LLMC_MODIFIERS_DENSE_TENSORS_H_
#define LLMC_MODIFIERS_DENSE_TENSORS_H_

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

// Weights of linears and norms and biases, in the model's dtype, by tensor name, as
// the transforms before left them. A tensor is read from the source when it is
// first asked for and kept until it is taken.
class DenseTensors {
 public:
  using Reader = std::function<absl::StatusOr<HostTensor>(const std::string& name)>;

  explicit DenseTensors(Reader reader) : reader_(std::move(reader)) {}

  // The tensor as it is now, to read or to rewrite in place. Valid until Take of the
  // same name. Errors of the reader; kFailedPrecondition after Take.
  absl::StatusOr<HostTensor*> Get(const std::string& name);

  // Gives the tensor away: to the modifier that quantises it, or to be written.
  absl::StatusOr<HostTensor> Take(const std::string& name);

 private:
  Reader reader_;
  std::map<std::string, HostTensor> tensors_;
  std::map<std::string, bool> taken_;
};

// A copy of `tensor`'s bytes.
HostTensor CopyOf(const HostTensor& tensor);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_DENSE_TENSORS_H_
