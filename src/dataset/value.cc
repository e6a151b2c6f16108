#include "dataset/value.h"

#include <algorithm>
#include <unordered_map>

namespace llmc::dataset {
namespace {

constexpr int64_t kMaxCost = int64_t{1} << 40;

bool ItemsEqual(const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equal(a[i], b[i])) return false;
  }
  return true;
}

bool EntriesEqual(const Value& a, const Value& b) {
  if (a.entries().size() != b.entries().size()) return false;
  for (const Entry& entry : a.entries()) {
    const auto other =
        std::find_if(b.entries().begin(), b.entries().end(),
                     [&](const Entry& candidate) { return Equal(candidate.first, entry.first); });
    if (other == b.entries().end() || !Equal(entry.second, other->second)) return false;
  }
  return true;
}

// Where each string key was first seen; other keys are compared one by one.
class KeyIndex {
 public:
  // The earlier position of `key` in `entries`, or entries.size().
  size_t Find(const std::vector<Entry>& entries, const Value& key) const {
    if (key.is_string()) {
      const auto found = strings_.find(key.string());
      return found == strings_.end() ? entries.size() : found->second;
    }
    for (size_t i = 0; i < entries.size(); ++i) {
      if (Equal(entries[i].first, key)) return i;
    }
    return entries.size();
  }
  void Add(const Value& key, size_t position) {
    if (key.is_string()) strings_.emplace(key.string(), position);
  }

 private:
  std::unordered_map<std::string, size_t> strings_;
};

}  // namespace

Value Value::MakeList(std::vector<Value> items, ListKind kind) {
  int depth = 0;
  int64_t cost = 1;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth());
    cost = std::min(cost + item.compare_cost(), kMaxCost);
  }
  Value value;
  value.content_ =
      List{std::make_shared<const std::vector<Value>>(std::move(items)), kind, depth + 1, cost};
  return value;
}

Value Value::MakeDict(std::vector<Entry> entries) {
  std::vector<Entry> unique;
  unique.reserve(entries.size());
  KeyIndex index;
  int depth = 0;
  const auto count = static_cast<int64_t>(entries.size());
  int64_t cost = 1 + count * count / 64;
  for (Entry& entry : entries) {
    depth = std::max({depth, entry.first.depth(), entry.second.depth()});
    cost += entry.first.compare_cost() + entry.second.compare_cost();
    cost = std::min(cost, kMaxCost);
    const size_t position = index.Find(unique, entry.first);
    if (position < unique.size()) {
      unique[position].second = std::move(entry.second);
      continue;
    }
    index.Add(entry.first, unique.size());
    unique.push_back(std::move(entry));
  }
  Value value;
  value.content_ =
      Dict{std::make_shared<const std::vector<Entry>>(std::move(unique)), depth + 1, cost};
  return value;
}

Value Value::MakeUndefined(absl::string_view name) {
  Value value;
  value.content_ = Undefined{std::make_shared<const std::string>(name)};
  return value;
}

Value Value::MakeFunction(absl::string_view name, Callable call, int depth) {
  Value value;
  value.content_ =
      std::make_shared<const Function>(Function{std::string(name), std::move(call), depth + 1});
  return value;
}

int Value::depth() const {
  if (is_list()) return std::get<List>(content_).depth;
  if (is_dict()) return std::get<Dict>(content_).depth;
  return is_function() ? function().depth : 0;
}

int64_t Value::compare_cost() const {
  if (is_string()) return static_cast<int64_t>(string().size() / 64) + 1;
  if (is_list()) return std::get<List>(content_).cost;
  return is_dict() ? std::get<Dict>(content_).cost : 1;
}

int64_t Value::integer() const { return is_bool() ? boolean() : std::get<int64_t>(content_); }

double Value::number() const { return is_float() ? floating() : static_cast<double>(integer()); }

const Value* Value::Find(absl::string_view key) const {
  if (!is_dict()) return nullptr;
  for (const Entry& entry : entries()) {
    if (entry.first.is_string() && entry.first.string() == key) return &entry.second;
  }
  return nullptr;
}

bool Value::truthy() const {
  if (is_none() || is_undefined()) return false;
  if (is_bool()) return boolean();
  if (is_int()) return integer() != 0;
  if (is_float()) return floating() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return is_generator() || !items().empty();
  if (is_dict()) return !entries().empty();
  return true;
}

absl::string_view Value::type_name() const {
  if (is_none()) return "none";
  if (is_undefined()) return "undefined";
  if (is_bool()) return "boolean";
  if (is_int()) return "integer";
  if (is_float()) return "float";
  if (is_string()) return "string";
  if (is_list()) return is_tuple() ? "tuple" : is_generator() ? "generator" : "list";
  if (is_dict()) return "dict";
  return is_function() ? "function" : "namespace";
}

int64_t Value::ByteSize() const {
  int64_t bytes = sizeof(Value);
  if (is_string()) bytes += static_cast<int64_t>(string().size());
  if (is_list()) {
    for (const Value& item : items()) bytes += item.ByteSize();
  }
  if (is_dict()) {
    for (const Entry& entry : entries()) bytes += entry.first.ByteSize() + entry.second.ByteSize();
  }
  return bytes;
}

const Value* CallArguments::Get(size_t position, absl::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& argument : named) {
    if (argument.first == name) return &argument.second;
  }
  return nullptr;
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return a.number() == b.number();
    return a.integer() == b.integer();
  }
  if (a.is_string() && b.is_string()) return a.string() == b.string();
  if (a.is_none() || a.is_undefined()) {
    return a.is_none() ? b.is_none() : b.is_undefined();
  }
  if (a.is_list() && b.is_list()) {
    return a.list_kind() == b.list_kind() && ItemsEqual(a.items(), b.items());
  }
  if (a.is_dict() && b.is_dict()) return EntriesEqual(a, b);
  if (a.is_namespace() && b.is_namespace()) return &a.name_space() == &b.name_space();
  return a.is_function() && b.is_function() && &a.function() == &b.function();
}

}  // namespace llmc::dataset
