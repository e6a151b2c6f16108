// One value as JSON rows carry it and chat templates compute with it: Python's
// None, bool, int, float, str, list, dict, plus what only templates have.
#ifndef LLMC_DATASET_VALUE_H_
#define LLMC_DATASET_VALUE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

class Value;
using Entry = std::pair<Value, Value>;

struct CallArguments;
using Callable = std::function<absl::StatusOr<Value>(const CallArguments&)>;

// The attributes of {{ namespace() }}: the one thing a template may change.
struct Namespace;

// Immutable and cheap to copy (containers are shared). Dicts keep insertion order.
class Value {
 public:
  struct None {};
  // What a name without a value gives; prints as nothing, any use of it fails.
  struct Undefined {
    std::string name;
  };
  struct List {
    std::shared_ptr<const std::vector<Value>> items;
    bool is_tuple = false;
  };
  struct Dict {
    std::shared_ptr<const std::vector<Entry>> entries;
  };
  struct Function {
    std::string name;
    std::shared_ptr<const Callable> call;
  };

  Value() : content_(None{}) {}
  explicit Value(bool value) : content_(value) {}
  explicit Value(int64_t value) : content_(value) {}
  explicit Value(double value) : content_(value) {}
  explicit Value(std::string value)
      : content_(std::make_shared<const std::string>(std::move(value))) {}
  explicit Value(absl::string_view value) : Value(std::string(value)) {}
  explicit Value(const char* value) : Value(std::string(value)) {}
  explicit Value(std::shared_ptr<Namespace> value) : content_(std::move(value)) {}
  static Value MakeList(std::vector<Value> items);
  static Value MakeTuple(std::vector<Value> items);
  // A later key replaces the value of an equal earlier one, in its place.
  static Value MakeDict(std::vector<Entry> entries);
  static Value MakeUndefined(absl::string_view name);
  static Value MakeFunction(absl::string_view name, Callable call);

  bool is_none() const { return std::holds_alternative<None>(content_); }
  bool is_undefined() const { return std::holds_alternative<Undefined>(content_); }
  bool is_bool() const { return std::holds_alternative<bool>(content_); }
  bool is_int() const { return std::holds_alternative<int64_t>(content_); }
  bool is_float() const { return std::holds_alternative<double>(content_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return std::holds_alternative<Text>(content_); }
  bool is_list() const { return std::holds_alternative<List>(content_); }
  bool is_tuple() const { return is_list() && std::get<List>(content_).is_tuple; }
  bool is_dict() const { return std::holds_alternative<Dict>(content_); }
  bool is_function() const { return std::holds_alternative<Function>(content_); }
  bool is_namespace() const { return std::holds_alternative<std::shared_ptr<Namespace>>(content_); }

  // Each needs the matching is_*().
  bool boolean() const { return std::get<bool>(content_); }
  double floating() const { return std::get<double>(content_); }
  const std::string& string() const { return *std::get<Text>(content_); }
  const std::vector<Value>& items() const { return *std::get<List>(content_).items; }
  const std::vector<Entry>& entries() const { return *std::get<Dict>(content_).entries; }
  const Function& function() const { return std::get<Function>(content_); }
  Namespace& name_space() const { return *std::get<std::shared_ptr<Namespace>>(content_); }
  const std::string& undefined_name() const { return std::get<Undefined>(content_).name; }

  // Bool or int as an integer; bool, int or float as a double.
  int64_t integer() const;
  double number() const;

  // The value at a string key, or null when this is no dict or has no such key.
  const Value* Find(absl::string_view key) const;

  // Python's bool(x).
  bool truthy() const;

  // "string", "list", "dict", ...: for messages.
  absl::string_view type_name() const;

  // Bytes this value keeps alive, roughly; shared parts are counted each time.
  int64_t ByteSize() const;

 private:
  using Text = std::shared_ptr<const std::string>;
  std::variant<None, Undefined, bool, int64_t, double, Text, List, Dict, Function,
               std::shared_ptr<Namespace>>
      content_;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `position` or called `name`, or null.
  const Value* Get(size_t position, absl::string_view name) const;
};

// Python's ==: numbers compare by value, containers by content.
bool Equal(const Value& a, const Value& b);

}  // namespace llmc

#endif  // LLMC_DATASET_VALUE_H_
