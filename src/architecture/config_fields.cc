#include "architecture/config_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace llmc {

ConfigFields::ConfigFields(const nlohmann::json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(where_, ": a JSON ", object_.type_name(), ", expected an object"));
  }
}

const nlohmann::json* ConfigFields::Find(const char* field) const {
  if (!status_.ok()) return nullptr;
  const auto it = object_.find(field);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigFields::Has(const char* field) const { return Find(field) != nullptr; }

void ConfigFields::Fail(absl::string_view field, absl::string_view what) {
  Fail(absl::InvalidArgumentError(absl::StrCat(where_, ": ", field, ": ", what)));
}

void ConfigFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

int64_t ConfigFields::RequiredInt(const char* field, int64_t min, int64_t max) {
  if (!Has(field)) {
    Fail(field, "missing, expected a whole number");
    return min;
  }
  return Int(field, min, min, max);
}

int64_t ConfigFields::Int(const char* field, int64_t absent, int64_t min, int64_t max) {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return absent;
  const bool in_range = value->is_number_unsigned()
                            ? value->get<uint64_t>() <= static_cast<uint64_t>(max) &&
                                  static_cast<int64_t>(value->get<uint64_t>()) >= min
                            : value->is_number_integer() && value->get<int64_t>() >= min &&
                                  value->get<int64_t>() <= max;
  if (in_range) return value->get<int64_t>();
  Fail(field, absl::StrCat(value->dump().substr(0, 40), ", expected a whole number from ", min,
                           " to ", max));
  return absent;
}

double ConfigFields::Positive(const char* field, double absent, double min) {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return absent;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (std::isfinite(number) && number > 0.0 && number >= min) return number;
  }
  Fail(field, absl::StrCat(value->dump().substr(0, 40), ", expected a number ",
                           min > 0.0 ? absl::StrCat(">= ", min) : std::string("> 0")));
  return absent;
}

std::optional<double> ConfigFields::OptionalPositive(const char* field) {
  if (!Has(field)) return std::nullopt;
  return Positive(field, 1.0);
}

std::optional<double> ConfigFields::PositiveOrZero(const char* field) {
  const nlohmann::json* value = Find(field);
  if (value != nullptr && value->is_number() && value->get<double>() == 0.0) return std::nullopt;
  return OptionalPositive(field);
}

bool ConfigFields::Bool(const char* field, bool absent) {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return absent;
  if (value->is_boolean()) return value->get<bool>();
  Fail(field, absl::StrCat(value->dump().substr(0, 40), ", expected true or false"));
  return absent;
}

std::string ConfigFields::String(const char* field, const std::string& absent) {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return absent;
  if (value->is_string()) return value->get<std::string>();
  Fail(field, absl::StrCat(value->dump().substr(0, 40), ", expected a text"));
  return absent;
}

std::vector<double> ConfigFields::RequiredPositives(const char* field, int64_t size) {
  const nlohmann::json* value = Find(field);
  std::vector<double> numbers;
  if (value != nullptr && value->is_array() && static_cast<int64_t>(value->size()) == size) {
    for (const nlohmann::json& item : *value) {
      if (!item.is_number() || !(item.get<double>() > 0.0)) break;
      numbers.push_back(item.get<double>());
    }
  }
  if (static_cast<int64_t>(numbers.size()) != size) {
    Fail(field, absl::StrCat("expected a list of ", size, " positive numbers"));
    numbers.clear();
  }
  return numbers;
}

}  // namespace llmc
