// Between a weight's dtype and float32.
#ifndef LLMC_MODIFIERS_WIDEN_H_
#define LLMC_MODIFIERS_WIDEN_H_

#include <cstdint>
#include <span>

#include "ATen/core/Tensor.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "model/compute_device.h"

namespace llmc {

// Elements [first, first + count) of `tensor` (F32, BF16, F16, I8 or F8_E4M3) as F32
// [count]. Exact. Parallel over fixed units.
HostTensor Widen(const HostTensor& tensor, int64_t first, int64_t count);

// Rounds `from`, F32, to the dtype of `tensor` (F32, BF16 or F16) and stores it at
// its elements from `first` on. Parallel over fixed units.
void Narrow(const HostTensor& from, int64_t first, HostTensor& tensor);

// Rows [first_row, first_row + num_rows) of `weight`, [rows, columns], as F32 [num_rows,
// columns] where `device` computes.
absl::StatusOr<at::Tensor> WidenRows(const ComputeDevice& device, const HostTensor& weight,
                                     int64_t first_row, int64_t num_rows);

// Rounds `rows`, F32 on `device`, to the dtype of `weight` and stores them at its rows from
// `first_row` on. Waits.
absl::Status NarrowRows(const ComputeDevice& device, const at::Tensor& rows, int64_t first_row,
                        HostTensor& weight);

// Multiplies every column of `tensor`, [rows, columns] in F32, BF16 or F16, by its
// factor, [columns]; every product is rounded once. Parallel over rows.
void ScaleColumns(std::span<const float> factors, HostTensor& tensor);

// The same with a division.
void DivideColumns(std::span<const float> factors, HostTensor& tensor);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_WIDEN_H_
