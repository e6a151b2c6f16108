#include "verify/module_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bit_packing.h"
#include "kernels/compress.h"
#include "kernels/grid_layout.h"
#include "llmc/float_formats.h"
#include "verify/weight_distance.h"

namespace llmc {
namespace {

// Dense float32 bytes of one row range.
constexpr int64_t kRangeBytes = 8 << 20;

// Fewer equal codes than this may be chance.
constexpr int64_t kMinCodes = 32;

float FloatAt(const TensorView& tensor, int64_t i) {
  switch (tensor.dtype) {
    case DType::kBF16:
      return Bf16ToFloat(tensor.as<uint16_t>()[i]);
    case DType::kF16:
      return F16ToFloat(tensor.as<uint16_t>()[i]);
    case DType::kF32:
      return tensor.as<float>()[i];
    case DType::kF64:
      return static_cast<float>(tensor.as<double>()[i]);
    case DType::kF8E4M3:
      return E4m3ToFloat(tensor.as<uint8_t>()[i]);
    default:
      return 0;
  }
}

}  // namespace

std::string ScaleProblem(const TensorView& scale) {
  const int64_t count = NumElements(scale.shape);
  for (int64_t i = 0; i < count; ++i) {
    if (scale.dtype == DType::kU8) {
      if (scale.as<uint8_t>()[i] == 255) return absl::StrCat("E8M0 NaN at element ", i);
      continue;
    }
    const float value = FloatAt(scale, i);
    if (!(value > 0 && std::isfinite(value)))
      return absl::StrCat(value, " at element ", i, ", expected a finite number above 0");
  }
  return "";
}

namespace {

bool IsScaleSuffix(absl::string_view suffix) {
  return suffix == "weight_scale" || suffix == "weight_global_scale" || suffix == "input_scale" ||
         suffix == "input_global_scale" || suffix == "output_scale";
}

// Smallest and largest stored integer.
struct CodeRange {
  int64_t min = std::numeric_limits<int64_t>::max();
  int64_t max = std::numeric_limits<int64_t>::min();
  int64_t count = 0;

  void Add(int64_t code) {
    min = std::min(min, code);
    max = std::max(max, code);
    ++count;
  }
};

class ModuleChecker {
 public:
  ModuleChecker(const Subject& subject, const QuantizedModule& module, Findings& findings)
      : subject_(subject),
        module_(module),
        args_(*module.group->scheme.weights),
        format_(module.group->scheme.format),
        findings_(findings) {}

  void Run() {
    if (!HasAllTensors()) return;
    const absl::Status status = ReadAndCheck();
    if (!status.ok())
      findings_.Add(ProblemCode::kUnreadable, module_.name, std::string(status.message()));
  }

 private:
  std::string Name(absl::string_view suffix) const {
    return absl::StrCat(module_.name, ".", suffix);
  }

  bool IsSparse() const { return subject_.output->Contains(Name("compressed")); }

  bool HasAllTensors() const {
    return std::all_of(module_.stored.begin(), module_.stored.end(),
                       [this](const StoredTensorSpec& spec) {
                         if (spec.suffix == "weight" && IsSparse()) return true;
                         const CheckpointTensor* tensor = subject_.output->Find(Name(spec.suffix));
                         return tensor != nullptr && tensor->spec.dtype == spec.dtype &&
                                tensor->spec.shape == spec.shape;
                       });
  }

  absl::Status ReadAndCheck() {
    LLMC_ASSIGN_OR_RETURN(layout_, kernels::LayoutOf(args_, module_.shape[0], module_.shape[1]));
    for (const StoredTensorSpec& spec : module_.stored) {
      if (spec.suffix == "weight" || spec.suffix == "weight_packed") {
        codes_ = &spec;
        continue;
      }
      LLMC_ASSIGN_OR_RETURN(small_[spec.suffix], subject_.output->Read(Name(spec.suffix)));
      findings_.CountBytes(small_[spec.suffix].num_bytes());
    }
    if (module_.group->has_g_idx && subject_.output->Contains(Name("weight_g_idx"))) {
      LLMC_ASSIGN_OR_RETURN(small_["weight_g_idx"], subject_.output->Read(Name("weight_g_idx")));
    }
    CheckSmallTensors();
    if (IsSparse()) LLMC_RETURN_IF_ERROR(UnpackCodes());
    WeightDistance distance(layout_);
    const bool compares = subject_.dense != nullptr && !subject_.weights_transformed &&
                          !module_.source.tensor.empty() && small_are_sound_;
    LLMC_RETURN_IF_ERROR(CheckRanges(compares ? &distance : nullptr));
    CheckCodeRange(compares && distance.dense_is_constant());
    if (compares) Conclude(distance);
    return absl::OkStatus();
  }

  void Bad(ProblemCode code, absl::string_view suffix, std::string text) {
    small_are_sound_ = small_are_sound_ && suffix == codes_->suffix;
    findings_.Add(code, Name(suffix), std::move(text));
  }

  void CheckSmallTensors() {
    for (const auto& [suffix, tensor] : small_) {
      if (!IsScaleSuffix(suffix)) continue;
      std::string problem = ScaleProblem(tensor.view());
      if (!problem.empty()) Bad(ProblemCode::kBadScale, suffix, std::move(problem));
    }
    if (const auto it = small_.find("weight_shape"); it != small_.end()) {
      const Shape stored(it->second.as<int64_t>(), it->second.as<int64_t>() + 2);
      if (stored != module_.shape)
        Bad(ProblemCode::kWeightShape, "weight_shape",
            absl::StrCat(ShapeString(stored), ", expected ", ShapeString(module_.shape)));
    }
    if (small_.count("weight_zero_point") > 0) CheckZeroPoint();
  }

  void CheckZeroPoint() {
    const HostTensor& zero = small_.at("weight_zero_point");
    if (zero.dtype() == DType::kI32) {
      // Packed along rows: every column is a bit string of R values.
      const int64_t words = zero.dim(0), columns = zero.dim(1);
      const int64_t used = module_.shape[0] * args_.num_bits - 32 * (words - 1);
      for (int64_t c = 0; used < 32 && c < columns; ++c) {
        const auto last = static_cast<uint32_t>(zero.as<int32_t>()[(words - 1) * columns + c]);
        if (last >> used == 0) continue;
        Bad(ProblemCode::kPaddingBits, "weight_zero_point",
            absl::StrCat("padding bits of column ", c, " are not zero"));
        return;
      }
      return;
    }
    if (zero.dtype() != DType::kI8) return;
    const QuantizedRange range = RangeOf(args_);
    for (int64_t i = 0; i < zero.num_elements(); ++i) {
      const int value = zero.as<int8_t>()[i];
      if (value >= range.min && value <= range.max) continue;
      Bad(ProblemCode::kBadZeroPoint, "weight_zero_point",
          absl::StrCat(value, " at element ", i, ", expected ", range.min, " to ", range.max));
      return;
    }
  }

  int64_t RowsOfRange() const {
    const int64_t row_bytes = std::max<int64_t>(1, module_.shape[1] * 4);
    int64_t step = kernels::kRowAlignment;
    // Whole blocks; a single scale for all rows needs no alignment.
    if (layout_.scale_rows > 1 && step % layout_.row_span != 0) step *= layout_.row_span;
    return std::max<int64_t>(1, kRangeBytes / row_bytes / step) * step;
  }

  absl::Status UnpackCodes() {
    LLMC_ASSIGN_OR_RETURN(unpacked_, ReadSparseWeight(subject_, module_.name));
    if (unpacked_->dtype() == codes_->dtype && unpacked_->shape() == codes_->shape) {
      return absl::OkStatus();
    }
    return absl::DataLossError(
        absl::StrCat("compressed: stands for ", SafetensorsName(unpacked_->dtype()), " ",
                     ShapeString(unpacked_->shape()), ", expected ", SafetensorsName(codes_->dtype),
                     " ", ShapeString(codes_->shape)));
  }

  absl::StatusOr<HostTensor> ReadCodes(int64_t first, int64_t count) const {
    if (!unpacked_) return subject_.output->ReadRows(Name(codes_->suffix), first, count);
    HostTensor rows(unpacked_->dtype(), {count, unpacked_->dim(1)});
    const int64_t row_bytes = unpacked_->dim(1) * ElementSize(unpacked_->dtype());
    const auto from = unpacked_->bytes().subspan(first * row_bytes, count * row_bytes);
    std::copy(from.begin(), from.end(), rows.bytes().begin());
    return rows;
  }

  absl::Status CheckRanges(WeightDistance* distance) {
    const int64_t rows = RowsOfRange();
    for (int64_t first = 0; first < module_.shape[0]; first += rows) {
      const int64_t count = std::min(rows, module_.shape[0] - first);
      LLMC_ASSIGN_OR_RETURN(const HostTensor codes, ReadCodes(first, count));
      findings_.CountBytes(codes.num_bytes());
      CheckCodes(codes, first);
      if (distance != nullptr) LLMC_RETURN_IF_ERROR(Compare(codes, first, *distance));
    }
    return absl::OkStatus();
  }

  void CheckCodes(const HostTensor& codes, int64_t first_row) {
    const int64_t count = codes.num_elements();
    int64_t nan_row = -1;
    switch (codes.dtype()) {
      case DType::kI32:
        return CheckPacked(codes, first_row);
      case DType::kU8:
        for (int64_t i = 0; i < count; ++i) {
          range_.Add(codes.as<uint8_t>()[i] & 15);
          range_.Add(codes.as<uint8_t>()[i] >> 4);
        }
        return;
      case DType::kI8:
        for (int64_t i = 0; i < count; ++i) range_.Add(codes.as<int8_t>()[i]);
        return;
      case DType::kI16:
        for (int64_t i = 0; i < count; ++i) range_.Add(codes.as<int16_t>()[i]);
        return;
      case DType::kF8E4M3:
        for (int64_t i = 0; i < count; ++i) {
          const uint8_t code = codes.as<uint8_t>()[i];
          range_.Add(code);
          if ((code & 0x7f) == 0x7f && nan_row < 0) nan_row = first_row + i / module_.shape[1];
        }
        if (nan_row >= 0)
          Bad(ProblemCode::kBadValues, codes_->suffix, absl::StrCat("NaN in row ", nan_row));
        return;
      default:
        return;
    }
  }

  void CheckPacked(const HostTensor& codes, int64_t first_row) {
    const int64_t words = codes.dim(1), columns = module_.shape[1];
    const int64_t used = columns * args_.num_bits - 32 * (words - 1);
    std::vector<uint8_t> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < codes.dim(0); ++r) {
      const uint32_t* packed = codes.as<uint32_t>() + r * words;
      kernels::UnpackBits(reinterpret_cast<const uint8_t*>(packed), words * 4, 0, columns,
                          args_.num_bits, row.data());
      for (uint8_t code : row) range_.Add(code);
      if (used < 32 && packed[words - 1] >> used != 0)
        Bad(ProblemCode::kPaddingBits, codes_->suffix,
            absl::StrCat("padding bits of row ", first_row + r, " are not zero"));
    }
  }

  void CheckCodeRange(bool dense_is_constant) {
    if (range_.count >= kMinCodes && range_.min == range_.max && !dense_is_constant) {
      Bad(ProblemCode::kBadValues, codes_->suffix,
          absl::StrCat("code ", range_.min, " everywhere: never written?"));
    }
    const QuantizedRange allowed = RangeOf(args_);
    const bool is_plain_int = codes_->dtype == DType::kI8 || codes_->dtype == DType::kI16;
    if (is_plain_int && range_.count > 0 &&
        (static_cast<double>(range_.min) < allowed.min ||
         static_cast<double>(range_.max) > allowed.max)) {
      Bad(ProblemCode::kBadValues, codes_->suffix,
          absl::StrCat("integers from ", range_.min, " to ", range_.max, ", expected ", allowed.min,
                       " to ", allowed.max));
    }
  }

  // Rows [first, first + count) of a whole small tensor, as DecompressWeight wants
  // them for that range of the weight.
  TensorView SmallRows(const std::string& suffix, int64_t first, int64_t count) const {
    const TensorView whole = small_.at(suffix).view();
    const bool by_rows =
        (suffix == "weight_scale" || suffix == "weight_zero_point") && whole.shape.size() == 2;
    if (!by_rows) return whole;
    int64_t begin = first / layout_.row_span;
    int64_t end = (first + count - 1) / layout_.row_span + 1;
    if (whole.dtype == DType::kI32) {  // Packed zero points; `first` begins a word.
      begin = first * args_.num_bits / 32;
      end = begin + kernels::PackedWords(count, args_.num_bits);
    }
    const auto row_bytes = whole.bytes.size() / static_cast<size_t>(whole.shape[0]);
    return {whole.dtype,
            {end - begin, whole.shape[1]},
            whole.bytes.subspan(static_cast<size_t>(begin) * row_bytes,
                                static_cast<size_t>(end - begin) * row_bytes)};
  }

  absl::StatusOr<HostTensor> DenseRows(int64_t first, int64_t count) const {
    const DenseSource& source = module_.source;
    const CheckpointTensor* tensor = subject_.dense->Find(source.tensor);
    LLMC_ASSIGN_OR_RETURN(HostTensor rows,
                          MakeHostTensor(tensor->spec.dtype, {count, module_.shape[1]}));
    int64_t row = source.first_row + first;
    if (source.expert >= 0) row += source.expert * tensor->spec.shape[1];
    const int64_t row_bytes = module_.shape[1] * ElementSize(tensor->spec.dtype);
    LLMC_RETURN_IF_ERROR(subject_.dense->ReadBytes(source.tensor, row * row_bytes, rows.bytes()));
    findings_.CountBytes(rows.num_bytes());
    return rows;
  }

  absl::Status Compare(const HostTensor& codes, int64_t first, WeightDistance& distance) {
    const int64_t count = codes.dim(0);
    const int64_t range_shape[2] = {count, module_.shape[1]};
    std::map<std::string, TensorView, std::less<>> views;
    views[codes_->suffix] = codes.view();
    for (const auto& [suffix, unused] : small_) views[suffix] = SmallRows(suffix, first, count);
    if (views.count("weight_shape") > 0)
      views["weight_shape"].bytes = std::as_bytes(std::span<const int64_t>(range_shape));
    const auto lookup = [&views](absl::string_view suffix) -> const TensorView* {
      const auto it = views.find(std::string(suffix));
      return it == views.end() ? nullptr : &it->second;
    };
    LLMC_ASSIGN_OR_RETURN(
        const HostTensor dequantized,
        kernels::DecompressWeight(lookup, args_, format_, {count, module_.shape[1]}, DType::kF32));
    LLMC_ASSIGN_OR_RETURN(const HostTensor dense, DenseRows(first, count));
    const int64_t elements = dense.num_elements();
    std::vector<float> values(static_cast<size_t>(elements));
    for (int64_t i = 0; i < elements; ++i) values[i] = FloatAt(dense.view(), i);
    distance.Add(first, values, {dequantized.as<float>(), static_cast<size_t>(elements)});
    return absl::OkStatus();
  }

  void Conclude(const WeightDistance& distance) {
    findings_.CountCompared(module_.name, distance.relative_error());
    std::string verdict = distance.Verdict(args_);
    if (!verdict.empty())
      findings_.Add(ProblemCode::kScaleDoesNotFit, module_.name, std::move(verdict));
  }

  const Subject& subject_;
  const QuantizedModule& module_;
  const QuantizationArgs& args_;
  const Format format_;
  Findings& findings_;
  kernels::GridLayout layout_;
  const StoredTensorSpec* codes_ = nullptr;
  std::map<std::string, HostTensor> small_;  // All stored tensors but the codes.
  std::optional<HostTensor> unpacked_;       // The codes of a weight stored without zeros.
  bool small_are_sound_ = true;
  CodeRange range_;
};

}  // namespace

void CheckModule(const Subject& subject, const QuantizedModule& module, Findings& findings) {
  ModuleChecker(subject, module, findings).Run();
}

bool IsFinite(const TensorView& tensor) {
  if (!IsDenseFloat(tensor.dtype)) return true;
  const int64_t count = static_cast<int64_t>(tensor.bytes.size()) / ElementSize(tensor.dtype);
  for (int64_t i = 0; i < count; ++i) {
    const bool finite = tensor.dtype == DType::kF64 ? std::isfinite(tensor.as<double>()[i])
                                                    : std::isfinite(FloatAt(tensor, i));
    if (!finite) return false;
  }
  return true;
}

}  // namespace llmc
