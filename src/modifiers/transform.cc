#include "modifiers/transform.h"

#include "modifiers/awq.h"
#include "modifiers/smooth_quant.h"

namespace llmc {

std::unique_ptr<LayerTransform> MakeLayerTransform(const Modifier& modifier) {
  if (const auto* smooth = std::get_if<SmoothQuantModifier>(&modifier)) {
    return std::make_unique<SmoothQuantTransform>(*smooth);
  }
  if (const auto* awq = std::get_if<AwqModifier>(&modifier)) {
    return std::make_unique<AwqTransform>(*awq);
  }
  return nullptr;
}

}  // namespace llmc
