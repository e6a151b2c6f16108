#include "modifiers/transform.h"

#include "modifiers/awq.h"
#include "modifiers/pruning.h"
#include "modifiers/smooth_quant.h"
#include "modifiers/sparse_gpt.h"

namespace llmc {

std::unique_ptr<LayerTransform> MakeLayerTransform(const Modifier& modifier) {
  if (const auto* smooth = std::get_if<SmoothQuantModifier>(&modifier)) {
    return std::make_unique<SmoothQuantTransform>(*smooth);
  }
  if (const auto* awq = std::get_if<AwqModifier>(&modifier)) {
    return std::make_unique<AwqTransform>(*awq);
  }
  if (const auto* sparse_gpt = std::get_if<SparseGptModifier>(&modifier)) {
    return std::make_unique<SparseGptTransform>(*sparse_gpt);
  }
  if (PruningFieldsOf(modifier) != nullptr) {
    return std::make_unique<ScorePruningTransform>(modifier);
  }
  return nullptr;
}

}  // namespace llmc
