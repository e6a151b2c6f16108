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

namespace llmc::dataset {

class Value;
using Entry = std::pair<Value, Value>;

struct CallArguments;
using Callable = std::function<absl::StatusOr<Value>(const CallArguments&)>;

// What a sequence was in Python. Generators (the result of `map`, `select`, ...) have
// no length and are always true.
enum class ListKind : uint8_t { kList, kTuple, kGenerator };

// The attributes of {{ namespace() }}: the one thing a template may change.
struct Namespace;

// Immutable and cheap to copy (containers are shared). Dicts keep insertion order.
class Value {
 public:
  struct None {};
  // What a name without a value gives; prints as nothing, most uses of it fail.
  struct Undefined {
    std::shared_ptr<const std::string> name;
  };
  struct List {
    std::shared_ptr<const std::vector<Value>> items;
    ListKind kind = ListKind::kList;
    int depth = 1;
    int64_t cost = 1;
  };
  struct Dict {
    std::shared_ptr<const std::vector<Entry>> entries;
    int depth = 1;
    int64_t cost = 1;
  };
  struct Function {
    std::string name;
    Callable call;
    int depth = 0;
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
  static Value MakeList(std::vector<Value> items, ListKind kind = ListKind::kList);
  // A later key replaces the value of an equal earlier one, in its place.
  static Value MakeDict(std::vector<Entry> entries);
  static Value MakeUndefined(absl::string_view name);
  // `depth` is that of a value the call holds on to.
  static Value MakeFunction(absl::string_view name, Callable call, int depth = 0);

  bool is_none() const { return std::holds_alternative<None>(content_); }
  bool is_undefined() const { return std::holds_alternative<Undefined>(content_); }
  bool is_bool() const { return std::holds_alternative<bool>(content_); }
  bool is_int() const { return std::holds_alternative<int64_t>(content_); }
  bool is_float() const { return std::holds_alternative<double>(content_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return std::holds_alternative<Text>(content_); }
  bool is_list() const { return std::holds_alternative<List>(content_); }
  bool is_tuple() const { return is_list() && list_kind() == ListKind::kTuple; }
  bool is_generator() const { return is_list() && list_kind() == ListKind::kGenerator; }
  bool is_dict() const { return std::holds_alternative<Dict>(content_); }
  bool is_function() const { return std::holds_alternative<FunctionPointer>(content_); }
  bool is_namespace() const { return std::holds_alternative<std::shared_ptr<Namespace>>(content_); }

  // Each needs the matching is_*().
  bool boolean() const { return std::get<bool>(content_); }
  double floating() const { return std::get<double>(content_); }
  const std::string& string() const { return *std::get<Text>(content_); }
  const std::vector<Value>& items() const { return *std::get<List>(content_).items; }
  ListKind list_kind() const { return std::get<List>(content_).kind; }
  const std::vector<Entry>& entries() const { return *std::get<Dict>(content_).entries; }
  const Function& function() const { return *std::get<FunctionPointer>(content_); }
  Namespace& name_space() const { return *std::get<std::shared_ptr<Namespace>>(content_); }
  const std::string& undefined_name() const { return *std::get<Undefined>(content_).name; }

  // Bool or int as an integer; bool, int or float as a double.
  int64_t integer() const;
  double number() const;

  // The value at a string key, or null when this is no dict or has no such key.
  const Value* Find(absl::string_view key) const;

  // Python's bool(x).
  bool truthy() const;

  // "string", "list", "dict", ...: for messages.
  absl::string_view type_name() const;

  // Levels of lists and dicts inside: 0 for a scalar. Copying, comparing, printing and
  // freeing a value recurse this deep, so makers of values bound it.
  int depth() const;

  // What comparing this value with another may cost, in steps of some nanoseconds;
  // known without walking it, as shared parts can make a small value look huge.
  int64_t compare_cost() const;

  // Bytes of this value as a tree. Only for values without shared parts (rows).
  int64_t ByteSize() const;

 private:
  using Text = std::shared_ptr<const std::string>;
  using FunctionPointer = std::shared_ptr<const Function>;
  std::variant<None, Undefined, bool, int64_t, double, Text, List, Dict, FunctionPointer,
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

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_VALUE_H_
