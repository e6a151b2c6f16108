// Round-to-nearest of one BF16 weight [4096, 4096]: bytes of weight per second.
// LLMC_BENCH_THREADS sets the threads (1 unless set).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>

#include "kernels/compress.h"
#include "kernels/round_to_grid.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kRows = 4096;
constexpr int64_t kColumns = 4096;

HostTensor RandomWeight(DType dtype) {
  HostTensor weight(dtype, {kRows, kColumns});
  std::minstd_rand random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    const float x = normal(random);
    if (dtype == DType::kF32) {
      weight.as<float>()[i] = x;
    } else {
      weight.as<uint16_t>()[i] = dtype == DType::kBF16 ? Bf16Bits(x) : F16Bits(x);
    }
  }
  return weight;
}

QuantizationArgs Int(int bits, Strategy strategy, bool symmetric = true) {
  QuantizationArgs args;
  args.num_bits = bits;
  args.strategy = strategy;
  args.symmetric = symmetric;
  if (strategy == Strategy::kGroup) args.group_size = 128;
  return args;
}

QuantizationArgs Float(int bits, Strategy strategy) {
  QuantizationArgs args = Int(bits, strategy);
  args.type = NumberType::kFloat;
  if (strategy == Strategy::kBlock) args.block_structure = {128, 128};
  if (strategy == Strategy::kGroup) args.group_size = 32;
  if (strategy == Strategy::kGroup) args.scale_dtype = DType::kU8;
  if (strategy == Strategy::kTensorGroup) args.group_size = 16;
  return args;
}

void SetThreads() {
  const char* threads = std::getenv("LLMC_BENCH_THREADS");
  SetNumThreads(threads == nullptr ? 1 : std::atoi(threads));
}

void RoundToNearest(benchmark::State& state, const QuantizationArgs& args, Format format,
                    DType dtype) {
  SetThreads();
  const HostTensor weight = RandomWeight(dtype);
  for (auto _ : state) {
    auto stored = CompressRoundToNearest(weight.view(), args, format);
    if (!stored.ok()) state.SkipWithError(stored.status().ToString().c_str());
    benchmark::DoNotOptimize(stored);
  }
  state.SetBytesProcessed(state.iterations() * weight.num_bytes());
}

void Decompress(benchmark::State& state, const QuantizationArgs& args, Format format) {
  SetThreads();
  const HostTensor weight = RandomWeight(DType::kBF16);
  const auto stored = CompressRoundToNearest(weight.view(), args, format).value();
  std::vector<TensorView> views;
  for (const StoredTensor& tensor : stored) views.push_back(tensor.tensor.view());
  const auto lookup = [&](absl::string_view suffix) -> const TensorView* {
    for (size_t i = 0; i < stored.size(); ++i) {
      if (stored[i].suffix == suffix) return &views[i];
    }
    return nullptr;
  };
  for (auto _ : state) {
    auto dense = DecompressWeight(lookup, args, format, {kRows, kColumns}, {DType::kBF16});
    if (!dense.ok()) state.SkipWithError(dense.status().ToString().c_str());
    benchmark::DoNotOptimize(dense);
  }
  state.SetBytesProcessed(state.iterations() * weight.num_bytes());
}

void Register(const char* name, const QuantizationArgs& args, Format format,
              DType dtype = DType::kBF16) {
  benchmark::RegisterBenchmark(
      name, [=](benchmark::State& state) { RoundToNearest(state, args, format, dtype); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

void RegisterAll() {
  Register("FP8_DYNAMIC", Float(8, Strategy::kChannel), Format::kFloatQuantized);
  Register("FP8_DYNAMIC/F16", Float(8, Strategy::kChannel), Format::kFloatQuantized, DType::kF16);
  Register("FP8_DYNAMIC/F32", Float(8, Strategy::kChannel), Format::kFloatQuantized, DType::kF32);
  Register("FP8", Float(8, Strategy::kTensor), Format::kFloatQuantized);
  Register("FP8_BLOCK", Float(8, Strategy::kBlock), Format::kFloatQuantized);
  Register("W8A8", Int(8, Strategy::kChannel), Format::kIntQuantized);
  const char* packed[] = {"W2A16", "W3A16", "W4A16", "W5A16", "W6A16", "W7A16", "W8A16"};
  for (int bits = 2; bits <= 8; ++bits) {
    Register(packed[bits - 2], Int(bits, Strategy::kGroup), Format::kPackQuantized);
  }
  Register("W4A16/F16", Int(4, Strategy::kGroup), Format::kPackQuantized, DType::kF16);
  Register("W4A16_ASYM", Int(4, Strategy::kGroup, false), Format::kPackQuantized);
  Register("NVFP4A16", Float(4, Strategy::kTensorGroup), Format::kNvfp4PackQuantized);
  Register("MXFP4A16", Float(4, Strategy::kGroup), Format::kMxfp4PackQuantized);
  Register("MXFP8A16", Float(8, Strategy::kGroup), Format::kMxfp8Quantized);
  QuantizationArgs mse = Int(4, Strategy::kGroup);
  mse.observer = "mse";
  Register("W4A16/mse", mse, Format::kPackQuantized);
  benchmark::RegisterBenchmark("Decompress/W4A16",
                               [](benchmark::State& state) {
                                 Decompress(state, Int(4, Strategy::kGroup),
                                            Format::kPackQuantized);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("Decompress/FP8_DYNAMIC",
                               [](benchmark::State& state) {
                                 Decompress(state, Float(8, Strategy::kChannel),
                                            Format::kFloatQuantized);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

[[maybe_unused]] const bool registered = (RegisterAll(), true);

}  // namespace
}  // namespace llmc::kernels
