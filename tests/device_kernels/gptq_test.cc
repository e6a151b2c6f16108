#include <cmath>
#include <numeric>
#include <random>

#include "device_test.h"
#include "kernels/cholesky.h"
#include "kernels/gptq_solve.h"
#include "kernels/round_to_grid.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

struct GptqCase {
  int64_t rows = 70;
  int64_t columns = 96;
  bool ordered = false;
  NumberType type = NumberType::kInt;
  int num_bits = 4;
  bool symmetric = true;
  int64_t group_size = 32;
  int64_t rows_per_scale = 1;
  DType scale_dtype = DType::kBF16;
  int64_t first_row = 0;
  int64_t block_size = 128;
  bool keep_zeros = false;
  bool group_index = false;
};

void PrintTo(const GptqCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.columns << ", " << c.num_bits << " bits, groups of " << c.group_size
       << ", block " << c.block_size;
}

// Everything a problem points to, on the host.
struct Layer {
  std::vector<float> weight;
  std::vector<float> upper;
  std::vector<int32_t> order;
  std::vector<int32_t> group_index;
  std::vector<float> scale;
  std::vector<float> zero_point;
  HostTensor hessian;
};

QuantizationArgs Args(const GptqCase& c) {
  QuantizationArgs args;
  args.type = c.type;
  args.num_bits = c.num_bits;
  return args;
}

Layer MakeLayer(const GptqCase& c) {
  Layer layer;
  const int64_t n = c.columns;
  layer.hessian = ToFloatMatrix(ReferenceGram(CorrelatedTokens(2 * n + 1, n, 11)), n);
  if (c.ordered) layer.order = OrderByDiagonal(layer.hessian);
  layer.upper = ToVector<float>(FactorInverseHessian(layer.hessian, layer.order)->upper);
  layer.weight = ToVector<float>(RandomFloats(c.rows, n, 12));
  for (size_t i = 0; c.keep_zeros && i < layer.weight.size(); i += 3) layer.weight[i] = 0;
  const int64_t groups = n / c.group_size;
  const QuantizedRange range = RangeOf(Args(c));
  std::mt19937 random(3);
  const int64_t scale_rows = (c.first_row + c.rows - 1) / c.rows_per_scale + 1;
  for (int64_t i = 0; i < scale_rows * groups; ++i) {
    const double spread = 0.7 + 0.01 * static_cast<double>(random() % 40);
    layer.scale.push_back(
        RoundTo(c.scale_dtype, static_cast<float>(2 * spread / (range.max - range.min))));
    layer.zero_point.push_back(static_cast<float>(static_cast<int>(random() % 5) - 2));
  }
  for (int64_t i = 0; c.group_index && i < n; ++i) {
    layer.group_index.push_back(static_cast<int32_t>(random() % groups));
  }
  return layer;
}

class GptqTest : public DeviceTestWithParam<GptqCase> {
 protected:
  // With pointers into `layer`, which is solved in place.
  static GptqProblem HostProblem(const GptqCase& c, Layer& layer) {
    GptqProblem p;
    p.rows = c.rows;
    p.first_row = c.first_row;
    p.in_features = c.columns;
    p.weight = layer.weight.data();
    p.inverse_factor = layer.upper.data();
    p.order = layer.order.empty() ? nullptr : layer.order.data();
    p.grid = {.type = c.type, .num_bits = c.num_bits};
    p.grid.scale = layer.scale.data();
    p.grid.zero_point = c.symmetric ? nullptr : layer.zero_point.data();
    p.grid.num_groups = c.columns / c.group_size;
    p.grid.rows_per_scale = c.rows_per_scale;
    p.grid.group_index = c.group_index ? layer.group_index.data() : nullptr;
    p.grid.group_size = c.group_size;
    p.grid.scale_dtype = c.scale_dtype;
    return p;
  }

  // The same on the device.
  GptqProblem DeviceProblem(const GptqCase& c, Layer& layer) {
    GptqProblem p = HostProblem(c, layer);
    p.weight = Upload(layer.weight);
    p.inverse_factor = Upload(layer.upper);
    if (p.order) p.order = Upload(layer.order);
    p.grid.scale = Upload(layer.scale);
    if (p.grid.zero_point) p.grid.zero_point = Upload(layer.zero_point);
    if (p.grid.group_index) p.grid.group_index = Upload(layer.group_index);
    p.row_loss = Allocate<double>(c.rows);
    p.row_change = Allocate<double>(c.rows);
    return p;
  }
};

TEST_P(GptqTest, Solve_HasTheCpusBits) {
  const GptqCase& c = GetParam();
  Layer layer = MakeLayer(c);
  const GptqProblem device = DeviceProblem(c, layer);
  const GptqSolveOptions options{c.block_size, c.keep_zeros};
  const absl::Status status = GptqSolve(device, options, queue());
  ASSERT_TRUE(status.ok()) << status;

  GptqProblem host = HostProblem(c, layer);
  std::vector<double> loss(c.rows), change(c.rows);
  host.row_loss = loss.data();
  host.row_change = change.data();
  const absl::StatusOr<GptqResult> result = GptqSolve(host, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->change, 0);
  EXPECT_TRUE(SameBits(Download(device.weight, c.rows * c.columns), layer.weight));
  EXPECT_TRUE(SameBits(Download(device.row_loss, c.rows), loss));
  EXPECT_TRUE(SameBits(Download(device.row_change, c.rows), change));
}

INSTANTIATE_TEST_SUITE_P(
    Grids, GptqTest,
    testing::Values(
        GptqCase{}, GptqCase{.rows = 1, .columns = 1, .group_size = 1},
        GptqCase{.rows = 33, .columns = 160, .ordered = true, .symmetric = false},
        GptqCase{.rows = 31, .columns = 257, .group_size = 257, .scale_dtype = DType::kF32},
        GptqCase{.rows = 130, .columns = 320, .ordered = true, .num_bits = 8, .group_size = 320},
        GptqCase{.rows = 40,
                 .columns = 384,
                 .num_bits = 3,
                 .symmetric = false,
                 .scale_dtype = DType::kF16},
        GptqCase{.type = NumberType::kFloat, .num_bits = 8, .scale_dtype = DType::kF16},
        GptqCase{.type = NumberType::kFloat,
                 .num_bits = 4,
                 .group_size = 16,
                 .scale_dtype = DType::kF32},
        GptqCase{.type = NumberType::kFloat,
                 .num_bits = 8,
                 .symmetric = false,
                 .group_size = 96,
                 .rows_per_scale = 70},
        GptqCase{.rows = 50, .rows_per_scale = 16, .first_row = 32},
        GptqCase{.rows = 45, .first_row = 7},
        GptqCase{.columns = 200, .group_size = 8, .block_size = 48},
        GptqCase{.columns = 200, .group_size = 200, .block_size = 1},
        GptqCase{.columns = 150, .group_size = 10, .block_size = 7},
        GptqCase{.rows = 64, .columns = 288, .ordered = true, .keep_zeros = true},
        GptqCase{.rows = 64,
                 .columns = 132,
                 .ordered = true,
                 .group_size = 4,
                 .keep_zeros = true,
                 .group_index = true},
        GptqCase{.rows = 20, .columns = 256, .symmetric = false, .group_index = true}));

class GptqSlicesTest : public GptqTest {};

TEST_P(GptqSlicesTest, SlicesOfRows_HaveTheBitsOfTheWhole) {
  const GptqCase& c = GetParam();
  Layer layer = MakeLayer(c);
  GptqProblem whole = DeviceProblem(c, layer);
  const GptqProblem parts = DeviceProblem(c, layer);
  ASSERT_TRUE(GptqSolve(whole, {}, queue()).ok());
  for (int64_t first : {0, 1, 34}) {
    const int64_t next = first == 0 ? 1 : (first == 1 ? 34 : c.rows);
    GptqProblem part = parts;
    part.rows = next - first;
    part.first_row = c.first_row + first;
    part.weight += first * c.columns;
    part.row_loss += first;
    part.row_change += first;
    ASSERT_TRUE(GptqSolve(part, {.block_size = 32}, queue()).ok());
  }
  EXPECT_TRUE(SameBits(Download(parts.weight, c.rows * c.columns),
                       Download(whole.weight, c.rows * c.columns)));
  EXPECT_TRUE(SameBits(Download(parts.row_change, c.rows), Download(whole.row_change, c.rows)));
}

INSTANTIATE_TEST_SUITE_P(Grids, GptqSlicesTest,
                         testing::Values(GptqCase{.rows = 100, .columns = 224, .ordered = true}));

class OutputErrorsTest : public DeviceTestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(OutputErrorsTest, Squares_MatchDoublePrecision) {
  const auto [rows, n] = GetParam();
  const HostTensor dense = RandomFloats(rows, n, 1);
  const HostTensor quantized = RandomFloats(rows, n, 2);
  const Doubles gram = ReferenceGram(CorrelatedTokens(n + 5, n, 3));
  const HostTensor hessian = ToFloatMatrix(gram, n);
  for (const bool has_quantized : {true, false}) {
    OutputErrorCall call;
    call.dense = reinterpret_cast<float*>(Upload(dense));
    call.quantized = has_quantized ? reinterpret_cast<float*>(Upload(quantized)) : nullptr;
    call.rows = rows;
    call.in_features = n;
    call.hessian = reinterpret_cast<float*>(Upload(hessian));
    call.row_error = Allocate<double>(rows);
    ASSERT_TRUE(OutputErrors(call, queue()).ok());
    const std::vector<double> errors = Download(call.row_error, rows);
    for (int64_t r = 0; r < rows; ++r) {
      double expected = 0;
      double scale = 0;
      std::vector<double> e(n);
      for (int64_t c = 0; c < n; ++c) {
        e[c] = static_cast<double>(dense.as<float>()[r * n + c]) -
               (has_quantized ? quantized.as<float>()[r * n + c] : 0.0f);
      }
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          expected += e[i] * gram[i * n + j] * e[j];
          scale += std::abs(e[i] * gram[i * n + j] * e[j]);
        }
      }
      ASSERT_NEAR(errors[r], expected, 1e-6 * scale) << "row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, OutputErrorsTest,
                         testing::Values(std::pair<int64_t, int64_t>{1, 1},
                                         std::pair<int64_t, int64_t>{37, 130},
                                         std::pair<int64_t, int64_t>{5, 260}));

class GptqErrorsTest : public DeviceTest {};

TEST_F(GptqErrorsTest, MissingArraysAndSizes_AreInvalid) {
  GptqProblem p;
  EXPECT_EQ(GptqSolve(p, {}, queue()).code(), absl::StatusCode::kInvalidArgument);
  p.rows = p.in_features = 1;
  p.weight = Allocate<float>(1);
  p.inverse_factor = p.grid.scale = p.weight;
  p.row_loss = p.row_change = Allocate<double>(1);
  p.grid.group_size = 1;
  EXPECT_EQ(GptqSolve(p, {.block_size = 0}, queue()).code(), absl::StatusCode::kInvalidArgument);
  p.grid.num_bits = 9;
  EXPECT_EQ(GptqSolve(p, {}, queue()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OutputErrors({}, queue()).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmc::kernels
