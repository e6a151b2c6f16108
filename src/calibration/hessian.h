// The second moment of one shared input of a layer, summed over the samples of
// all ranks: the Hessian of GPTQ and SparseGPT.
//
// Samples are grouped into chunks by the job, without looking at the world size
// (a chunk holds 4,096 tokens or more); rank r owns chunks r, r + n, ... Inside a
// chunk sums are FP32 in sample order; chunks are added in 64-bit fixed point, so
// the result has the same bits for any number of ranks, threads and restarts.
//
// Use, by all ranks of `collective`:
//
//   HessianAccumulator hessian(in_features, num_chunks);
//   for each of the ceil(num_chunks / n) rounds k:
//     c = k * n + rank; for each sample of chunk c, if c < num_chunks:
//       hessian.Add(rows, 1);
//     if (k == 0) hessian.ShareExponents(collective);
//     if (c < num_chunks) hessian.EndChunk();
//   sum = hessian.Reduce(collective, owner);
//   if (sum->needs_rescale) capture the layer again (Restart(), then as above);
//   else on the owner: hessian.Finish()
//
// The sums lie where the rank computes; on a device nothing but ShareExponents and Reduce
// waits for it.
#ifndef LLMC_CALIBRATION_HESSIAN_H_
#define LLMC_CALIBRATION_HESSIAN_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/tensor_collective.h"
#include "collective/collective.h"
#include "kernels/hessian.h"
#include "kernels/triangle.h"
#include "llmc/status.h"

namespace llmc {

// What Reduce found; the same on all ranks.
struct HessianSum {
  int64_t tokens = 0;     // Over all chunks.
  int64_t sequences = 0;  // Over all chunks.
  // Some chunk's values do not suit the exponents chosen from chunk 0: much
  // larger, or in columns that chunk 0 left at 0, much smaller. The sums are
  // void; capture once more after Restart(), which then fits.
  bool needs_rescale = false;
};

// Not thread-safe; Add uses ParallelFor itself.
class HessianAccumulator {
 public:
  // `in_features` > 0; `num_chunks` > 0 is the job's total over all ranks. Memory:
  // about 6 in_features^2 bytes from the first Add on, 2 of them freed by Reduce.
  // Of the device of `place`.
  HessianAccumulator(int64_t in_features, int64_t num_chunks, const RankPlace& place = {});

  int64_t in_features() const { return triangle_.n(); }
  const ComputeDevice& device() const { return *place_.device; }

  // Adds the rows of one sample (or of part of one) to the current chunk, and
  // `sequences` to the count. The rows lie on the device. kInvalidArgument as
  // kernels::AddGram.
  absl::Status Add(const kernels::TokenRows& rows, int64_t sequences);

  // Collective. Takes the exponents from the current chunk of rank 0, which is
  // chunk 0, unless they are set already. Before the first EndChunk.
  absl::Status ShareExponents(Collective& collective);

  // Sets the exponents instead of ShareExponents, equal on all ranks; e.g. another
  // expert's with the same input, where chunk 0 may hold no token of this one.
  void SetExponents(std::vector<int16_t> exponents);
  const std::vector<int16_t>& exponents() const { return exponents_; }

  // Turns the current chunk's FP32 sum into fixed point and begins the next.
  // kFailedPrecondition without exponents.
  absl::Status EndChunk();

  // Collective. Sums over ranks into `root`'s totals (Collective root -1: on every
  // rank) and frees the FP32 tiles; ranks other than root free their totals too.
  // kFailedPrecondition when the inputs were not all finite.
  absl::StatusOr<HessianSum> Reduce(Collective& collective, int root);

  // After Reduce: forgets the sums and takes exponents that fit every chunk seen.
  void Restart();

  // On root, after Reduce without needs_rescale: H = 2 / sequences * X^T X, F32
  // [in_features, in_features] symmetric (the scale of algorithm GPTQ's reference), on the
  // device. Frees the totals; call once. All zero when no token was seen.
  absl::StatusOr<at::Tensor> Finish();

 private:
  absl::Status ReduceCounts(Collective& collective);
  absl::Status ReduceTotals(Collective& collective, int root);
  bool WindowFits() const;
  // The half exponents of the current chunk's diagonal, I16 [in_features] on the device.
  absl::StatusOr<at::Tensor> ChunkExponents() const;
  absl::StatusOr<std::vector<int16_t>> ToHost(const at::Tensor& exponents) const;
  absl::StatusOr<const int16_t*> DeviceExponents();
  absl::Status AddChunk();
  absl::Status TakeLargest();

  kernels::Triangle triangle_;
  int scale_bits_;
  RankPlace place_;
  at::Tensor partial_;              // F32 [triangle]: the current chunk.
  at::Tensor totals_;               // I64 [triangle].
  std::vector<int16_t> exponents_;  // [in_features]
  at::Tensor device_exponents_;     // The same on the device, once they were needed there.
  at::Tensor chunk_largest_;        // I16 [in_features], device: over this rank's chunks.
  std::vector<int16_t> largest_;    // The same on the host from Reduce on, over all ranks.
  int64_t tokens_ = 0;
  int64_t sequences_ = 0;
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_HESSIAN_H_
