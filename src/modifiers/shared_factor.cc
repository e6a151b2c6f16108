#include "modifiers/shared_factor.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels/cholesky.h"
#include "kernels/gptq_solve.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

// What travels before the matrices.
struct Summary {
  double dampening_frac = 0;
  double lambda = 0;
  int64_t has_upper = 0;
  int64_t is_ordered = 0;
  int64_t num_dead = 0;
};

template <typename T>
std::span<std::byte> BytesOf(std::span<T> values) {
  return std::as_writable_bytes(values);
}

bool TakeKept(bool ordered, double dampening_frac, SharedFactor& factor) {
  std::optional<HessianFactor>& kept = factor.statistics->kept_factor;
  if (!kept || kept->ordered != ordered || kept->asked_dampening_frac != dampening_frac) {
    return false;
  }
  static_cast<HessianFactor&>(factor) = *std::exchange(kept, std::nullopt);
  return true;
}

}  // namespace

absl::Status FactorOwned(bool ordered, double dampening_frac, SharedFactor& factor) {
  if (factor.statistics->hessian_sum.tokens == 0) {
    factor.failure = "its input saw no calibration token";
    return absl::OkStatus();
  }
  if (TakeKept(ordered, dampening_frac, factor)) return absl::OkStatus();
  factor.ordered = ordered;
  factor.asked_dampening_frac = dampening_frac;
  const HostTensor& hessian = factor.statistics->Hessian();
  const int64_t n = hessian.dim(0);
  for (int64_t i = 0; i < n; ++i) {
    if (hessian.as<float>()[i * n + i] == 0) factor.dead.push_back(static_cast<int32_t>(i));
  }
  if (ordered) factor.order = kernels::OrderByDiagonal(hessian);
  kernels::InverseFactorOptions options;
  options.dampening_frac = dampening_frac;
  absl::StatusOr<kernels::InverseFactor> inverse =
      kernels::FactorInverseHessian(hessian, factor.order, options);
  if (inverse.ok()) {
    factor.upper = std::move(inverse->upper);
    factor.dampening_frac = inverse->dampening_frac;
    factor.lambda = inverse->lambda;
    return absl::OkStatus();
  }
  if (inverse.status().code() != absl::StatusCode::kFailedPrecondition) return inverse.status();
  factor.failure = std::string(inverse.status().message());
  return absl::OkStatus();
}

void KeepFactor(SharedFactor factor) {
  InputStatistics& statistics = *factor.statistics;
  statistics.kept_factor = static_cast<HessianFactor&&>(std::move(factor));
}

double OutputEnergy(const HostTensor& weight, const HostTensor& hessian) {
  constexpr int64_t kSampledRows = 512;
  const int64_t rows = weight.dim(0);
  const int64_t columns = weight.dim(1);
  const int64_t sampled = std::min(rows, kSampledRows);
  HostTensor dense(DType::kF32, {sampled, columns});
  for (int64_t i = 0; i < sampled; ++i) {
    const HostTensor row = Widen(weight, i * rows / sampled * columns, columns);
    std::memcpy(dense.as<float>() + i * columns, row.as<float>(), row.num_bytes());
  }
  HostTensor zero(DType::kF32, {sampled, columns});
  std::memset(zero.as<float>(), 0, zero.num_bytes());
  const double energy = kernels::OutputError(dense.as<float>(), zero.as<float>(), sampled, columns,
                                             hessian.as<float>());
  return energy * static_cast<double>(rows) / static_cast<double>(sampled);
}

absl::Status ShareFactor(Collective& collective, int owner, SharedFactor& factor) {
  if (collective.world_size() == 1) return absl::OkStatus();
  const bool is_owner = collective.rank() == owner;
  const int64_t n = factor.statistics->hessian->in_features();
  Summary summary{factor.dampening_frac, factor.lambda, factor.failure.empty(),
                  !factor.order.empty(), static_cast<int64_t>(factor.dead.size())};
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(std::span<Summary>(&summary, 1)), owner));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> failures,
                        collective.AllGatherStrings(is_owner ? factor.failure : ""));
  factor.dampening_frac = summary.dampening_frac;
  factor.lambda = summary.lambda;
  factor.failure = failures[owner];
  if (summary.has_upper == 0) return absl::OkStatus();
  if (!is_owner) {
    factor.upper = HostTensor(DType::kF32, {n, n});
    factor.order.resize(summary.is_ordered != 0 ? n : 0);
    factor.dead.resize(summary.num_dead);
  }
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(std::span<double>(factor.energies)), owner));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(factor.upper.bytes(), owner));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(std::span<int32_t>(factor.dead)), owner));
  return collective.Broadcast(BytesOf(std::span<int32_t>(factor.order)), owner);
}

}  // namespace llmc
