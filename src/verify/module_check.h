// The stored values of one quantised module: are they possible, and do they
// stand for the dense weight?
#ifndef LLMC_VERIFY_MODULE_CHECK_H_
#define LLMC_VERIFY_MODULE_CHECK_H_

#include <string>

#include "llmc/tensor.h"
#include "verify/findings.h"
#include "verify/module_table.h"

namespace llmc {

// Reads the module in row ranges of a few MiB: scales finite and positive, zero
// points and integers in range, no NaN codes, padding bits zero, weight_shape
// right, not one code everywhere; with a source, the dequantised weight near the
// dense one. Does nothing for a module whose tensors are not all there in the
// promised dtypes and shapes (that is a finding already).
void CheckModule(const Subject& subject, const QuantizedModule& module, Findings& findings);

// "" when every scale is a finite number above 0, or an E8M0 byte that is not NaN;
// else the first that is not.
std::string ScaleProblem(const TensorView& scale);

// True when every value of a floating-point tensor is finite; other dtypes have
// none that is not. F8E4M3 is not checked here: its NaN codes are module values.
bool IsFinite(const TensorView& tensor);

}  // namespace llmc

#endif  // LLMC_VERIFY_MODULE_CHECK_H_
