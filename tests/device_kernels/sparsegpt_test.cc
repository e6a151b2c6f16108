#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "device_test.h"
#include "kernels/cholesky.h"
#include "kernels/sparsegpt_solve.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

struct PruneCase {
  int64_t rows = 70;
  int64_t columns = 96;
  double sparsity = 0.5;
  MaskStructure structure = {};
  int64_t block_size = 128;
  bool preserve = false;
  double zeros = 0;     // Fraction of weights that come in as 0.
  bool coarse = false;  // Few different weights: many equal scores.
};

void PrintTo(const PruneCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.columns << ", " << c.sparsity << ", " << c.structure.prune_count
       << ":" << c.structure.group_size << ", block " << c.block_size;
}

struct Layer {
  std::vector<float> weight;
  std::vector<float> upper;
};

Layer MakeLayer(const PruneCase& c) {
  const HostTensor hessian =
      ToFloatMatrix(ReferenceGram(CorrelatedTokens(2 * c.columns + 1, c.columns, 5)), c.columns);
  Layer layer;
  layer.upper = ToVector<float>(FactorInverseHessian(hessian, {})->upper);
  layer.weight = ToVector<float>(RandomFloats(c.rows, c.columns, 6));
  std::mt19937 random(8);
  for (float& weight : layer.weight) {
    if (c.coarse) weight = std::round(weight * 4) / 4;
    if (static_cast<double>(random() % 1000) < c.zeros * 1000) weight = 0;
  }
  return layer;
}

SparseGptOptions OptionsOf(const PruneCase& c) {
  SparseGptOptions options;
  options.sparsity = c.sparsity;
  options.structure = c.structure;
  options.block_size = c.block_size;
  options.preserve_sparsity_mask = c.preserve;
  return options;
}

class SparseGptTest : public DeviceTestWithParam<PruneCase> {};

TEST_P(SparseGptTest, Solve_HasTheCpusBits) {
  const PruneCase& c = GetParam();
  Layer layer = MakeLayer(c);
  SparseGptProblem device{c.rows, c.rows, c.columns, Upload(layer.weight), Upload(layer.upper)};
  double* const loss = Allocate<double>(c.rows);
  double* const change = Allocate<double>(c.rows);
  const absl::Status status = SparseGptSolve(device, OptionsOf(c), loss, change, queue());
  ASSERT_TRUE(status.ok()) << status;

  const absl::StatusOr<SparseGptResult> result = SparseGptSolve(
      {c.rows, c.rows, c.columns, layer.weight.data(), layer.upper.data()}, OptionsOf(c));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(SameBits(Download(device.weight, c.rows * c.columns), layer.weight));
  SparseGptResult sums;
  const std::vector<double> losses = Download(loss, c.rows);
  const std::vector<double> changes = Download(change, c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    sums.loss += losses[r];
    sums.change += changes[r];
  }
  EXPECT_EQ(sums.loss, result->loss);
  EXPECT_EQ(sums.change, result->change);
}

INSTANTIATE_TEST_SUITE_P(
    Masks, SparseGptTest,
    testing::Values(
        PruneCase{}, PruneCase{.rows = 1, .columns = 1},
        PruneCase{.rows = 40, .columns = 300, .sparsity = 0.7},
        PruneCase{.rows = 33, .columns = 257, .block_size = 1000},
        PruneCase{.rows = 50, .columns = 200, .sparsity = 0.3, .block_size = 48},
        PruneCase{.sparsity = 0}, PruneCase{.rows = 100, .coarse = true},
        PruneCase{.preserve = true, .zeros = 0.2}, PruneCase{.preserve = true, .zeros = 0.8},
        PruneCase{.sparsity = 0, .preserve = true, .zeros = 0.3},
        PruneCase{.columns = 320, .structure = {2, 4}},
        PruneCase{.rows = 37, .columns = 160, .structure = {4, 8}, .coarse = true},
        PruneCase{.structure = {1, 3}, .block_size = 48},
        PruneCase{.columns = 240, .structure = {5, 12}, .block_size = 24},
        PruneCase{.columns = 256, .structure = {20, 64}, .block_size = 64},
        PruneCase{.structure = {2, 4}, .preserve = true, .zeros = 0.4},
        PruneCase{
            .rows = 12, .columns = 192, .structure = {16, 32}, .preserve = true, .zeros = 0.7}));

// Adds up the arrays of several threads.
class Sum {
 public:
  explicit Sum(int count) : count_(count) {}
  absl::Status Add(std::span<int64_t> counts) {
    std::unique_lock lock(mutex_);
    if (arrived_ == 0) sums_.assign(counts.size(), 0);
    EXPECT_EQ(counts.size(), sums_.size());
    for (size_t i = 0; i < counts.size(); ++i) sums_[i] += counts[i];
    const int round = round_;
    if (++arrived_ == count_) {
      arrived_ = 0;
      total_ = sums_;
      ++round_;
      all_.notify_all();
    }
    all_.wait(lock, [&] { return round_ != round; });
    std::copy(total_.begin(), total_.end(), counts.begin());
    return absl::OkStatus();
  }

 private:
  const int count_;
  std::mutex mutex_;
  std::condition_variable all_;
  int arrived_ = 0;
  int round_ = 0;
  std::vector<int64_t> sums_;
  std::vector<int64_t> total_;
};

class SparseGptSlicesTest : public SparseGptTest {};

TEST_P(SparseGptSlicesTest, SlicesOfRows_HaveTheBitsOfTheWhole) {
  const PruneCase& c = GetParam();
  Layer layer = MakeLayer(c);
  const std::vector<int64_t> ends = {1, 1, 45, c.rows};  // One slice is empty.
  Sum sum(static_cast<int>(ends.size()));
  std::vector<float> solved(c.rows * c.columns);
  std::vector<std::thread> threads;
  for (size_t s = 0; s < ends.size(); ++s) {
    threads.emplace_back([&, s] {
      const int64_t first = s == 0 ? 0 : ends[s - 1];
      const int64_t rows = ends[s] - first;
      absl::StatusOr<std::unique_ptr<DeviceQueue>> own = DeviceQueue::Create(0);
      ASSERT_TRUE(own.ok());
      const auto upload = [&](const float* from, int64_t count) {
        absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(**own, count * 4);
        EXPECT_TRUE(buffer.ok());
        EXPECT_TRUE((*own)->CopyToDevice(from, count * 4, buffer->as<float>()).ok());
        return *std::move(buffer);
      };
      DeviceBuffer weight = upload(layer.weight.data() + first * c.columns, rows * c.columns);
      DeviceBuffer upper = upload(layer.upper.data(), std::ssize(layer.upper));
      absl::StatusOr<DeviceBuffer> sums = DeviceBuffer::Allocate(**own, 2 * rows * 8);
      ASSERT_TRUE(sums.ok());
      SparseGptOptions options = OptionsOf(c);
      options.sum_over_slices = [&](std::span<int64_t> counts) { return sum.Add(counts); };
      const absl::Status status =
          SparseGptSolve({rows, c.rows, c.columns, weight.as<float>(), upper.as<float>()}, options,
                         sums->as<double>(), sums->as<double>() + rows, **own);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE((*own)
                      ->CopyToHost(weight.as<float>(), weight.num_bytes(),
                                   solved.data() + first * c.columns)
                      .ok());
      EXPECT_TRUE((*own)->Synchronize().ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(SparseGptSolve({c.rows, c.rows, c.columns, layer.weight.data(), layer.upper.data()},
                             OptionsOf(c))
                  .ok());
  EXPECT_TRUE(SameBits(solved, layer.weight));
}

INSTANTIATE_TEST_SUITE_P(Masks, SparseGptSlicesTest,
                         testing::Values(PruneCase{.rows = 90, .columns = 200},
                                         PruneCase{.rows = 60, .preserve = true, .zeros = 0.3}));

class SparseGptErrorsTest : public DeviceTest {};

TEST_F(SparseGptErrorsTest, WhatTheCpuRefuses_IsRefused) {
  float* const numbers = Allocate<float>(36);
  double* const sums = Allocate<double>(6);
  const SparseGptProblem p{6, 6, 6, numbers, numbers};
  for (const SparseGptOptions& options :
       {SparseGptOptions{.sparsity = 1}, SparseGptOptions{.block_size = 0},
        SparseGptOptions{.structure = {2, 4}, .block_size = 4}}) {
    EXPECT_EQ(SparseGptSolve(p, options, sums, sums, queue()).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(SparseGptSolve({}, {}, sums, sums, queue()).code(), absl::StatusCode::kInvalidArgument);
  const SparseGptProblem whole{6, 6, 6, numbers, numbers};
  const absl::Status stop = absl::AbortedError("a slice is gone");
  const SparseGptOptions options{.sum_over_slices = [&](std::span<int64_t>) { return stop; }};
  ASSERT_TRUE(queue().Zero(numbers, 36 * 4).ok());
  EXPECT_EQ(SparseGptSolve(whole, options, sums, sums, queue()), stop);
}

}  // namespace
}  // namespace llmc::kernels
