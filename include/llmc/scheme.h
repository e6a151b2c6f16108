// The numeric format of one module, in the vocabulary of compressed-tensors.
#ifndef LLMC_SCHEME_H_
#define LLMC_SCHEME_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "llmc/dtype.h"

namespace llmc {

enum class NumberType : uint8_t { kInt, kFloat };

// Which elements share one scale.
enum class Strategy : uint8_t {
  kTensor,
  kChannel,
  kGroup,
  kBlock,
  kToken,
  kTensorGroup,
  kAttnHead
};

// When activation scales are computed: from calibration, at run time, or
// (NVFP4, "local") the group scales at run time under a calibrated global one.
enum class Dynamic : uint8_t { kFalse, kTrue, kLocal };

// Column order of GPTQ. kWeight and kStatic name the same order (by falling
// Hessian diagonal, groups keep their columns); both spellings are kept because
// the written config repeats the user's.
enum class ActOrder : uint8_t { kWeight, kStatic };

// How weights, inputs or outputs become numbers of `num_bits` bits.
struct QuantizationArgs {
  int num_bits = 8;
  NumberType type = NumberType::kInt;
  bool symmetric = true;
  Strategy strategy = Strategy::kTensor;
  std::optional<int64_t> group_size;                      // kGroup, kTensorGroup: > 0.
  std::optional<std::array<int64_t, 2>> block_structure;  // kBlock: rows, columns.
  Dynamic dynamic = Dynamic::kFalse;
  std::optional<ActOrder> actorder;  // Weights only.
  std::optional<DType> scale_dtype;  // U8 (MX exponents) or F8E4M3 (NVFP4).
  std::optional<DType> zp_dtype;     // Null when symmetric.
  std::optional<std::string> observer;
  std::map<std::string, double> observer_kwargs;

  bool operator==(const QuantizationArgs&) const = default;
};

// Smallest and largest quantised value: int b: -2^(b-1), 2^(b-1)-1; fp8: +-448;
// fp4: +-6.
struct QuantizedRange {
  double min = 0;
  double max = 0;
};
QuantizedRange RangeOf(const QuantizationArgs& args);

// On-disk layout of a quantised module (compressed-tensors `format`).
enum class Format : uint8_t {
  kDense,
  kIntQuantized,
  kFloatQuantized,
  kNaiveQuantized,
  kPackQuantized,
  kNvfp4PackQuantized,
  kMxfp4PackQuantized,
  kMxfp8Quantized,
};

// One numeric format of weights, inputs or outputs of the modules it is given
// to.
struct Scheme {
  std::optional<QuantizationArgs> weights;
  std::optional<QuantizationArgs> input_activations;
  std::optional<QuantizationArgs> output_activations;
  Format format = Format::kDense;

  bool operator==(const Scheme&) const = default;
};

// How the zeros of a pruned weight are spread over a row.
struct MaskStructure {
  int64_t prune_count = 0;  // n: pruned of every group_size columns; 0: unstructured.
  int64_t group_size = 0;   // m.

  bool is_grouped() const { return prune_count > 0; }
  bool operator==(const MaskStructure&) const = default;
};

// How zeros of a pruned weight are stored: like any number, or left out, in layouts
// that compressed-tensors before 0.15 reads.
enum class SparseFormat : uint8_t { kDense, kSparse24Bitmask, kSparseBitmask };

// Whether the quotient weight / scale is rounded to the model's dtype before it
// is rounded to a code (the reference on CPU) or kept in float32 (the reference
// on recent GPUs). Both are valid checkpoints; llmc's default is kModelDtype.
enum class QuotientRounding : uint8_t { kModelDtype, kFloat32 };

}  // namespace llmc

#endif  // LLMC_SCHEME_H_
