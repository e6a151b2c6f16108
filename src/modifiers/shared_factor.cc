#include "modifiers/shared_factor.h"

#include <cstring>
#include <utility>

#include "kernels/cholesky.h"

namespace llmc {
namespace {

// What travels before the matrices.
struct Summary {
  double dampening_frac = 0;
  int64_t has_upper = 0;
  int64_t is_ordered = 0;
};

std::span<std::byte> BytesOf(Summary& summary) {
  return std::as_writable_bytes(std::span<Summary>(&summary, 1));
}

}  // namespace

absl::Status FactorOwned(bool ordered, double dampening_frac, SharedFactor& factor) {
  if (factor.statistics->hessian_sum.tokens == 0) {
    factor.failure = "its input saw no calibration token";
    return absl::OkStatus();
  }
  if (ordered) factor.order = kernels::OrderByDiagonal(factor.hessian);
  kernels::InverseFactorOptions options;
  options.dampening_frac = dampening_frac;
  absl::StatusOr<kernels::InverseFactor> inverse =
      kernels::FactorInverseHessian(factor.hessian, factor.order, options);
  if (inverse.ok()) {
    factor.upper = std::move(inverse->upper);
    factor.dampening_frac = inverse->dampening_frac;
    return absl::OkStatus();
  }
  if (inverse.status().code() != absl::StatusCode::kFailedPrecondition) return inverse.status();
  factor.failure = std::string(inverse.status().message());
  return absl::OkStatus();
}

absl::Status ShareFactor(Collective& collective, int owner, SharedFactor& factor) {
  if (collective.world_size() == 1) return absl::OkStatus();
  const bool is_owner = collective.rank() == owner;
  const int64_t n = factor.statistics->hessian->in_features();
  Summary summary{factor.dampening_frac, factor.failure.empty(), !factor.order.empty()};
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(summary), owner));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> failures,
                        collective.AllGatherStrings(is_owner ? factor.failure : ""));
  factor.dampening_frac = summary.dampening_frac;
  factor.failure = failures[owner];
  if (summary.has_upper == 0) return absl::OkStatus();
  if (!is_owner) {
    factor.hessian = HostTensor(DType::kF32, {n, n});
    factor.upper = HostTensor(DType::kF32, {n, n});
    factor.order.resize(summary.is_ordered != 0 ? n : 0);
  }
  LLMC_RETURN_IF_ERROR(collective.Broadcast(factor.hessian.bytes(), owner));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(factor.upper.bytes(), owner));
  return collective.Broadcast(std::as_writable_bytes(std::span<int32_t>(factor.order)), owner);
}

}  // namespace llmc
