// Typed, range-checked reads of a JSON object whose author is not trusted.
#ifndef LLMC_ARCHITECTURE_CONFIG_FIELDS_H_
#define LLMC_ARCHITECTURE_CONFIG_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "llmc/status.h"
#include "nlohmann/json.hpp"

namespace llmc {

// Reads fields of one object and keeps the first error, so that a caller reads
// everything and asks once. After an error every read gives its default.
class ConfigFields {
 public:
  // `object` outlives this. `where` begins every message ("config.json").
  ConfigFields(const nlohmann::json& object, std::string where);

  // True when the field is there and not null.
  bool Has(const char* field) const;

  // The field, in [min, max]; error when absent.
  int64_t RequiredInt(const char* field, int64_t min, int64_t max);
  // The field, or `absent` when it is missing or null.
  int64_t Int(const char* field, int64_t absent, int64_t min, int64_t max);
  // A finite number > 0 (and >= min).
  double Positive(const char* field, double absent, double min = 0.0);
  std::optional<double> OptionalPositive(const char* field);
  // A finite number >= 0, where 0 means the same as no field.
  std::optional<double> PositiveOrZero(const char* field);
  bool Bool(const char* field, bool absent);
  std::string String(const char* field, const std::string& absent);
  // Exactly `size` numbers > 0; error when absent.
  std::vector<double> RequiredPositives(const char* field, int64_t size);

  // Notes an error about `field` unless there is one already.
  void Fail(absl::string_view field, absl::string_view what);
  void Fail(absl::Status status);
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* field) const;

  const nlohmann::json& object_;
  const std::string where_;
  absl::Status status_;
};

}  // namespace llmc

#endif  // LLMC_ARCHITECTURE_CONFIG_FIELDS_H_
