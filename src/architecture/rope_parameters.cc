#include "architecture/rope_parameters.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "architecture/config_fields.h"

namespace llmc {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 40;

constexpr std::pair<const char*, RopeType> kTypes[] = {
    {"default", RopeType::kDefault}, {"linear", RopeType::kLinear},
    {"dynamic", RopeType::kDynamic}, {"llama3", RopeType::kLlama3},
    {"yarn", RopeType::kYarn},       {"longrope", RopeType::kLongrope},
    {"su", RopeType::kLongrope},
};

RopeType ReadType(ConfigFields& fields) {
  const std::string name = fields.String("rope_type", fields.String("type", "default"));
  for (const auto& [known, type] : kTypes) {
    if (name == known) return type;
  }
  fields.Fail(absl::UnimplementedError(
      absl::StrCat("config.json: rope_type: \"", name.substr(0, 40),
                   "\", expected default, linear, dynamic, llama3, yarn or longrope")));
  return RopeType::kDefault;
}

bool FactorIsRequired(RopeType type) {
  return type == RopeType::kLinear || type == RopeType::kDynamic || type == RopeType::kLlama3;
}

void ReadFactor(ConfigFields& fields, RopeParameters& rope) {
  const double implied = static_cast<double>(rope.max_position_embeddings) /
                         static_cast<double>(rope.original_max_position_embeddings);
  if (FactorIsRequired(rope.type) && !fields.Has("factor")) {
    fields.Fail("factor", "missing, expected a number > 0");
  }
  rope.factor = fields.Positive("factor", rope.type == RopeType::kDefault ? 1.0 : implied);
}

void ReadLlama3(ConfigFields& fields, RopeParameters& rope) {
  for (const char* field : {"low_freq_factor", "high_freq_factor"}) {
    if (!fields.Has(field)) fields.Fail(field, "missing, expected a number > 0");
  }
  rope.low_freq_factor = fields.Positive("low_freq_factor", 1.0);
  rope.high_freq_factor = fields.Positive("high_freq_factor", 4.0);
  if (rope.high_freq_factor < rope.low_freq_factor) {
    fields.Fail("high_freq_factor", absl::StrCat(rope.high_freq_factor, ", expected >= ",
                                                 "low_freq_factor, ", rope.low_freq_factor));
  }
}

void ReadYarn(ConfigFields& fields, RopeParameters& rope) {
  rope.beta_fast = fields.Positive("beta_fast", 32.0);
  rope.beta_slow = fields.Positive("beta_slow", 1.0);
  rope.truncate = fields.Bool("truncate", true);
  rope.attention_factor = fields.OptionalPositive("attention_factor");
  // Zero stands for "not given", as the reference's truth test reads it.
  rope.mscale = fields.PositiveOrZero("mscale");
  rope.mscale_all_dim = fields.PositiveOrZero("mscale_all_dim");
}

void ReadLongrope(ConfigFields& fields, RopeParameters& rope, int64_t head_dim) {
  rope.attention_factor = fields.OptionalPositive("attention_factor");
  rope.short_factor = fields.RequiredPositives("short_factor", head_dim / 2);
  rope.long_factor = fields.RequiredPositives("long_factor", head_dim / 2);
}

// The field that holds the parameters; null when there is none.
const char* RopeField(const nlohmann::json& config) {
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const auto it = config.find(field);
    if (it != config.end() && !it->is_null() && !(it->is_object() && it->empty())) return field;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<RopeParameters> ParseRopeParameters(const nlohmann::json& config, int64_t head_dim,
                                                   int64_t max_position_embeddings) {
  ConfigFields outer(config, "config.json");
  const char* const field = RopeField(config);
  const nlohmann::json none = nlohmann::json::object();
  ConfigFields fields(field == nullptr ? none : config.at(field),
                      absl::StrCat("config.json: ", field == nullptr ? "rope_parameters" : field));
  LLMC_RETURN_IF_ERROR(outer.status());
  for (const char* layer_type : {"full_attention", "sliding_attention"}) {
    if (fields.Has(layer_type)) {
      fields.Fail(layer_type, "one set of parameters per layer type, expected one for all layers");
    }
  }
  RopeParameters rope;
  rope.type = ReadType(fields);
  rope.theta = fields.Positive("rope_theta", outer.Positive("rope_theta", 10000.0, 1.0), 1.0);
  const double partial =
      fields.Positive("partial_rotary_factor", outer.Positive("partial_rotary_factor", 1.0));
  if (partial != 1.0) {
    fields.Fail(absl::UnimplementedError(absl::StrCat(
        "config.json: partial_rotary_factor: ", partial, ", expected 1 for this model_type")));
  }
  rope.max_position_embeddings = max_position_embeddings;
  constexpr const char* kOriginal = "original_max_position_embeddings";
  rope.original_max_position_embeddings =
      fields.Int(kOriginal, max_position_embeddings, 1, kMaxPositions);
  // A value beside the parameters wins over one among them, as in transformers.
  rope.original_max_position_embeddings =
      outer.Int(kOriginal, rope.original_max_position_embeddings, 1, kMaxPositions);
  ReadFactor(fields, rope);
  if (rope.type == RopeType::kLlama3) ReadLlama3(fields, rope);
  if (rope.type == RopeType::kYarn) ReadYarn(fields, rope);
  if (rope.type == RopeType::kLongrope) ReadLongrope(fields, rope, head_dim);
  LLMC_RETURN_IF_ERROR(outer.status());
  LLMC_RETURN_IF_ERROR(fields.status());
  return rope;
}

}  // namespace llmc
