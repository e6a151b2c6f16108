#include "verify/directory_check.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/model_files.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/strict_json.h"
#include "llmc/parallel.h"
#include "verify/tensor_stream.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kIndexName = "model.safetensors.index.json";
constexpr JsonLimits kIndexLimits{256 << 20, 8};

// Fields that a client builds the model from.
constexpr std::array<const char*, 10> kFixedFields = {
    "model_type",        "architectures",       "hidden_size",
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size",          "head_dim",
    "rms_norm_eps"};

// The object of the manifest under `key`, or an empty one.
const Json& ManifestPart(const Subject& subject, const char* key) {
  static const Json* const kEmpty = new Json(Json::object());
  const auto part =
      subject.manifest.is_object() ? subject.manifest.find(key) : subject.manifest.end();
  return part == subject.manifest.end() || !part->is_object() ? *kEmpty : *part;
}

std::string TextAt(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it == object.end() || !it->is_string() ? "" : it->get<std::string>();
}

void CompareSpec(const TensorSpec& stored, absl::string_view dtype, const std::string& shape,
                 Findings& findings) {
  const std::string stored_shape = ShapeString(stored.shape);
  if (SafetensorsName(stored.dtype) != dtype) {
    findings.Add(ProblemCode::kWrongDtype, stored.name,
                 absl::StrCat(SafetensorsName(stored.dtype), ", expected ", dtype));
  }
  if (stored_shape != shape)
    findings.Add(ProblemCode::kWrongShape, stored.name,
                 absl::StrCat(stored_shape, ", expected ", shape));
}

void CheckManifestSpecs(const Subject& subject, Findings& findings) {
  const Json& tensors = ManifestPart(subject, "tensors");
  for (const auto& [name, entry] : tensors.items()) {
    const CheckpointTensor* stored = subject.output->Find(name);
    if (stored == nullptr) {
      findings.Add(ProblemCode::kMissingTensor, name, "in the manifest, but not stored");
      continue;
    }
    Shape shape;
    if (entry.is_object() && entry.contains("shape") && entry["shape"].is_array())
      for (const Json& dim : entry["shape"])
        if (dim.is_number_integer()) shape.push_back(dim.get<int64_t>());
    CompareSpec(stored->spec, TextAt(entry, "dtype"), ShapeString(shape), findings);
  }
  if (tensors.empty()) return;
  for (const CheckpointTensor& tensor : subject.output->tensors())
    if (!tensors.contains(tensor.spec.name))
      findings.Add(ProblemCode::kExtraTensor, tensor.spec.name, "stored, but not in the manifest");
}

void CheckManifestFiles(const Subject& subject, bool hashes, Findings& findings) {
  for (const auto& [name, entry] : ManifestPart(subject, "files").items()) {
    if (name.find("..") != std::string::npos || name.empty() || name[0] == '/') continue;
    const absl::StatusOr<PosixFile> file = PosixFile::OpenForReading(subject.output->dir() / name);
    if (!file.ok()) {
      findings.Add(ProblemCode::kMissingFile, name, "in the manifest, but not readable");
      continue;
    }
    if (!hashes) continue;
    const absl::StatusOr<std::string> hash = HashFile(*file);
    if (!hash.ok()) {
      findings.Add(ProblemCode::kUnreadable, name, std::string(hash.status().message()));
    } else if (*hash != TextAt(entry, "xxh3_128")) {
      findings.Add(ProblemCode::kHashDiffers, name,
                   absl::StrCat("hash ", *hash, ", expected ", Quoted(TextAt(entry, "xxh3_128")),
                                " of the manifest"));
    }
  }
}

// config.json's flag, at the top or in text_config; nullopt when absent.
std::optional<bool> TieFlag(const Json& config) {
  const auto text = config.find("text_config");
  for (const Json* object : {&config, text == config.end() ? &config : &*text}) {
    if (!object->is_object()) continue;
    const auto flag = object->find("tie_word_embeddings");
    if (flag != object->end() && flag->is_boolean()) return flag->get<bool>();
  }
  return std::nullopt;
}

const CheckpointTensor* FindEnding(const Checkpoint& checkpoint, absl::string_view end) {
  for (const CheckpointTensor& tensor : checkpoint.tensors())
    if (absl::EndsWith(tensor.spec.name, end)) return &tensor;
  return nullptr;
}

bool IsCausal(const Json& config) {
  const auto names = config.find("architectures");
  if (names == config.end() || !names->is_array()) return false;
  return std::any_of(names->begin(), names->end(), [](const Json& name) {
    return name.is_string() && absl::EndsWith(name.get_ref<const std::string&>(), "ForCausalLM");
  });
}

bool SameBytes(const Checkpoint& a, const std::string& name_a, const Checkpoint& b,
               const std::string& name_b) {
  const absl::StatusOr<std::string> hash_a = HashTensor(a, name_a);
  const absl::StatusOr<std::string> hash_b = HashTensor(b, name_b);
  return hash_a.ok() && hash_b.ok() && *hash_a == *hash_b;
}

}  // namespace

void CheckTensorSpecs(const Subject& subject, const ModuleTable& table, Findings& findings) {
  for (const auto& [name, spec] : table.required) {
    const CheckpointTensor* stored = subject.output->Find(name);
    if (stored == nullptr) {
      findings.Add(ProblemCode::kMissingTensor, name,
                   absl::StrCat("not stored, expected ", SafetensorsName(spec.dtype), " ",
                                ShapeString(spec.shape)));
      continue;
    }
    CompareSpec(stored->spec, SafetensorsName(spec.dtype), ShapeString(spec.shape), findings);
  }
  for (const CheckpointTensor& tensor : subject.output->tensors()) {
    const std::string& name = tensor.spec.name;
    if (table.required.count(name) == 0 && table.allowed.count(name) == 0)
      findings.Add(ProblemCode::kExtraTensor, name,
                   "stored, but neither the config nor the source has it");
  }
  CheckManifestSpecs(subject, findings);
}

void CheckIndexTotals(const Subject& subject, Findings& findings) {
  const std::filesystem::path path = subject.output->dir() / std::string(kIndexName);
  const absl::StatusOr<Json> index = ReadStrictJson(path, kIndexLimits);
  if (!index.ok()) return;  // None; a malformed one was refused at the opening.
  int64_t parameters = 0;
  for (const CheckpointTensor& tensor : subject.output->tensors())
    parameters += NumElements(tensor.spec.shape);
  const auto metadata = index->find("metadata");
  const auto check = [&](const char* key, int64_t expected, bool required) {
    const bool has = metadata != index->end() && metadata->is_object() && metadata->contains(key);
    const Json found = has ? metadata->at(key) : Json();
    if (has ? found == expected : !required) return;
    findings.Add(
        ProblemCode::kIndexWrong, kIndexName,
        absl::StrCat(key, " is ", has ? Quoted(found.dump()) : "missing", ", expected ", expected));
  };
  check("total_size", subject.output->total_bytes(), true);
  check("total_parameters", parameters, false);
}

void CheckFiles(const Subject& subject, bool hashes, Findings& findings) {
  CheckManifestFiles(subject, hashes, findings);
  const absl::StatusOr<std::vector<std::string>> have = subject.output->SourceFiles();
  const std::set<std::string> present =
      have.ok() ? std::set<std::string>(have->begin(), have->end()) : std::set<std::string>();
  if (subject.dense != nullptr) {
    const absl::StatusOr<std::vector<std::string>> wanted = subject.dense->SourceFiles();
    if (!wanted.ok()) return;
    for (const std::string& name : *wanted) {
      const bool needed = IsTokenizerFile(name) || name == "generation_config.json";
      if (needed && present.count(name) == 0)
        findings.Add(ProblemCode::kMissingFile, name, "the source has it, the output has not");
    }
    return;
  }
  if (ManifestPart(subject, "files").empty() &&
      std::none_of(present.begin(), present.end(),
                   [](const std::string& name) { return IsTokenizerFile(name); }))
    findings.Add(ProblemCode::kMissingFile, "tokenizer.json", "no file of a tokenizer");
}

void CheckTieFlag(const Subject& subject, Findings& findings) {
  const Checkpoint& output = *subject.output;
  const std::optional<bool> tied = TieFlag(output.config());
  const CheckpointTensor* embedding = FindEnding(output, "embed_tokens.weight");
  const CheckpointTensor* head = FindEnding(output, "lm_head.weight");
  const bool has_quantised_head = FindEnding(output, "lm_head.weight_scale") != nullptr ||
                                  FindEnding(output, "lm_head.weight_packed") != nullptr;
  if (tied == true && has_quantised_head) {
    findings.Add(ProblemCode::kTieFlag, "lm_head",
                 "tie_word_embeddings is true, but the head is quantised: clients would ignore it");
  } else if (tied == true && head != nullptr && embedding != nullptr &&
             !SameBytes(output, head->spec.name, output, embedding->spec.name)) {
    findings.Add(ProblemCode::kTieFlag, "lm_head",
                 "tie_word_embeddings is true, but head and embedding differ");
  } else if (tied == false && head == nullptr && !has_quantised_head && embedding != nullptr &&
             IsCausal(output.config())) {
    findings.Add(ProblemCode::kTieFlag, "lm_head",
                 "tie_word_embeddings is false, but no head is stored");
  }
}

void CheckConfigFields(const Subject& subject, Findings& findings) {
  const Json& there = subject.dense->config();
  const Json& here = subject.output->config();
  for (const char* field : kFixedFields) {
    if (!there.contains(field)) continue;
    const Json value = here.contains(field) ? here[field] : Json();
    if (value == there[field]) continue;
    findings.Add(ProblemCode::kConfigWrong, absl::StrCat("config.json ", field),
                 absl::StrCat(Quoted(value.dump()), ", expected ", Quoted(there[field].dump()),
                              " as in the source"));
  }
}

void CheckUntouched(const Subject& subject, const ModuleTable& table, Findings& findings) {
  std::atomic<int64_t> num_changed{0};
  ParallelFor(static_cast<int64_t>(table.untouched.size()), [&](int64_t i) {
    const std::string& name = table.untouched[i];
    const CheckpointTensor* stored = subject.output->Find(name);
    const CheckpointTensor* source = subject.dense->Find(name);
    if (stored == nullptr || stored->spec != source->spec) return;  // A finding already.
    findings.CountBytes(2 * stored->spec.num_bytes());
    if (SameBytes(*subject.output, name, *subject.dense, name)) return;
    ++num_changed;
    if (!subject.weights_transformed)
      findings.Add(ProblemCode::kUntouchedChanged, name, "differs from the source's tensor");
  });
  if (subject.weights_transformed && num_changed > 0) {
    findings.Warn(absl::StrCat(num_changed.load(),
                               " tensors that are not quantised differ from the source, as the "
                               "recipe's smoothing, rotation or pruning may make them"));
  }
}

void CheckOtherValues(const Subject& subject, const ModuleTable& table, Findings& findings) {
  std::set<std::string> codes;
  for (const QuantizedModule& module : table.quantized)
    for (const StoredTensorSpec& spec : module.stored)
      codes.insert(absl::StrCat(module.name, ".", spec.suffix));
  const std::vector<CheckpointTensor>& tensors = subject.output->tensors();
  ParallelFor(static_cast<int64_t>(tensors.size()), [&](int64_t i) {
    const TensorSpec& spec = tensors[i].spec;
    if (codes.count(spec.name) > 0) return;
    const bool is_scale = absl::EndsWith(QuantizationSuffix(spec.name), "_scale");
    std::string problem = is_scale ? ScaleTensorProblem(*subject.output, spec)
                                   : FiniteTensorProblem(*subject.output, spec);
    if (problem.empty()) return;
    findings.Add(is_scale ? ProblemCode::kBadScale : ProblemCode::kBadValues, spec.name,
                 std::move(problem));
  });
}

void CheckTensorHashes(const Subject& subject, Findings& findings) {
  const Json& tensors = ManifestPart(subject, "tensors");
  std::vector<std::string> names;
  for (const auto& [name, unused] : tensors.items())
    if (subject.output->Contains(name)) names.push_back(name);
  ParallelFor(static_cast<int64_t>(names.size()), [&](int64_t i) {
    const std::string expected = TextAt(tensors[names[i]], "xxh3_128");
    const absl::StatusOr<std::string> hash = HashTensor(*subject.output, names[i]);
    findings.CountBytes(subject.output->Find(names[i])->spec.num_bytes());
    if (!hash.ok()) {
      findings.Add(ProblemCode::kUnreadable, names[i], std::string(hash.status().message()));
    } else if (*hash != expected) {
      findings.Add(
          ProblemCode::kHashDiffers, names[i],
          absl::StrCat("hash ", *hash, ", expected ", Quoted(expected), " of the manifest"));
    }
  });
}

}  // namespace llmc
