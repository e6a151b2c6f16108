#include "modifiers/transform.h"

#include "modifiers/smooth_quant.h"

namespace llmc {

std::unique_ptr<LayerTransform> MakeLayerTransform(const Modifier& modifier) {
  if (const auto* smooth = std::get_if<SmoothQuantModifier>(&modifier)) {
    return std::make_unique<SmoothQuantTransform>(*smooth);
  }
  return nullptr;
}

}  // namespace llmc
