// YAML text in the layout of the reference's recipe.yaml.
#ifndef LLMC_RECIPE_YAML_TEXT_H_
#define LLMC_RECIPE_YAML_TEXT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace llmc {

// Maps and lists whose values are all scalars on one line (`{a: 1}`, `[a, b]`, broken
// after column 88), others as blocks; strings quoted only where YAML 1.1 needs it.
std::string YamlText(const nlohmann::ordered_json& tree);

}  // namespace llmc

#endif  // LLMC_RECIPE_YAML_TEXT_H_
