// Random recipes resolved by the reference itself (reference_recipes.py).
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "formats/quantization_config.h"
#include "recipe/resolve.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

Json RunPython(const std::string& program) {
  const std::string source = LLMC_SOURCE_DIR;
  const std::string command =
      source + "/.venv/bin/python " + source + "/tests/recipe/" + program + " 2>/dev/null";
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string output;
  char buffer[65536];
  while (const size_t n = fread(buffer, 1, sizeof(buffer), pipe.get())) output.append(buffer, n);
  const size_t start = output.find("{\"models\"");  // Lines of log may come first.
  return start == std::string::npos ? Json() : Json::parse(output.substr(start));
}

std::vector<ModuleRef> ModulesOf(const Json& list) {
  std::vector<ModuleRef> modules;
  for (const Json& m : list) modules.push_back({m[0], m[1], m[2].get<Shape>()});
  return modules;
}

absl::StatusOr<Json> ConfigOf(const std::string& text, const std::vector<ModuleRef>& modules) {
  LLMC_ASSIGN_OR_RETURN(const Recipe recipe, Recipe::Parse(text, "random.yaml"));
  LLMC_ASSIGN_OR_RETURN(const Resolution resolution,
                        ResolveTargets(recipe, modules, {.allow_unmatched_ignore = true}));
  ConfigContents contents;
  for (size_t i = 0; i < modules.size(); ++i) {
    const ModuleDecision& decision = resolution.modules[i];
    contents.modules.push_back(
        {modules[i].name, modules[i].class_name, decision.scheme, decision.group_targets});
  }
  contents.kv_cache_scheme = resolution.kv_cache_scheme;
  return QuantizationConfigJson(contents);
}

// int4 with float activations is packed on purpose.
void PackOnPurpose(Json& config) {
  std::set<std::string> formats;
  for (auto& [name, group] : config["config_groups"].items()) {
    const Json& inputs = group["input_activations"];
    const bool is_packed = inputs.is_object() && inputs["type"] == "float" &&
                           group["weights"]["type"] == "int" && group["weights"]["num_bits"] < 8;
    if (is_packed) group["format"] = "pack-quantized";
    if (group["format"] != "dense") formats.insert(group["format"].get<std::string>());
  }
  if (!formats.empty()) {
    config["format"] = formats.size() == 1 ? *formats.begin() : "mixed-precision";
  }
}

TEST(Reference, RandomRecipes_GiveTheSameConfig) {
  const Json reference = RunPython("reference_recipes.py");
  ASSERT_TRUE(reference.is_object()) << "reference_recipes.py failed";
  int equal = 0;
  for (const Json& c : reference["cases"]) {
    const std::string text = c["recipe"];
    const absl::StatusOr<Json> config =
        ConfigOf(text, ModulesOf(reference["models"][c["model"].get<std::string>()]));
    if (!c["accepted"].get<bool>()) {
      // `static` and `weight` are one order, so llmc sees no contradiction there.
      const std::string error = c["error"];
      const bool same_order = absl::StrContains(error, "(static, weight)") ||
                              absl::StrContains(error, "(weight, static)");
      EXPECT_TRUE(same_order || !config.ok()) << text << error;
      continue;
    }
    if (c["config"].is_null()) {
      EXPECT_TRUE(absl::StrContains(config.status().message(), "quantises no module")) << text;
      continue;
    }
    ASSERT_TRUE(config.ok()) << config.status() << "\n" << text;
    Json expected = c["config"];
    PackOnPurpose(expected);
    for (const auto& [key, value] : expected.items()) {
      if (key == "quantization_status") continue;
      EXPECT_EQ((*config)[key], value) << text << key << Json::diff(value, (*config)[key]).dump(1);
    }
    ++equal;
  }
  EXPECT_GT(equal, 50);
}

}  // namespace
}  // namespace llmc
