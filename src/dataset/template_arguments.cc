#include "dataset/template_arguments.h"

#include "absl/strings/str_cat.h"

namespace llmc::dataset {
namespace {

absl::Status WrongType(absl::string_view name, const Value& value, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("argument ", name, " is ", value.type_name(), ", expected ", expected));
}

}  // namespace

absl::StatusOr<int64_t> IntegerArgument(const CallArguments& arguments, size_t position,
                                        absl::string_view name, int64_t fallback) {
  const Value* value = arguments.Get(position, name);
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_int() && !value->is_bool()) return WrongType(name, *value, "an integer");
  return value->integer();
}

absl::StatusOr<bool> BoolArgument(const CallArguments& arguments, size_t position,
                                  absl::string_view name, bool fallback) {
  const Value* value = arguments.Get(position, name);
  return value == nullptr ? fallback : value->truthy();
}

absl::StatusOr<std::string> TextArgument(const CallArguments& arguments, size_t position,
                                         absl::string_view name, absl::string_view fallback) {
  const Value* value = arguments.Get(position, name);
  if (value == nullptr || value->is_none()) return std::string(fallback);
  if (!value->is_string()) return WrongType(name, *value, "text");
  return value->string();
}

absl::StatusOr<std::string> RequiredText(const CallArguments& arguments, size_t position,
                                         absl::string_view name) {
  const Value* value = arguments.Get(position, name);
  if (value == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("argument ", name, " is missing"));
  }
  if (!value->is_string()) return WrongType(name, *value, "text");
  return value->string();
}

}  // namespace llmc::dataset
