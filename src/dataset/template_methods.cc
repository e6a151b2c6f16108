// Methods of Python's str, list and dict.
#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"
#include "dataset/template_arguments.h"
#include "dataset/template_builtins.h"

namespace llmc::dataset {
namespace {

using Method = std::function<absl::StatusOr<Value>(const Value& self,
                                                   const CallArguments& arguments, Meter* meter)>;
using MethodTable = std::map<std::string, Method, std::less<>>;

absl::StatusOr<Value> Made(std::string text, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(text.size())));
  return Value(std::move(text));
}

absl::StatusOr<Value> MadeList(const std::vector<std::string>& texts, Meter* meter,
                               ListKind kind = ListKind::kList) {
  std::vector<Value> items;
  for (const std::string& text : texts) {
    LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(text.size() + sizeof(Value))));
    items.emplace_back(text);
  }
  return Value::MakeList(std::move(items), kind);
}

absl::StatusOr<Value> StripMethod(const Value& self, const CallArguments& arguments,
                                  StripSides sides, Meter* meter) {
  const Value* chars = arguments.Get(0, "chars");
  std::optional<absl::string_view> set;
  if (chars != nullptr && !chars->is_none()) {
    if (!chars->is_string()) return absl::InvalidArgumentError("strip: expected text");
    set = chars->string();
    LLMC_RETURN_IF_ERROR(meter->Steps(static_cast<int64_t>(set->size())));
  }
  return Made(std::string(Strip(self.string(), sides, set)), meter);
}

// Bytes of the parts that splitting may give at most.
int64_t SplitBytes(absl::string_view text, const SplitOptions& options) {
  constexpr int64_t kPartBytes = sizeof(std::string) + sizeof(Value);
  const auto size = static_cast<int64_t>(text.size());
  int64_t parts = size / 2 + 1;
  if (options.separator) {
    parts = 1;
    absl::string_view left = text;
    for (size_t at = FindText(left, *options.separator); at != absl::string_view::npos;
         at = FindText(left, *options.separator)) {
      ++parts;
      left.remove_prefix(at + options.separator->size());
    }
  }
  if (options.max_split >= 0) parts = std::min(parts, options.max_split) + 1;
  return size + parts * kPartBytes;
}

absl::StatusOr<Value> SplitMethod(const Value& self, const CallArguments& arguments,
                                  bool from_right, Meter* meter) {
  const Value* separator = arguments.Get(0, "sep");
  SplitOptions options;
  options.from_right = from_right;
  LLMC_ASSIGN_OR_RETURN(options.max_split, IntegerArgument(arguments, 1, "maxsplit", -1));
  if (separator != nullptr && !separator->is_none()) {
    if (!separator->is_string() || separator->string().empty()) {
      return absl::InvalidArgumentError("split: expected a separator that is text, not empty");
    }
    options.separator = separator->string();
    // rfind has no linear form in the C library.
    const auto kilobytes = static_cast<int64_t>(self.string().size() / 1024);
    const auto length = static_cast<int64_t>(separator->string().size());
    if (from_right) LLMC_RETURN_IF_ERROR(meter->Steps(kilobytes * length));
  }
  LLMC_RETURN_IF_ERROR(meter->Bytes(SplitBytes(self.string(), options)));
  return MadeList(Split(self.string(), options), meter);
}

absl::StatusOr<bool> MatchesAny(const Value& self, const CallArguments& arguments,
                                bool (*matches)(absl::string_view, absl::string_view)) {
  if (arguments.positional.size() != 1) {
    return absl::InvalidArgumentError("startswith, endswith: expected one argument");
  }
  const Value& argument = arguments.positional[0];
  if (argument.is_string()) return matches(self.string(), argument.string());
  if (!argument.is_tuple()) {
    return absl::InvalidArgumentError("startswith, endswith: expected text or a tuple of texts");
  }
  for (const Value& item : argument.items()) {
    if (item.is_string() && matches(self.string(), item.string())) return true;
  }
  return false;
}

// Code point index of the first or last `part`, or -1.
absl::StatusOr<int64_t> FindIndex(const Value& self, const CallArguments& arguments, bool last,
                                  Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string part, RequiredText(arguments, 0, "sub"));
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("find: a start or end is not supported");
  }
  const std::string& text = self.string();
  LLMC_RETURN_IF_ERROR(meter->Steps(
      static_cast<int64_t>(text.size() / 64 + (last ? text.size() / 1024 * part.size() : 0))));
  const size_t at = last ? absl::string_view(text).rfind(part) : FindText(text, part);
  if (at == absl::string_view::npos) return -1;
  return CodePointCount(absl::string_view(text).substr(0, at));
}

absl::StatusOr<int64_t> CountText(const Value& self, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string part, RequiredText(arguments, 0, "sub"));
  LLMC_RETURN_IF_ERROR(meter->Steps(static_cast<int64_t>(self.string().size() / 16)));
  if (part.empty()) return CodePointCount(self.string()) + 1;
  int64_t count = 0;
  absl::string_view text = self.string();
  for (size_t at = FindText(text, part); at != absl::string_view::npos; at = FindText(text, part)) {
    ++count;
    text.remove_prefix(at + part.size());
  }
  return count;
}

absl::StatusOr<Value> ReplaceMethod(const Value& self, const CallArguments& arguments,
                                    Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string from, RequiredText(arguments, 0, "old"));
  LLMC_ASSIGN_OR_RETURN(const std::string to, RequiredText(arguments, 1, "new"));
  LLMC_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(arguments, 2, "count", -1));
  const auto size = static_cast<int64_t>(self.string().size());
  const int64_t most = size / std::max<int64_t>(static_cast<int64_t>(from.size()), 1) + 1;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(most, static_cast<int64_t>(to.size()), &bytes)) bytes = INT64_MAX / 2;
  LLMC_RETURN_IF_ERROR(meter->Steps(size / 16));
  // The worst case is refused only when the text does hold that many.
  if (bytes > (1 << 20)) {
    CallArguments find;
    find.positional.emplace_back(from);
    LLMC_ASSIGN_OR_RETURN(const int64_t found, CountText(self, find, meter));
    bytes = found * static_cast<int64_t>(to.size());
  }
  LLMC_RETURN_IF_ERROR(meter->Bytes(bytes + size));
  return Value(Replace(self.string(), from, to, count));
}

absl::StatusOr<Value> JoinMethod(const Value& self, const CallArguments& arguments, Meter* meter) {
  if (arguments.positional.size() != 1) {
    return absl::InvalidArgumentError("join: expected one argument");
  }
  LLMC_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(arguments.positional[0], meter));
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("join: item ", i, " is ", items[i].type_name(), ", expected text"));
    }
    const std::string& separator = i == 0 ? "" : self.string();
    LLMC_RETURN_IF_ERROR(
        meter->Bytes(static_cast<int64_t>(separator.size() + items[i].string().size())));
    text += separator + items[i].string();
  }
  return Value(std::move(text));
}

// True when the text is not empty and `holds` for every code point.
Value All(const Value& self, bool (*holds)(char32_t)) {
  const std::string& text = self.string();
  bool all = !text.empty();
  for (size_t i = 0; all && i < text.size();) all = holds(NextCodePoint(text, &i));
  return Value(all);
}

bool IsDigit(char32_t code) { return code >= '0' && code <= '9'; }
bool IsAlphanumeric(char32_t code) { return IsDigit(code) || IsAlphabetic(code); }

// str.isupper and str.islower: some cased letter, none of the other case.
Value HasCase(const Value& self, bool upper) {
  const std::string& text = self.string();
  bool any = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t code = NextCodePoint(text, &i);
    if (upper ? IsLower(code) : IsUpper(code)) return Value(false);
    any = any || (upper ? IsUpper(code) : IsLower(code));
  }
  return Value(any);
}

absl::StatusOr<Value> Partition(const Value& self, const CallArguments& arguments, bool last,
                                Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string separator, RequiredText(arguments, 0, "sep"));
  const absl::string_view text = self.string();
  if (separator.empty()) return absl::InvalidArgumentError("partition: empty separator");
  LLMC_RETURN_IF_ERROR(
      meter->Steps(static_cast<int64_t>(last ? text.size() / 1024 * separator.size() : 0)));
  const size_t at = last ? text.rfind(separator) : FindText(text, separator);
  std::vector<std::string> parts(3);
  if (at == absl::string_view::npos) {
    parts[last ? 2 : 0] = std::string(text);
  } else {
    parts = {std::string(text.substr(0, at)), separator,
             std::string(text.substr(at + separator.size()))};
  }
  return MadeList(parts, meter, ListKind::kTuple);
}

struct Padding {
  bool left;
  bool right;
  char fill;
};

absl::StatusOr<Value> Pad(const Value& self, const CallArguments& arguments, Padding padding,
                          Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(arguments, 0, "width", 0));
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("padding: another fill character is not supported");
  }
  const int64_t missing = std::max<int64_t>(width - CodePointCount(self.string()), 0);
  LLMC_RETURN_IF_ERROR(meter->Bytes(missing));
  // str.center puts the odd one out on the left when the width is odd.
  const int64_t left = !padding.left    ? 0
                       : !padding.right ? missing
                                        : missing / 2 + (missing & width & 1);
  return Made(std::string(static_cast<size_t>(left), padding.fill) + self.string() +
                  std::string(static_cast<size_t>(missing - left), padding.fill),
              meter);
}

absl::StatusOr<Value> ZeroFill(const Value& self, const CallArguments& arguments, Meter* meter) {
  const std::string& text = self.string();
  if (text.empty() || (text[0] != '-' && text[0] != '+')) {
    return Pad(self, arguments, {true, false, '0'}, meter);
  }
  LLMC_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(arguments, 0, "width", 0));
  CallArguments rest;
  rest.positional.emplace_back(std::max<int64_t>(width, 1) - 1);
  LLMC_ASSIGN_OR_RETURN(const Value padded,
                        Pad(Value(text.substr(1)), rest, {true, false, '0'}, meter));
  return Made(text.substr(0, 1) + padded.string(), meter);
}

// "{} {0} {name}" without format specifications.
absl::StatusOr<Value> FormatMethod(const Value& self, const CallArguments& arguments,
                                   Meter* meter) {
  std::string out;
  size_t next = 0;
  const std::string& text = self.string();
  for (size_t i = 0; i < text.size(); ++i) {
    const bool doubled = i + 1 < text.size() && text[i + 1] == text[i];
    if ((text[i] == '{' || text[i] == '}') && doubled) {
      out += text[i++];
      continue;
    }
    if (text[i] == '}') return absl::InvalidArgumentError("format: single \"}\"");
    if (text[i] != '{') {
      out += text[i];
      continue;
    }
    const size_t end = text.find('}', i);
    if (end == std::string::npos) return absl::InvalidArgumentError("format: unclosed \"{\"");
    const std::string field = text.substr(i + 1, end - i - 1);
    const bool digits = !field.empty() && field.size() < 4 &&
                        std::all_of(field.begin(), field.end(), [](char c) { return IsDigit(c); });
    const size_t position = field.empty() ? next++ : digits ? std::stoul(field) : SIZE_MAX;
    const Value* value = arguments.Get(position, field);
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("format: no value for \"{", field, "}\" (specifications are unsupported)"));
    }
    LLMC_ASSIGN_OR_RETURN(const std::string filled, ToText(*value, meter));
    out += filled;
    i = end;
  }
  return Made(std::move(out), meter);
}

absl::StatusOr<Value> RemoveEdge(const Value& self, const CallArguments& arguments, bool suffix,
                                 Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const std::string edge, RequiredText(arguments, 0, "edge"));
  absl::string_view text = self.string();
  if (suffix && absl::EndsWith(text, edge)) {
    text.remove_suffix(edge.size());
  } else if (!suffix && absl::StartsWith(text, edge)) {
    text.remove_prefix(edge.size());
  }
  return Made(std::string(text), meter);
}

absl::StatusOr<Value> FindMethodOf(const Value& self, const CallArguments& arguments, bool last,
                                   Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const int64_t at, FindIndex(self, arguments, last, meter));
  return Value(at);
}

absl::StatusOr<Value> IndexMethod(const Value& self, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const int64_t at, FindIndex(self, arguments, false, meter));
  if (at < 0) return absl::InvalidArgumentError("index: substring not found");
  return Value(at);
}

absl::StatusOr<Value> CountMethod(const Value& self, const CallArguments& arguments, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const int64_t count, CountText(self, arguments, meter));
  return Value(count);
}

using Edge = bool (*)(absl::string_view, absl::string_view);
absl::StatusOr<Value> EdgeMethod(const Value& self, const CallArguments& arguments, Edge matches,
                                 Meter*) {
  LLMC_ASSIGN_OR_RETURN(const bool found, MatchesAny(self, arguments, matches));
  return Value(found);
}

absl::StatusOr<Value> SplitLinesMethod(const Value& self, const CallArguments& arguments,
                                       Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(const bool keep_ends, BoolArgument(arguments, 0, "keepends", false));
  LLMC_RETURN_IF_ERROR(
      meter->Bytes(static_cast<int64_t>(self.string().size() * sizeof(std::string))));
  return MadeList(SplitLines(self.string(), keep_ends), meter);
}

// A method with one of its parameters fixed.
template <typename Function, typename Bound>
Method Fix(Function function, Bound bound) {
  return [=](const Value& self, const CallArguments& arguments, Meter* meter) {
    return function(self, arguments, bound, meter);
  };
}

// A method that makes one text of another.
Method Convert(std::string (*convert)(absl::string_view)) {
  return [=](const Value& self, const CallArguments&, Meter* meter) {
    return Made(convert(self.string()), meter);
  };
}

// A method that asks whether every code point is of a kind.
Method Every(bool (*holds)(char32_t)) {
  return [=](const Value& self, const CallArguments&, Meter*) { return All(self, holds); };
}

Method Cased(bool upper) {
  return [=](const Value& self, const CallArguments&, Meter*) { return HasCase(self, upper); };
}

// A method that needs nothing but its object.
Method Plain(absl::StatusOr<Value> (*method)(const Value&, Meter*)) {
  return [=](const Value& self, const CallArguments&, Meter* meter) { return method(self, meter); };
}

absl::StatusOr<Value> Same(const Value& self, Meter*) { return self; }

const MethodTable& StringMethods() {
  static const MethodTable kMethods = {
      {"strip", Fix(StripMethod, StripSides{})},
      {"lstrip", Fix(StripMethod, StripSides{.right = false})},
      {"rstrip", Fix(StripMethod, StripSides{.left = false})},
      {"split", Fix(SplitMethod, false)},
      {"rsplit", Fix(SplitMethod, true)},
      {"splitlines", SplitLinesMethod},
      {"startswith", Fix(EdgeMethod, Edge{absl::StartsWith})},
      {"endswith", Fix(EdgeMethod, Edge{absl::EndsWith})},
      {"replace", ReplaceMethod},
      {"upper", Convert(Upper)},
      {"lower", Convert(Lower)},
      {"casefold", Convert(Lower)},
      {"title", Convert(Title)},
      {"capitalize", Convert(Capitalize)},
      {"join", JoinMethod},
      {"find", Fix(FindMethodOf, false)},
      {"rfind", Fix(FindMethodOf, true)},
      {"index", IndexMethod},
      {"count", CountMethod},
      {"isdigit", Every(IsDigit)},
      {"isdecimal", Every(IsDigit)},
      {"isnumeric", Every(IsDigit)},
      {"isalpha", Every(IsAlphabetic)},
      {"isalnum", Every(IsAlphanumeric)},
      {"isspace", Every(IsPythonSpace)},
      {"isupper", Cased(true)},
      {"islower", Cased(false)},
      {"removeprefix", Fix(RemoveEdge, false)},
      {"removesuffix", Fix(RemoveEdge, true)},
      {"partition", Fix(Partition, false)},
      {"rpartition", Fix(Partition, true)},
      {"ljust", Fix(Pad, Padding{false, true, ' '})},
      {"rjust", Fix(Pad, Padding{true, false, ' '})},
      {"center", Fix(Pad, Padding{true, true, ' '})},
      {"zfill", ZeroFill},
      {"format", FormatMethod},
  };
  return kMethods;
}

absl::StatusOr<Value> Refuse(const Value& self, const CallArguments&, Meter*) {
  return absl::InvalidArgumentError(absl::StrCat("a template may not change a ", self.type_name()));
}

absl::StatusOr<Value> ListIndex(const Value& self, const CallArguments& arguments, bool count,
                                Meter* meter) {
  if (arguments.positional.size() != 1) {
    return absl::InvalidArgumentError("index, count: expected one argument");
  }
  int64_t found = 0;
  for (size_t i = 0; i < self.items().size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(const bool equal, Compare(Operator::kEqual, self.items()[i],
                                                    arguments.positional[0], meter));
    if (equal && !count) return Value(static_cast<int64_t>(i));
    found += equal;
  }
  if (!count) return absl::InvalidArgumentError("index: the item is not in the list");
  return Value(found);
}

const MethodTable& ListMethods() {
  static const MethodTable kMethods = {
      {"index", Fix(ListIndex, false)},
      {"count", Fix(ListIndex, true)},
      {"copy", Plain(Same)},
      {"append", Refuse},
      {"extend", Refuse},
      {"insert", Refuse},
      {"pop", Refuse},
      {"remove", Refuse},
      {"sort", Refuse},
      {"reverse", Refuse},
      {"clear", Refuse},
  };
  return kMethods;
}

absl::StatusOr<Value> Items(const Value& self, Meter* meter) {
  LLMC_RETURN_IF_ERROR(
      meter->Bytes(static_cast<int64_t>(self.entries().size() * 4 * sizeof(Value))));
  std::vector<Value> pairs;
  for (const Entry& entry : self.entries()) {
    pairs.push_back(Value::MakeList({entry.first, entry.second}, ListKind::kTuple));
  }
  return Value::MakeList(std::move(pairs));
}

absl::StatusOr<Value> Values(const Value& self, Meter* meter) {
  LLMC_RETURN_IF_ERROR(meter->Bytes(static_cast<int64_t>(self.entries().size() * sizeof(Value))));
  std::vector<Value> values;
  for (const Entry& entry : self.entries()) values.push_back(entry.second);
  return Value::MakeList(std::move(values));
}

absl::StatusOr<Value> Keys(const Value& self, Meter* meter) {
  LLMC_ASSIGN_OR_RETURN(std::vector<Value> keys, Iterate(self, meter));
  return Value::MakeList(std::move(keys));
}

absl::StatusOr<Value> DictGet(const Value& self, const CallArguments& arguments, Meter* meter) {
  // dict.get takes its arguments by position only.
  const bool by_position = arguments.named.empty() && arguments.positional.size() <= 2;
  const Value* key = by_position ? arguments.Get(0, "key") : nullptr;
  if (key == nullptr) return absl::InvalidArgumentError("get: expected a key");
  LLMC_RETURN_IF_ERROR(
      meter->Steps(static_cast<int64_t>(self.entries().size() / 16) + key->compare_cost()));
  for (const Entry& entry : self.entries()) {
    if (Equal(entry.first, *key)) return entry.second;
  }
  const Value* fallback = arguments.Get(1, "default");
  return fallback == nullptr ? Value() : *fallback;
}

const MethodTable& DictMethods() {
  static const MethodTable kMethods = {
      {"get", DictGet},          {"items", Plain(Items)}, {"keys", Plain(Keys)},
      {"values", Plain(Values)}, {"copy", Plain(Same)},   {"update", Refuse},
      {"pop", Refuse},           {"popitem", Refuse},     {"setdefault", Refuse},
      {"clear", Refuse},
  };
  return kMethods;
}

}  // namespace

Value FindMethod(const Value& object, absl::string_view name, Meter* meter) {
  const bool has_methods =
      object.is_string() || object.is_dict() || (object.is_list() && !object.is_generator());
  if (!has_methods) return Value::MakeUndefined(name);
  const MethodTable& table = object.is_string() ? StringMethods()
                             : object.is_list() ? ListMethods()
                                                : DictMethods();
  const auto found = table.find(std::string(name));
  if (found == table.end()) return Value::MakeUndefined(name);
  const Method* method = &found->second;
  return Value::MakeFunction(
      name,
      [object, method, meter](const CallArguments& arguments) -> absl::StatusOr<Value> {
        LLMC_RETURN_IF_ERROR(meter->Touch(object));
        return (*method)(object, arguments, meter);
      },
      object.depth());
}

}  // namespace llmc::dataset
