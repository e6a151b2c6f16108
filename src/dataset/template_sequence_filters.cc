#include "dataset/template_sequence_filters.h"

#include <algorithm>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataset/python_text.h"
#include "dataset/template_arguments.h"

namespace llmc::dataset {
namespace {

absl::StatusOr<Value> MadeList(std::vector<Value> items, Meter* meter,
                               ListKind kind = ListKind::kList) {
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(items.size() * sizeof(Value))));
  return Value::MakeList(std::move(items), kind);
}

// "a.b.0" of an item, or the item itself without an attribute.
absl::StatusOr<Value> Lookup(Value item, const Value* attribute, Meter* meter) {
  if (attribute == nullptr || attribute->is_none()) return item;
  if (attribute->is_int()) return GetItem(item, *attribute, meter);
  if (!attribute->is_string()) return absl::InvalidArgumentError("attribute: expected text");
  for (absl::string_view part : absl::StrSplit(attribute->string(), '.')) {
    int64_t index = 0;
    const bool is_index = absl::SimpleAtoi(part, &index) && part[0] != '-' && part[0] != '+';
    LLMC_ASSIGN_OR_RETURN(item, GetItem(item, is_index ? Value(index) : Value(part), meter));
  }
  return item;
}

// Text without its case, as sort, unique and the like compare by default.
absl::StatusOr<Value> Key(const Value& item, const Value* attribute, bool case_sensitive,
                          Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(Value key, Lookup(item, attribute, meter));
  if (case_sensitive || !key.is_string()) return key;
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(key.string().size())));
  return Value(Lower(key.string()));
}

struct Keyed {
  Value key;
  Value item;
};

// Stable, by comparisons that may fail; n log n of them.
absl::Status SortByKey(std::vector<Keyed>* items, bool reverse, Meter* meter) {
  absl::Status status;
  const auto less = [&](const Keyed& a, const Keyed& b) {
    if (!status.ok()) return false;
    const auto result =
        Compare(Operator::kLess, reverse ? b.key : a.key, reverse ? a.key : b.key, meter);
    if (!result.ok()) status = result.status();
    return result.ok() && *result;
  };
  std::stable_sort(items->begin(), items->end(), less);
  return status;
}

absl::StatusOr<Value> SortItems(const std::vector<Value>& items, const std::vector<Value>& keys,
                                bool reverse, Meter* meter) {
  std::vector<Keyed> keyed;
  for (size_t i = 0; i < items.size(); ++i) keyed.push_back({keys[i], items[i]});
  LLMC_RETURN_IF_ERROR(SortByKey(&keyed, reverse, meter));
  std::vector<Value> sorted;
  for (Keyed& entry : keyed) sorted.push_back(std::move(entry.item));
  return MadeList(std::move(sorted), meter);
}

absl::StatusOr<Value> Sort(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  LLMC_ASSIGN_OR_RETURN(const bool reverse, BoolArgument(arguments, 0, "reverse", false));
  LLMC_ASSIGN_OR_RETURN(const bool exact, BoolArgument(arguments, 1, "case_sensitive", false));
  std::vector<Value> keys;
  for (const Value& item : items) {
    LLMC_ASSIGN_OR_RETURN(Value key, Key(item, arguments.Get(2, "attribute"), exact, meter));
    keys.push_back(std::move(key));
  }
  return SortItems(items, keys, reverse, meter);
}

absl::StatusOr<Value> DictSort(const Value& value, const CallArguments& arguments, Meter* meter) {
  if (!value.is_dict()) return absl::InvalidArgumentError("dictsort: expected a dict");
  LLMC_ASSIGN_OR_RETURN(const bool exact, BoolArgument(arguments, 0, "case_sensitive", false));
  LLMC_ASSIGN_OR_RETURN(const std::string by, TextArgument(arguments, 1, "by", "key"));
  LLMC_ASSIGN_OR_RETURN(const bool reverse, BoolArgument(arguments, 2, "reverse", false));
  if (by != "key" && by != "value") {
    return absl::InvalidArgumentError("dictsort: expected by to be key or value");
  }
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const Entry& entry : value.entries()) {
    items.push_back(Value::MakeList({entry.first, entry.second}, ListKind::kTuple));
    LLMC_ASSIGN_OR_RETURN(Value key,
                          Key(by == "key" ? entry.first : entry.second, nullptr, exact, meter));
    keys.push_back(std::move(key));
  }
  return SortItems(items, keys, reverse, meter);
}

absl::StatusOr<Value> Unique(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  LLMC_ASSIGN_OR_RETURN(const bool exact, BoolArgument(arguments, 0, "case_sensitive", false));
  std::vector<Value> unique;
  std::vector<Value> keys;
  for (const Value& item : items) {
    LLMC_ASSIGN_OR_RETURN(Value key, Key(item, arguments.Get(1, "attribute"), exact, meter));
    LLMC_ASSIGN_OR_RETURN(const bool seen,
                          Compare(Operator::kIn, key, Value::MakeList(keys), meter));
    if (seen) continue;
    LLMC_RETURN_IF_ERROR(meter->Steps(static_cast<int64_t>(keys.size())));
    keys.push_back(std::move(key));
    unique.push_back(item);
  }
  return MadeList(std::move(unique), meter, ListKind::kGenerator);
}

absl::StatusOr<Value> Extreme(const Value& value, const CallArguments& arguments, Operator op,
                              Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  LLMC_ASSIGN_OR_RETURN(const bool exact, BoolArgument(arguments, 0, "case_sensitive", false));
  std::optional<Keyed> best;
  for (const Value& item : items) {
    LLMC_ASSIGN_OR_RETURN(Value key, Key(item, arguments.Get(1, "attribute"), exact, meter));
    bool better = true;
    if (best) {
      LLMC_ASSIGN_OR_RETURN(better, Compare(op, key, best->key, meter));
    }
    if (better) best = Keyed{std::move(key), item};
  }
  return best ? best->item : Value::MakeUndefined("item of an empty sequence");
}

absl::StatusOr<Value> Sum(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  const Value* start = arguments.Get(1, "start");
  Value sum = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : items) {
    LLMC_ASSIGN_OR_RETURN(const Value part, Lookup(item, arguments.Get(0, "attribute"), meter));
    LLMC_ASSIGN_OR_RETURN(sum, Arithmetic(Operator::kAdd, sum, part, meter));
  }
  return sum;
}

absl::StatusOr<Value> Join(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  std::string separator;
  if (const Value* given = arguments.Get(0, "d"); given != nullptr) {
    LLMC_ASSIGN_OR_RETURN(separator, ToText(*given, meter));
  }
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(const Value item, Lookup(items[i], arguments.Get(1, "attribute"), meter));
    LLMC_ASSIGN_OR_RETURN(const std::string text, ToText(item, meter));
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(separator.size())));
    if (i > 0) out += separator;
    out += text;
  }
  return Value(std::move(out));
}

// Arguments for a filter or test named in another's arguments.
CallArguments Rest(const CallArguments& arguments, size_t skip) {
  CallArguments rest;
  rest.named = arguments.named;
  if (arguments.positional.size() > skip) {
    rest.positional.assign(arguments.positional.begin() + static_cast<int64_t>(skip),
                           arguments.positional.end());
  }
  return rest;
}

absl::StatusOr<Value> MapAttribute(const Value& item, const CallArguments& arguments,
                                   Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(Value found, Lookup(item, arguments.Get(SIZE_MAX, "attribute"), meter));
  const Value* fallback = arguments.Get(SIZE_MAX, "default");
  return found.is_undefined() && fallback != nullptr ? *fallback : found;
}

absl::StatusOr<Value> Map(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  const bool by_attribute = arguments.positional.empty();
  std::string filter;
  if (by_attribute) {
    if (arguments.Get(SIZE_MAX, "attribute") == nullptr) {
      return absl::InvalidArgumentError("map: expected a filter or attribute=");
    }
  } else {
    LLMC_ASSIGN_OR_RETURN(filter, RequiredText(arguments, 0, "filter"));
  }
  const CallArguments rest = Rest(arguments, 1);
  std::vector<Value> mapped;
  for (const Value& item : items) {
    auto result = by_attribute ? MapAttribute(item, arguments, meter)
                               : ApplyFilter(filter, item, rest, meter);
    if (!result.ok()) return result.status();
    mapped.push_back(*std::move(result));
  }
  return MadeList(std::move(mapped), meter, ListKind::kGenerator);
}

struct Selection {
  bool by_attribute;
  bool keep;  // What the test must give for an item to stay.
};

absl::StatusOr<Value> SelectItems(const Value& value, const CallArguments& arguments,
                                  Selection selection, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  const size_t test_at = selection.by_attribute ? 1 : 0;
  if (arguments.positional.size() < test_at) {
    return absl::InvalidArgumentError("selectattr, rejectattr: expected an attribute");
  }
  std::string test;
  if (arguments.positional.size() > test_at) {
    LLMC_ASSIGN_OR_RETURN(test, RequiredText(arguments, test_at, "test"));
  }
  const CallArguments rest = Rest(arguments, test_at + 1);
  std::vector<Value> selected;
  for (const Value& item : items) {
    const Value* attribute = selection.by_attribute ? &arguments.positional[0] : nullptr;
    LLMC_ASSIGN_OR_RETURN(const Value tested, Lookup(item, attribute, meter));
    bool holds = tested.truthy();
    if (!test.empty()) {
      LLMC_ASSIGN_OR_RETURN(holds, ApplyTest(test, tested, rest, meter));
    }
    if (holds == selection.keep) selected.push_back(item);
  }
  return MadeList(std::move(selected), meter, ListKind::kGenerator);
}

absl::StatusOr<Value> Batch(const Value& value, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  LLMC_ASSIGN_OR_RETURN(const int64_t size, IntegerArgument(arguments, 0, "linecount", 0));
  if (size < 1) return absl::InvalidArgumentError("batch: expected a size of at least 1");
  const Value* fill = arguments.Get(1, "fill_with");
  std::vector<Value> batches;
  for (size_t start = 0; start < items.size(); start += static_cast<size_t>(size)) {
    const size_t end = std::min(items.size() - start, static_cast<size_t>(size)) + start;
    std::vector<Value> batch(items.begin() + static_cast<int64_t>(start),
                             items.begin() + static_cast<int64_t>(end));
    if (fill != nullptr && !fill->is_none()) {
      LLMC_RETURN_IF_ERROR(meter->Bytes(std::min<int64_t>(size, INT64_MAX / 64) * 32));
      batch.resize(static_cast<size_t>(size), *fill);
    }
    LLMC_ASSIGN_OR_RETURN(Value made, MadeList(std::move(batch), meter));
    batches.push_back(std::move(made));
  }
  return MadeList(std::move(batches), meter, ListKind::kGenerator);
}

absl::StatusOr<Value> Reverse(const Value& value, const CallArguments&, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, meter));
  std::reverse(items.begin(), items.end());
  if (!value.is_string()) return MadeList(std::move(items), meter, ListKind::kGenerator);
  std::string text;
  for (const Value& item : items) text += item.string();
  return Value(std::move(text));
}

absl::StatusOr<Value> Ends(const Value& value, const CallArguments&, bool last, Meter* meter) {
  // A text is not taken apart for one of its letters.
  if (value.is_string() && !value.string().empty()) {
    return GetItem(value, Value(int64_t{last ? -1 : 0}), meter);
  }
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, meter));
  if (items.empty()) return Value::MakeUndefined("item of an empty sequence");
  return last ? items.back() : items.front();
}

absl::StatusOr<Value> ItemPairs(const Value& value, const CallArguments& arguments, Meter* meter) {
  if (value.is_undefined()) return Value::MakeList({}, ListKind::kGenerator);
  if (!value.is_dict()) return absl::InvalidArgumentError("items: expected a dict");
  return FindMethod(value, "items", meter).function().call(arguments);
}

absl::StatusOr<Value> ToList(const Value& value, const CallArguments&, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, meter));
  return Value::MakeList(std::move(items));
}

absl::StatusOr<Value> LengthFilter(const Value& value, const CallArguments&, Meter*) {
  LLMC_ASSIGN_OR_RETURN(const int64_t length, Length(value));
  return Value(length);
}

}  // namespace

const FilterTable& SequenceFilters() {
  static const FilterTable kTable = {
      {"batch", Batch},
      {"count", LengthFilter},
      {"dictsort", DictSort},
      {"first", FixFilter(Ends, false)},
      {"items", ItemPairs},
      {"join", Join},
      {"last", FixFilter(Ends, true)},
      {"length", LengthFilter},
      {"list", ToList},
      {"map", Map},
      {"max", FixFilter(Extreme, Operator::kGreater)},
      {"min", FixFilter(Extreme, Operator::kLess)},
      {"reject", FixFilter(SelectItems, Selection{false, false})},
      {"rejectattr", FixFilter(SelectItems, Selection{true, false})},
      {"reverse", Reverse},
      {"select", FixFilter(SelectItems, Selection{false, true})},
      {"selectattr", FixFilter(SelectItems, Selection{true, true})},
      {"sort", Sort},
      {"sum", Sum},
      {"unique", Unique},
  };
  return kTable;
}

}  // namespace llmc::dataset
