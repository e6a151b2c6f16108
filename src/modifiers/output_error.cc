#include "modifiers/output_error.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/gptq_solve.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

const float* Floats(const at::Tensor& tensor) {
  return static_cast<const float*>(tensor.const_data_ptr());
}

}  // namespace

absl::StatusOr<double> OutputErrorOf(const ComputeDevice& device, const at::Tensor& dense,
                                     const at::Tensor& changed, const at::Tensor& hessian) {
  const int64_t rows = dense.size(0);
  const int64_t columns = dense.size(1);
  const float* const other = changed.defined() ? Floats(changed) : nullptr;
  if (device.is_host()) {
    return kernels::OutputError(Floats(dense), other, rows, columns, Floats(hessian));
  }
  LLMC_ASSIGN_OR_RETURN(const at::Tensor errors, device.New(at::kDouble, {rows}));
  const kernels::OutputErrorCall call = {Floats(dense),   other, rows, columns, Floats(hessian),
                                         static_cast<double*>(errors.data_ptr())};
  LLMC_RETURN_IF_ERROR(kernels::OutputErrors(call, *device.queue()));
  LLMC_ASSIGN_OR_RETURN(const HostTensor by_row, device.Download(errors));
  return std::accumulate(by_row.as<double>(), by_row.as<double>() + rows, 0.0);
}

absl::StatusOr<double> OutputEnergy(const ComputeDevice& device, const HostTensor& weight,
                                    const at::Tensor& hessian) {
  constexpr int64_t kSampledRows = 512;
  const int64_t rows = weight.dim(0);
  const int64_t sampled = std::min(rows, kSampledRows);
  const int64_t row_bytes = weight.dim(1) * ElementSize(weight.dtype());
  HostTensor sample(weight.dtype(), {sampled, weight.dim(1)});
  for (int64_t i = 0; i < sampled; ++i) {
    std::memcpy(sample.bytes().data() + i * row_bytes,
                weight.bytes().data() + i * rows / sampled * row_bytes, row_bytes);
  }
  LLMC_ASSIGN_OR_RETURN(const at::Tensor dense, WidenRows(device, sample, 0, sampled));
  LLMC_ASSIGN_OR_RETURN(const double energy,
                        OutputErrorOf(device, dense, at::Tensor(), hessian));
  return energy * static_cast<double>(rows) / static_cast<double>(sampled);
}

}  // namespace llmc
