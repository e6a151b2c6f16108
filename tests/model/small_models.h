// Small random models that transformers made, one directory for all tests.
#ifndef LLMC_TESTS_MODEL_SMALL_MODELS_H_
#define LLMC_TESTS_MODEL_SMALL_MODELS_H_

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "architecture/model_spec.h"
#include "model/decoder_layer.h"
#include "model/weight_source.h"

namespace llmc {

// A model directory and what transformers computed for one sample.
struct SmallModel {
  ModelSpec spec;
  std::shared_ptr<const WeightSource> source;
  std::vector<int32_t> ids;
  at::Tensor fp32, narrow, bf16;  // Logits [tokens, vocab], see make_models.py.
};

// Makes the models when first called. Fails the test when they cannot be made.
const std::filesystem::path& SmallModelsDir();
SmallModel OpenSmallModel(const std::string& name);

// Embedding, layers and head on one sample: logits [tokens, vocab].
at::Tensor Logits(const SmallModel& model, at::ScalarType dtype, Taps* taps = nullptr);

}  // namespace llmc

#endif  // LLMC_TESTS_MODEL_SMALL_MODELS_H_
