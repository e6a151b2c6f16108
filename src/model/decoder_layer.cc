#include "model/decoder_layer.h"

#include <array>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/relu.h"
#include "ATen/ops/repeat_interleave.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "ATen/ops/silu.h"
#include "ATen/ops/tril.h"
#include "ATen/ops/triu.h"
#include "absl/strings/str_cat.h"
#include "architecture/module_spec.h"
#include "kernels/attention.h"
#include "model/rms_norm.h"
#include "model/rotary_table.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

struct Module {
  std::string name;
  Role role = Role::kContainer;
  at::Tensor weight;  // Linear: [out_features, in_features]; norm: [channels].
  at::Tensor bias;    // [out_features] or undefined.
};

at::Tensor Activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

// Turns the halves (j, j + d/2) of the last dimension.
at::Tensor Rotate(const at::Tensor& x, const RotaryTable::CosSin& table) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor turned = at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  return x * table.cos + turned * table.sin;
}

// 0 where query i may see key j (i - window < j <= i), -inf elsewhere.
at::Tensor SlidingMask(int64_t tokens, int64_t window, const at::Tensor& like) {
  const at::Tensor seen =
      at::ones({tokens, tokens}, like.options().dtype(at::kBool)).tril().triu(1 - window);
  return at::full({tokens, tokens}, -INFINITY, like.options()).masked_fill(seen, 0.0);
}

absl::StatusOr<at::Tensor> ReadDense(const TensorReader& reader, const std::string& name,
                                     const Shape& shape, const LayerPlacement& placement) {
  LLMC_ASSIGN_OR_RETURN(const at::Tensor tensor, reader(name));
  if (tensor.sizes().vec() != shape) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": shape ",
                                                   ShapeString(tensor.sizes().vec()),
                                                   ", expected ", ShapeString(shape)));
  }
  LLMC_ASSIGN_OR_RETURN(const DType dtype, DTypeFrom(tensor.scalar_type()));
  if (!IsDenseFloat(dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": dtype ", SafetensorsName(dtype), ", expected F64, F32, F16 or BF16"));
  }
  at::Tensor loaded;
  LLMC_RETURN_IF_ERROR(
      CatchTorch(name, [&] { loaded = tensor.to(placement.device, placement.dtype); }));
  return loaded;
}

// LibTorch's CPU attention multiplies BF16 by way of float32; ours does not, but
// has no gradient.
bool FitsBf16Kernel(const AttentionStates& states) {
  const auto fits = [](const at::Tensor& x) {
    return x.scalar_type() == at::kBFloat16 && x.is_cpu() && x.stride(2) == 1;
  };
  return kernels::HasAttentionBf16Dot() && fits(states.query) && fits(states.key) &&
         fits(states.value) && states.query.size(2) % 2 == 0;
}

kernels::HeadStates HeadsOf(const at::Tensor& x) {
  return {static_cast<const uint16_t*>(x.const_data_ptr()), x.stride(0), x.stride(1)};
}

at::Tensor AttendByKernel(const AttentionStates& states, double scale, int64_t window) {
  const at::Tensor& query = states.query;
  at::Tensor out = at::empty({query.size(1), query.size(0) * query.size(2)}, query.options());
  kernels::AttentionCall call;
  call.query = HeadsOf(query);
  call.key = HeadsOf(states.key);
  call.value = HeadsOf(states.value);
  call.num_heads = query.size(0);
  call.num_key_value_heads = states.key.size(0);
  call.tokens = query.size(1);
  call.head_dim = query.size(2);
  call.scale = static_cast<float>(scale);
  call.window = window;
  call.out = static_cast<uint16_t*>(out.data_ptr());
  kernels::AttendBf16Dot(call);
  return out;
}

}  // namespace

void Taps::Input(absl::Span<const std::string>, const at::Tensor&) {}
at::Tensor Taps::ReplaceInput(const std::string&, const at::Tensor& x) { return x; }
at::Tensor Taps::ReplaceOutput(const std::string&, const at::Tensor& y) { return y; }
void Taps::Attention(const std::string&, AttentionStates&) {}

struct DecoderLayer::Impl {
  ModelSpec spec;
  int64_t layer = 0;
  LayerPlacement placement;
  std::string attention_name;
  std::vector<std::string> linears;
  std::vector<std::string> names;  // Of `modules`, in the same order.
  std::vector<Module> modules;
  std::unordered_map<std::string, size_t> by_name;
  std::unordered_map<int, size_t> by_role;
  // Linears that share an input, by the role of the first.
  std::unordered_map<int, std::vector<std::string>> groups;

  absl::Status Add(const ModuleSpec& module, const TensorReader& reader);
  const Module& At(Role role) const { return modules[by_role.at(static_cast<int>(role))]; }

  void TapInput(Role first, const at::Tensor& x, Taps* taps) const;
  at::Tensor Multiply(Role role, const at::Tensor& x, const ForwardOptions& options) const;
  at::Tensor Norm(Role role, const at::Tensor& x) const;
  // `projected` [tokens, heads * head_dim] as [heads, tokens, head_dim].
  at::Tensor SplitHeads(const at::Tensor& projected) const;
  at::Tensor Attend(const AttentionStates& states, bool differentiable) const;
  at::Tensor AttendSample(AttentionStates states, const ForwardOptions& options) const;
  at::Tensor SelfAttention(const at::Tensor& x, const ForwardOptions& options) const;
  at::Tensor Mlp(const at::Tensor& x, const ForwardOptions& options) const;
};

absl::Status DecoderLayer::Impl::Add(const ModuleSpec& module, const TensorReader& reader) {
  if (module.role == Role::kContainer) return absl::OkStatus();
  Module loaded{module.name, module.role, {}, {}};
  LLMC_ASSIGN_OR_RETURN(loaded.weight,
                        ReadDense(reader, module.weight_name(), module.weight_shape, placement));
  if (module.has_bias) {
    LLMC_ASSIGN_OR_RETURN(
        loaded.bias, ReadDense(reader, module.bias_name(), {module.weight_shape[0]}, placement));
  }
  if (module.is_linear()) {
    linears.push_back(module.name);
    const Role first = module.input_group == module.name
                           ? module.role
                           : modules[by_name.at(module.input_group)].role;
    groups[static_cast<int>(first)].push_back(module.name);
  }
  by_name[module.name] = modules.size();
  by_role[static_cast<int>(module.role)] = modules.size();
  names.push_back(module.name);
  modules.push_back(std::move(loaded));
  return absl::OkStatus();
}

void DecoderLayer::Impl::TapInput(Role first, const at::Tensor& x, Taps* taps) const {
  if (taps != nullptr) taps->Input(groups.at(static_cast<int>(first)), x);
}

at::Tensor DecoderLayer::Impl::Multiply(Role role, const at::Tensor& x,
                                        const ForwardOptions& options) const {
  const Module& module = At(role);
  const at::Tensor* weight = &module.weight;
  if (options.weights != nullptr) {
    const auto other = options.weights->find(module.name);
    if (other != options.weights->end()) weight = &other->second;
  }
  if (options.taps == nullptr) return at::linear(x, *weight, module.bias);
  const at::Tensor input = options.taps->ReplaceInput(module.name, x);
  return options.taps->ReplaceOutput(module.name, at::linear(input, *weight, module.bias));
}

at::Tensor DecoderLayer::Impl::Norm(Role role, const at::Tensor& x) const {
  return RmsNorm(x, At(role).weight, spec.rms_norm_eps);
}

at::Tensor DecoderLayer::Impl::SplitHeads(const at::Tensor& projected) const {
  return projected.view({projected.size(0), -1, spec.head_dim});
}

at::Tensor DecoderLayer::Impl::Attend(const AttentionStates& states, bool differentiable) const {
  const int64_t tokens = states.query.size(1);
  const int64_t window = spec.sliding_window[layer];
  const double scale = 1.0 / std::sqrt(static_cast<double>(spec.head_dim));
  if (!differentiable && placement.host_kernels && FitsBf16Kernel(states)) {
    return AttendByKernel(states, scale, window);
  }
  std::optional<at::Tensor> mask;
  if (window > 0 && tokens > window) mask = SlidingMask(tokens, window, states.query);
  at::Tensor key = states.key;
  at::Tensor value = states.value;
  // Of LibTorch's CUDA kernels only flash attention, which takes 16-bit types and no mask,
  // knows shared heads; without it the others would fall back to whole score matrices.
  const bool repeats = !placement.host_kernels &&
                       (mask.has_value() || states.query.scalar_type() == at::kFloat);
  if (repeats) {
    const int64_t queries_per_key = states.query.size(0) / key.size(0);
    key = at::repeat_interleave(key, queries_per_key, 0);
    value = at::repeat_interleave(value, queries_per_key, 0);
  }
  const at::Tensor attended = at::scaled_dot_product_attention(
      states.query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0), mask,
      /*dropout_p=*/0.0, /*is_causal=*/!mask.has_value(), scale, /*enable_gqa=*/!repeats);
  return attended.squeeze(0).transpose(0, 1).reshape({tokens, -1});
}

at::Tensor DecoderLayer::Impl::AttendSample(AttentionStates states,
                                            const ForwardOptions& options) const {
  const at::Tensor& query = states.query;
  const RotaryTable::CosSin table =
      placement.rotary->Get(query.size(1), query.scalar_type(), query.device());
  states.query = Rotate(states.query, table);
  states.key = Rotate(states.key, table);
  if (options.taps != nullptr) options.taps->Attention(attention_name, states);
  return Attend(states, options.differentiable);
}

at::Tensor DecoderLayer::Impl::SelfAttention(const at::Tensor& x,
                                             const ForwardOptions& options) const {
  Taps* const taps = options.taps;
  TapInput(Role::kQuery, x, taps);
  at::Tensor query = SplitHeads(Multiply(Role::kQuery, x, options));
  at::Tensor key = SplitHeads(Multiply(Role::kKey, x, options));
  const at::Tensor value = SplitHeads(Multiply(Role::kValue, x, options));
  if (spec.qk_norm) {
    query = Norm(Role::kQueryNorm, query);
    key = Norm(Role::kKeyNorm, key);
  }
  const AttentionStates all{query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)};
  at::Tensor attended;
  if (options.lengths.size() <= 1) {
    attended = AttendSample(all, options);
  } else {
    std::vector<at::Tensor> samples;
    int64_t first = 0;
    for (const int64_t tokens : options.lengths) {
      const auto rows = [&](const at::Tensor& states) { return states.narrow(1, first, tokens); };
      samples.push_back(AttendSample({rows(all.query), rows(all.key), rows(all.value)}, options));
      first += tokens;
    }
    attended = at::cat(samples);
  }
  TapInput(Role::kAttentionOutput, attended, taps);
  return Multiply(Role::kAttentionOutput, attended, options);
}

at::Tensor DecoderLayer::Impl::Mlp(const at::Tensor& x, const ForwardOptions& options) const {
  TapInput(Role::kGate, x, options.taps);
  const at::Tensor gate = Activate(spec.hidden_act, Multiply(Role::kGate, x, options));
  const at::Tensor product = gate * Multiply(Role::kUp, x, options);
  TapInput(Role::kDown, product, options.taps);
  if (!options.output_needed) return {};
  return Multiply(Role::kDown, product, options);
}

DecoderLayer::DecoderLayer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecoderLayer::DecoderLayer(DecoderLayer&&) noexcept = default;
DecoderLayer& DecoderLayer::operator=(DecoderLayer&&) noexcept = default;
DecoderLayer::~DecoderLayer() = default;

absl::StatusOr<DecoderLayer> DecoderLayer::Load(const ModelSpec& spec, int64_t layer,
                                                const WeightReader& reader,
                                                const LayerPlacement& placement) {
  const auto read = [&](const std::string& name) -> absl::StatusOr<at::Tensor> {
    LLMC_ASSIGN_OR_RETURN(HostTensor tensor, reader(name));
    return ToTorch(std::move(tensor));
  };
  return LoadTensors(spec, layer, read, placement);
}

absl::StatusOr<DecoderLayer> DecoderLayer::LoadTensors(const ModelSpec& spec, int64_t layer,
                                                       const TensorReader& reader,
                                                       const LayerPlacement& placement) {
  if (layer < 0 || layer >= spec.num_hidden_layers) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer, ", expected one of the ",
                                                   spec.num_hidden_layers, " of the model"));
  }
  auto impl = std::make_unique<Impl>();
  impl->spec = spec;
  impl->layer = layer;
  impl->placement = placement;
  if (impl->placement.rotary == nullptr) {
    impl->placement.rotary = std::make_shared<RotaryTable>(spec.rope, spec.head_dim);
  }
  impl->attention_name = absl::StrCat(spec.LayerName(layer), ".self_attn");
  for (const ModuleSpec& module : LayerModules(spec, layer)) {
    LLMC_RETURN_IF_ERROR(impl->Add(module, reader));
  }
  return DecoderLayer(std::move(impl));
}

absl::StatusOr<DecoderLayer> DecoderLayer::Load(const ModelSpec& spec, int64_t layer,
                                                const WeightReader& reader,
                                                at::ScalarType compute_dtype) {
  LayerPlacement placement;
  placement.dtype = compute_dtype;
  return Load(spec, layer, reader, placement);
}

at::Tensor DecoderLayer::Forward(const at::Tensor& hidden, const ForwardOptions& options) const {
  const at::Tensor attended =
      hidden + impl_->SelfAttention(impl_->Norm(Role::kInputNorm, hidden), options);
  const at::Tensor mlp = impl_->Mlp(impl_->Norm(Role::kMlpNorm, attended), options);
  return options.output_needed ? attended + mlp : mlp;
}

at::Tensor DecoderLayer::RunPart(LayerPart part, const at::Tensor& input,
                                 const WeightOverrides& weights) const {
  const ForwardOptions options{.weights = &weights};
  return part == LayerPart::kAttention ? impl_->SelfAttention(input, options)
                                       : impl_->Mlp(input, options);
}

const std::vector<std::string>& DecoderLayer::linears() const { return impl_->linears; }
const std::vector<std::string>& DecoderLayer::modules() const { return impl_->names; }
int64_t DecoderLayer::index() const { return impl_->layer; }
const LayerPlacement& DecoderLayer::placement() const { return impl_->placement; }

const at::Tensor& DecoderLayer::weight(const std::string& module) const {
  return impl_->modules[impl_->by_name.at(module)].weight;
}

const at::Tensor& DecoderLayer::bias(const std::string& module) const {
  return impl_->modules[impl_->by_name.at(module)].bias;
}

absl::Status DecoderLayer::set_weight(const std::string& module, const at::Tensor& weight) {
  const auto it = impl_->by_name.find(module);
  if (it == impl_->by_name.end()) return absl::NotFoundError(module + ": no such module");
  Module& found = impl_->modules[it->second];
  if (weight.sizes() != found.weight.sizes()) {
    return absl::InvalidArgumentError(absl::StrCat(module, ".weight: shape ",
                                                   ShapeString(weight.sizes().vec()), ", expected ",
                                                   ShapeString(found.weight.sizes().vec())));
  }
  return CatchTorch(
      module, [&] { found.weight = weight.to(impl_->placement.device, impl_->placement.dtype); });
}

absl::Status DecoderLayer::set_bias(const std::string& module, const at::Tensor& bias) {
  const auto it = impl_->by_name.find(module);
  if (it == impl_->by_name.end()) return absl::NotFoundError(module + ": no such module");
  Module& found = impl_->modules[it->second];
  if (bias.dim() != 1 || bias.size(0) != found.weight.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat(module, ".bias: shape ",
                                                   ShapeString(bias.sizes().vec()), ", expected [",
                                                   found.weight.size(0), "]"));
  }
  return CatchTorch(module,
                    [&] { found.bias = bias.to(impl_->placement.device, impl_->placement.dtype); });
}

int64_t DecoderLayer::num_bytes() const {
  int64_t bytes = 0;
  for (const Module& module : impl_->modules) {
    bytes += static_cast<int64_t>(module.weight.nbytes());
    if (module.bias.defined()) bytes += static_cast<int64_t>(module.bias.nbytes());
  }
  return bytes;
}

}  // namespace llmc
