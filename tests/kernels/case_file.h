// Cases made with the reference library: NAME.json lists them, NAME.safetensors
// holds "<case>/in.weight", "<case>/qparam.*", "<case>/out.*" and
// "<case>/dequant.weight".
#ifndef LLMC_TESTS_KERNELS_CASE_FILE_H_
#define LLMC_TESTS_KERNELS_CASE_FILE_H_

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "llmc/file.h"
#include "llmc/scheme.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// A safetensors file of a test, read whole.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path) : bytes_(ReadFile(path).value()) {
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes_.data(), 8);
    const auto header = nlohmann::json::parse(bytes_.substr(8, header_bytes));
    const auto* data = reinterpret_cast<const std::byte*>(bytes_.data()) + 8 + header_bytes;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      const auto begin = entry["data_offsets"][0].get<size_t>();
      const auto end = entry["data_offsets"][1].get<size_t>();
      const auto dtype = DTypeFromSafetensors(entry["dtype"].get<std::string>()).value();
      views_[name] = {dtype, entry["shape"].get<Shape>(), {data + begin, end - begin}};
    }
  }

  const TensorView* Find(const std::string& name) const {
    const auto it = views_.find(name);
    return it == views_.end() ? nullptr : &it->second;
  }
  const TensorView& At(const std::string& name) const { return views_.at(name); }
  const std::map<std::string, TensorView>& views() const { return views_; }

 private:
  std::string bytes_;
  std::map<std::string, TensorView> views_;
};

inline nlohmann::json ReadCases(const std::string& path) {
  return nlohmann::json::parse(ReadFile(path).value());
}

inline QuantizationArgs ArgsFromJson(const nlohmann::json& json) {
  static const std::map<std::string, Strategy> strategies = {
      {"tensor", Strategy::kTensor},     {"channel", Strategy::kChannel},
      {"group", Strategy::kGroup},       {"block", Strategy::kBlock},
      {"token", Strategy::kToken},       {"tensor_group", Strategy::kTensorGroup},
      {"attn_head", Strategy::kAttnHead}};
  QuantizationArgs args;
  args.num_bits = json.at("num_bits");
  args.type = json.at("type") == "int" ? NumberType::kInt : NumberType::kFloat;
  args.symmetric = json.value("symmetric", true);
  args.strategy = strategies.at(json.at("strategy"));
  if (json.contains("group_size") && !json["group_size"].is_null()) {
    args.group_size = json["group_size"].get<int64_t>();
  }
  if (json.contains("block_structure") && !json["block_structure"].is_null()) {
    args.block_structure = {json["block_structure"][0].get<int64_t>(),
                            json["block_structure"][1].get<int64_t>()};
  }
  if (json.contains("scale_dtype") && !json["scale_dtype"].is_null()) {
    const bool bytes = json["scale_dtype"] == "torch.uint8";
    args.scale_dtype = bytes ? DType::kU8 : DType::kF8E4M3;
  }
  if (json.contains("observer") && !json["observer"].is_null()) args.observer = json["observer"];
  if (json.contains("observer_kwargs")) args.observer_kwargs = json["observer_kwargs"];
  return args;
}

inline Format FormatFromName(const std::string& name) {
  static const std::map<std::string, Format> formats = {
      {"pack-quantized", Format::kPackQuantized},
      {"int-quantized", Format::kIntQuantized},
      {"float-quantized", Format::kFloatQuantized},
      {"naive-quantized", Format::kNaiveQuantized},
      {"nvfp4-pack-quantized", Format::kNvfp4PackQuantized},
      {"mxfp4-pack-quantized", Format::kMxfp4PackQuantized},
      {"mxfp8-quantized", Format::kMxfp8Quantized}};
  return formats.at(name);
}

// "" when dtype, shape and every bit agree,
// else where they differ first.
inline std::string Difference(const TensorView& got, const TensorView& want) {
  if (got.dtype != want.dtype || got.shape != want.shape) {
    return std::string(SafetensorsName(got.dtype)) + ShapeString(got.shape) + ", expected " +
           std::string(SafetensorsName(want.dtype)) + ShapeString(want.shape);
  }
  const int64_t size = ElementSize(got.dtype);
  int64_t count = 0;
  std::string first;
  for (int64_t i = 0; i < NumElements(got.shape); ++i) {
    uint64_t a = 0;
    uint64_t b = 0;
    std::memcpy(&a, got.bytes.data() + i * size, size);
    std::memcpy(&b, want.bytes.data() + i * size, size);
    if (a == b) continue;
    if (count++ == 0) {
      first = " first at " + std::to_string(i) + ": " + std::to_string(a) + ", expected " +
              std::to_string(b);
    }
  }
  return count == 0 ? "" : std::to_string(count) + " elements," + first;
}

}  // namespace llmc::kernels

#endif  // LLMC_TESTS_KERNELS_CASE_FILE_H_
