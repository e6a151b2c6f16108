// Which linears deserve a look first, and how they group.
#ifndef LLMC_SRC_REPORT_BADNESS_H_
#define LLMC_SRC_REPORT_BADNESS_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "report/run_report.h"

namespace llmc {

// The `limit` worst rows: errors that are not finite, then falling error, then
// those not measured (fallbacks before others); equal ones in the given order.
// The pointers are into `linears`.
std::vector<const LinearRow*> WorstFirst(const std::vector<LinearRow>& linears, size_t limit);

// What a linear is within its layer: "model.layers.3.mlp.experts.17.up_proj" is
// "mlp.experts.*.up_proj". The whole name when it lies in no layer.
std::string KindOf(const LinearRow& row);

// Median of the finite errors of each kind; kinds without one are absent.
std::map<std::string, double> MedianByKind(const std::vector<LinearRow>& linears);

// Median of `values`, 0 when empty. Even counts: the upper one of the middle two.
double Median(std::vector<double> values);

// The finite errors of all rows, in order.
std::vector<double> FiniteErrors(const std::vector<LinearRow>& linears);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_BADNESS_H_
