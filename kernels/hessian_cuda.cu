// Tiles of the triangle by cuBLAS, in place. Row-major C = A^T B is column-major
// C^T = B^T A, so a tile's columns are cuBLAS's rows.
#include "absl/strings/str_cat.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/hessian.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kTile = Triangle::kTile;

struct GramType {
  cudaDataType type;
  cublasComputeType_t compute;
  int64_t element_size;
};

absl::StatusOr<GramType> TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return GramType{CUDA_R_16BF, CUBLAS_COMPUTE_32F, 2};
    case DType::kF16:
      return GramType{CUDA_R_16F, CUBLAS_COMPUTE_32F, 2};
    case DType::kF32:
      // Pedantic: never TF32, whatever the process has set.
      return GramType{CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC, 4};
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("AddGram: dtype ", SafetensorsName(dtype), ", expected F32, BF16 or F16"));
  }
}

absl::Status Check(const TokenRows& x) {
  constexpr int64_t kMostInt = 0x7fffffff;
  if (x.tokens >= 0 && x.tokens <= kMostInt && x.features > 0 && x.stride >= x.features &&
      x.stride <= kMostInt) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("AddGram: ", x.tokens, " tokens of ", x.features,
                                                 " features with stride ", x.stride));
}

// Adds X_i^T X_j for `count` neighbouring tiles of a tile row, all `cols` wide.
struct TileRun {
  TriangleTile first;
  int64_t count;
};

absl::Status AddTiles(const TokenRows& x, const GramType& type, const TileRun& run, float* gram,
                      cublasHandle_t blas) {
  const auto* const rows = static_cast<const std::byte*>(x.data);
  const TriangleTile& tile = run.first;
  const float one = 1;
  const int stride = static_cast<int>(x.stride);
  return BlasStatus(
      cublasGemmStridedBatchedEx(
          blas, CUBLAS_OP_N, CUBLAS_OP_T, static_cast<int>(tile.cols), static_cast<int>(tile.rows),
          static_cast<int>(x.tokens), &one, rows + tile.col * type.element_size, type.type, stride,
          kTile, rows + tile.row * type.element_size, type.type, stride, 0, &one,
          gram + tile.offset, CUDA_R_32F, static_cast<int>(tile.cols), tile.rows * tile.cols,
          static_cast<int>(run.count), type.compute, CUBLAS_GEMM_DEFAULT),
      "cublasGemmStridedBatchedEx");
}

}  // namespace

absl::Status AddGram(const TokenRows& x, float* gram, DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(Check(x));
  LLMC_ASSIGN_OR_RETURN(const GramType type, TypeOf(x.dtype));
  if (x.tokens == 0) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(ForkLanes(queue));
  const Triangle triangle(x.features);
  const int64_t whole_tiles = x.features / kTile;  // In the first tile row.
  int lane = 0;
  for (int64_t t = 0; t < triangle.num_tiles();) {
    const TriangleTile first = triangle.tile(t);
    const int64_t whole = whole_tiles - first.col / kTile;
    LLMC_ASSIGN_OR_RETURN(const cublasHandle_t blas, BlasOf(queue, lane));
    const int64_t count = whole > 0 ? whole : 1;
    LLMC_RETURN_IF_ERROR(AddTiles(x, type, {first, count}, gram, blas));
    t += count;
    // The narrow tile at the end of a row of whole ones.
    if (whole > 0 && x.features % kTile != 0) {
      LLMC_RETURN_IF_ERROR(AddTiles(x, type, {triangle.tile(t), 1}, gram, blas));
      ++t;
    }
    lane = (lane + 1) % DeviceQueue::Impl::kNumLanes;
  }
  return JoinLanes(queue);
}

}  // namespace llmc::kernels
