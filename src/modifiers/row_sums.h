// What a solver on a device says of every row.
#ifndef LLMC_MODIFIERS_ROW_SUMS_H_
#define LLMC_MODIFIERS_ROW_SUMS_H_

#include "ATen/core/Tensor.h"
#include "llmc/status.h"
#include "model/compute_device.h"

namespace llmc {

class RowSums {
 public:
  struct Totals {
    double loss = 0;
    double change = 0;
  };

  static absl::StatusOr<RowSums> New(const ComputeDevice& device, int64_t rows) {
    RowSums sums;
    LLMC_ASSIGN_OR_RETURN(sums.loss_, device.New(at::kDouble, {rows}));
    LLMC_ASSIGN_OR_RETURN(sums.change_, device.New(at::kDouble, {rows}));
    return sums;
  }

  // F64 [rows] on the device, for the solver to fill.
  double* loss() const { return static_cast<double*>(loss_.data_ptr()); }
  double* change() const { return static_cast<double*>(change_.data_ptr()); }

  // The sums over rows, in row order. Waits.
  absl::StatusOr<Totals> Add(const ComputeDevice& device) const {
    LLMC_ASSIGN_OR_RETURN(const HostTensor loss, device.Download(loss_));
    LLMC_ASSIGN_OR_RETURN(const HostTensor change, device.Download(change_));
    Totals totals;
    for (int64_t i = 0; i < loss.num_elements(); ++i) {
      totals.loss += loss.as<double>()[i];
      totals.change += change.as<double>()[i];
    }
    return totals;
  }

 private:
  at::Tensor loss_;
  at::Tensor change_;
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_ROW_SUMS_H_
