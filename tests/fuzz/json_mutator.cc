#include "json_mutator.h"

#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* text, size_t size, size_t max_size);

namespace llmc::fuzz {
namespace {

using nlohmann::json;
using Random = std::minstd_rand;

void Collect(json& value, std::vector<json*>* found) {
  found->push_back(&value);
  if (!value.is_structured()) return;
  for (json& child : value) Collect(child, found);
}

json Interesting(Random& random) {
  static const json kValues[] = {nullptr,
                                 true,
                                 false,
                                 0,
                                 1,
                                 -1,
                                 2,
                                 3,
                                 128,
                                 65536,
                                 std::numeric_limits<int64_t>::max(),
                                 std::numeric_limits<int64_t>::min(),
                                 std::numeric_limits<uint64_t>::max(),
                                 0.5,
                                 -0.0,
                                 1e308,
                                 1e-308,
                                 "",
                                 "a",
                                 "re:.*",
                                 json::array(),
                                 json::object()};
  return kValues[random() % std::size(kValues)];
}

std::string MutatedText(std::string text) {
  const size_t size = text.size();
  text.resize(size + 16);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, text.size()));
  return text;
}

void ChangeArray(json& array, const json& other, Random& random) {
  const size_t at = random() % (array.size() + 1);
  if (random() % 2 == 0 || at == array.size()) {
    array.insert(array.begin() + static_cast<std::ptrdiff_t>(at), other);
  } else {
    array.erase(at);
  }
}

void ChangeObject(json& object, const json& other, Random& random) {
  if (object.empty()) {
    object["a"] = other;
    return;
  }
  auto at = object.begin();
  std::advance(at, random() % object.size());
  const std::string key = at.key();
  const json value = at.value();
  if (random() % 2 == 0) object.erase(at);
  if (random() % 2 == 0) object[MutatedText(key)] = value;
}

void ChangeOne(json& root, Random& random) {
  std::vector<json*> values;
  Collect(root, &values);
  json& target = *values[random() % values.size()];
  const json other = *values[random() % values.size()];
  switch (random() % 4) {
    case 0:
      target = Interesting(random);
      return;
    case 1:
      target = other;
      return;
    default:
      break;
  }
  if (target.is_array()) return ChangeArray(target, other, random);
  if (target.is_object()) return ChangeObject(target, other, random);
  if (target.is_string()) {
    target = MutatedText(target.get<std::string>());
  } else if (target.is_number_integer()) {
    target = target.get<int64_t>() ^ (int64_t{1} << (random() % 40));
  } else if (target.is_number_float()) {
    target = -target.get<double>() * 2;
  }
}

}  // namespace

size_t MutateJson(uint8_t* text, size_t size, size_t max_size, unsigned int seed) {
  json root = json::parse(text, text + size, nullptr, false);
  if (root.is_discarded()) return 0;
  Random random(seed);
  ChangeOne(root, random);
  const std::string result = root.dump(-1, ' ', false, json::error_handler_t::replace);
  if (result.empty() || result.size() > max_size) return 0;
  std::memcpy(text, result.data(), result.size());
  return result.size();
}

}  // namespace llmc::fuzz
