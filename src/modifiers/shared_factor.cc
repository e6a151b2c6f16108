#include "modifiers/shared_factor.h"

#include <optional>
#include <utility>

#include "kernels/cholesky.h"
#include "model/torch_tensor.h"

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

bool TakeKept(const FactorRequest& request, SharedFactor& factor) {
  std::optional<HessianFactor>& kept = factor.statistics->kept_factor;
  if (!kept || kept->ordered != request.ordered ||
      kept->asked_dampening_frac != request.dampening_frac) {
    return false;
  }
  static_cast<HessianFactor&>(factor) = *std::exchange(kept, std::nullopt);
  return true;
}

// What a factorization says, wherever its matrix lies.
struct Factorization {
  at::Tensor upper;
  double dampening_frac = 0;
  double lambda = 0;
};

absl::StatusOr<Factorization> Factor(const FactorRequest& request, const at::Tensor& hessian,
                                     const SharedFactor& factor) {
  const ComputeDevice& device = request.device;
  kernels::InverseFactorOptions options;
  options.dampening_frac = request.dampening_frac;
  if (device.is_host()) {
    LLMC_ASSIGN_OR_RETURN(const TensorView view, ViewOf(hessian));
    LLMC_ASSIGN_OR_RETURN(kernels::InverseFactor made,
                          kernels::FactorInverseHessian(view, factor.order, options));
    return Factorization{ToTorch(std::move(made.upper)), made.dampening_frac, made.lambda};
  }
  const int64_t n = hessian.size(0);
  LLMC_ASSIGN_OR_RETURN(
      kernels::DeviceInverseFactor made,
      kernels::FactorInverseHessian(static_cast<const float*>(hessian.const_data_ptr()), n,
                                    factor.order, options, *device.queue()));
  device.SampleMemory();
  return Factorization{device.Adopt(std::move(made.upper), at::kFloat, {n, n}),
                       made.dampening_frac, made.lambda};
}

}  // namespace

absl::Status FactorOwned(const FactorRequest& request, SharedFactor& factor) {
  if (factor.statistics->hessian_sum.tokens == 0) {
    factor.failure = "its input saw no calibration token";
    return absl::OkStatus();
  }
  if (TakeKept(request, factor)) return absl::OkStatus();
  factor.ordered = request.ordered;
  factor.asked_dampening_frac = request.dampening_frac;
  LLMC_ASSIGN_OR_RETURN(const at::Tensor hessian, factor.statistics->Hessian());
  at::Tensor diagonal;
  LLMC_RETURN_IF_ERROR(CatchTorch("Hessian", [&] { diagonal = hessian.diagonal(); }));
  LLMC_ASSIGN_OR_RETURN(const HostTensor values, request.device.Download(diagonal));
  const std::span<const float> energies(values.as<float>(), values.num_elements());
  for (size_t i = 0; i < energies.size(); ++i) {
    if (energies[i] == 0) factor.dead.push_back(static_cast<int32_t>(i));
  }
  if (request.ordered) factor.order = kernels::OrderByDiagonal(energies);
  absl::StatusOr<Factorization> made = Factor(request, hessian, factor);
  if (made.ok()) {
    factor.upper = made->upper;
    factor.dampening_frac = made->dampening_frac;
    factor.lambda = made->lambda;
    return absl::OkStatus();
  }
  if (made.status().code() != absl::StatusCode::kFailedPrecondition) return made.status();
  factor.failure = std::string(made.status().message());
  return absl::OkStatus();
}

void KeepFactor(SharedFactor factor) {
  InputStatistics& statistics = *factor.statistics;
  statistics.kept_factor = static_cast<HessianFactor&&>(std::move(factor));
}

absl::Status ShareFactor(Collective& collective, const RankPlace& place, int owner,
                         SharedFactor& factor) {
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
  absl::Status local;
  if (!is_owner) {
    absl::StatusOr<at::Tensor> memory = place.device->New(at::kFloat, {n, n});
    local = memory.status();
    if (memory.ok()) factor.upper = *std::move(memory);
    factor.order.resize(summary.is_ordered != 0 ? n : 0);
    factor.dead.resize(summary.num_dead);
  }
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(local));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(std::span<double>(factor.energies)), owner));
  LLMC_RETURN_IF_ERROR(BroadcastTensor(collective, place, factor.upper, owner));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(BytesOf(std::span<int32_t>(factor.dead)), owner));
  return collective.Broadcast(BytesOf(std::span<int32_t>(factor.order)), owner);
}

}  // namespace llmc
