#include "dataset/json_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataset/python_text.h"

namespace llmc::dataset {
namespace {

constexpr int kMaxDepth = 100;
constexpr int64_t kMaxValues = 4'000'000;

// Builds a Value from the parser's events, so that no second tree is made and the
// limits hold while the text is read.
class ValueBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(Value()); }
  bool boolean(bool value) override { return Add(Value(value)); }
  bool number_integer(number_integer_t value) override { return Add(Value(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(INT64_MAX)) {
      return Add(Value(static_cast<double>(value)));
    }
    return Add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t&) override { return Add(Value(value)); }
  bool string(string_t& value) override { return Add(Value(std::move(value))); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(size_t) override { return Open(true); }
  bool key(string_t& value) override {
    open_.back().key = std::move(value);
    return true;
  }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(false); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // "[id] parse error at line 1, column 3: reason; last read: 'text'".
    absl::string_view reason = error.what();
    const size_t colon = reason.find(": ");
    if (colon != absl::string_view::npos) reason.remove_prefix(colon + 2);
    reason = reason.substr(0, std::min<size_t>(reason.find("; last read"), 160));
    return Fail(absl::StrCat("byte ", position, ": not JSON: ", reason));
  }

  Value result;
  std::string error;

 private:
  struct Container {
    bool is_object;
    std::string key;
    std::vector<Value> items;
    std::vector<Entry> entries;
  };

  bool Fail(absl::string_view what) {
    error = std::string(what);
    return false;
  }

  bool Add(Value value) {
    if (++num_values_ > kMaxValues) {
      return Fail(absl::StrCat("more than ", kMaxValues, " JSON values in one row"));
    }
    if (open_.empty()) {
      result = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().entries.emplace_back(Value(std::move(open_.back().key)), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  bool Open(bool is_object) {
    if (open_.size() >= kMaxDepth) {
      return Fail(absl::StrCat("JSON nested deeper than ", kMaxDepth));
    }
    open_.push_back({is_object, {}, {}, {}});
    return true;
  }

  bool Close() {
    Container closed = std::move(open_.back());
    open_.pop_back();
    return Add(closed.is_object ? Value::MakeDict(std::move(closed.entries))
                                : Value::MakeList(std::move(closed.items)));
  }

  std::vector<Container> open_;
  int64_t num_values_ = 0;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, size_t max_bytes) : style_(style), max_bytes_(max_bytes) {}

  absl::Status Write(const Value& value, int depth) {
    if (depth > kMaxDepth) return absl::InvalidArgumentError("value is nested too deeply for JSON");
    if (out.size() > max_bytes_) return absl::ResourceExhaustedError("JSON text is too long");
    if (value.is_list()) return WriteList(value, depth);
    if (value.is_dict()) return WriteDict(value, depth);
    return WriteScalar(value);
  }

  std::string out;

 private:
  absl::Status WriteScalar(const Value& value) {
    if (value.is_none()) {
      out += "null";
    } else if (value.is_bool()) {
      out += value.boolean() ? "true" : "false";
    } else if (value.is_int()) {
      absl::StrAppend(&out, value.integer());
    } else if (value.is_float()) {
      WriteFloat(value.floating());
    } else if (value.is_string()) {
      WriteString(value.string());
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("a value of type ", value.type_name(), " has no JSON form"));
    }
    return absl::OkStatus();
  }

  void WriteFloat(double value) {
    if (std::isfinite(value)) {
      out += FloatRepr(value);
    } else {
      out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    }
  }

  void WriteString(absl::string_view text) {
    out += '"';
    for (size_t i = 0; i < text.size();) {
      const char32_t code = NextCodePoint(text, &i);
      WriteCodePoint(code);
    }
    out += '"';
  }

  void WriteCodePoint(char32_t code) {
    static constexpr absl::string_view kShort = "\b\f\n\r\t\"\\";
    static constexpr absl::string_view kNames = "bfnrt\"\\";
    const size_t at = code < 0x80 ? kShort.find(static_cast<char>(code)) : absl::string_view::npos;
    if (at != absl::string_view::npos) {
      out += '\\';
      out += kNames[at];
    } else if (code < 0x20 || (style_.ensure_ascii && code > 0x7e)) {
      WriteEscape(code);
    } else {
      AppendUtf8(code, &out);
    }
  }

  void WriteEscape(char32_t code) {
    if (code < 0x10000) {
      out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(code));
      return;
    }
    const uint32_t offset = code - 0x10000;
    out += absl::StrFormat("\\u%04x\\u%04x", 0xd800 + (offset >> 10), 0xdc00 + (offset & 0x3ff));
  }

  void NewLine(int depth) {
    if (!style_.has_indent) return;
    out += '\n';
    for (int i = 0; i < depth; ++i) out += style_.indent;
  }

  absl::Status WriteList(const Value& value, int depth) {
    out += '[';
    bool first = true;
    for (const Value& item : value.items()) {
      if (!first) out += style_.item_separator;
      first = false;
      NewLine(depth + 1);
      LLMC_RETURN_IF_ERROR(Write(item, depth + 1));
    }
    if (!first) NewLine(depth);
    out += ']';
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Value& value, int depth) {
    std::vector<Entry> entries = value.entries();
    if (style_.sort_keys) LLMC_RETURN_IF_ERROR(SortByKey(&entries));
    out += '{';
    bool first = true;
    for (const Entry& entry : entries) {
      if (!first) out += style_.item_separator;
      first = false;
      NewLine(depth + 1);
      LLMC_RETURN_IF_ERROR(WriteKey(entry.first));
      out += style_.key_separator;
      LLMC_RETURN_IF_ERROR(Write(entry.second, depth + 1));
    }
    if (!first) NewLine(depth);
    out += '}';
    return absl::OkStatus();
  }

  static absl::Status SortByKey(std::vector<Entry>* entries) {
    for (const Entry& entry : *entries) {
      if (!entry.first.is_string()) return absl::InvalidArgumentError("sort_keys needs text keys");
    }
    std::stable_sort(entries->begin(), entries->end(), [](const Entry& a, const Entry& b) {
      return a.first.string() < b.first.string();
    });
    return absl::OkStatus();
  }

  // json.dumps turns number, bool and none keys into text.
  absl::Status WriteKey(const Value& key) {
    if (key.is_string()) return WriteScalar(key);
    out += '"';
    LLMC_RETURN_IF_ERROR(WriteScalar(key));
    out += '"';
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  size_t max_bytes_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(absl::string_view text) {
  ValueBuilder builder;
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (!ok) return absl::InvalidArgumentError(builder.error);
  return std::move(builder.result);
}

absl::StatusOr<std::string> DumpJson(const Value& value, const JsonStyle& style, size_t max_bytes) {
  JsonWriter writer(style, max_bytes);
  LLMC_RETURN_IF_ERROR(writer.Write(value, 0));
  return std::move(writer.out);
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr;
  std::string text(buffer, end);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace llmc::dataset
