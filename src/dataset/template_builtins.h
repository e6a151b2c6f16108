// What templates can call: filters, tests and methods, by Python's and Jinja's names.
#ifndef LLMC_DATASET_TEMPLATE_BUILTINS_H_
#define LLMC_DATASET_TEMPLATE_BUILTINS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataset/chat_template.h"
#include "dataset/template_ast.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// Counts what a rendering uses. Every operation pays before it allocates.
class Meter {
 public:
  explicit Meter(const TemplateLimits& limits) : limits_(limits) {}

  const TemplateLimits& limits() const { return limits_; }

  // kResourceExhausted once the template has used up its steps or bytes.
  absl::Status Steps(int64_t count);
  absl::Status Bytes(int64_t count);
  // One walk over a string's bytes, or over the items of a list or dict.
  absl::Status Touch(const Value& value);

 private:
  TemplateLimits limits_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
};

bool IsTemplateFilter(absl::string_view name);
bool IsTemplateTest(absl::string_view name);

// `value | name(arguments)`, `value is name(arguments)`. kInvalidArgument when the
// value or an argument does not fit.
absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const CallArguments& arguments, Meter* meter);
absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& value,
                               const CallArguments& arguments, Meter* meter);

// The method of a string, list or dict as a function bound to it; undefined when
// there is none. `meter` outlives the function.
Value FindMethod(const Value& object, absl::string_view name, Meter* meter);

// str(value) and repr(value).
absl::StatusOr<std::string> ToText(const Value& value, Meter* meter);
absl::StatusOr<std::string> ToRepr(const Value& value, Meter* meter);

// The items a loop over `value` sees: of a list, the keys of a dict, the code points
// of a string; none of undefined. kInvalidArgument for other types.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Meter* meter);

// len(value). kInvalidArgument for types without a length.
absl::StatusOr<int64_t> Length(const Value& value);

// Jinja's object.name and object[key]: undefined when absent.
absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name, Meter* meter);
absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Meter* meter);

// Arithmetic, comparison and membership, as Python does them on these types.
absl::StatusOr<Value> Arithmetic(Operator op, const Value& a, const Value& b, Meter* meter);
absl::StatusOr<bool> Compare(Operator op, const Value& a, const Value& b, Meter* meter);

// "'name' is undefined".
absl::Status UndefinedError(const Value& value);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_BUILTINS_H_
