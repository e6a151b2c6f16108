#include "recipe/yaml_text.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "recipe/scalar.h"

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kWidth = 88;

bool NeedsQuotes(const std::string& text, bool in_flow) {
  if (text.empty() || ResolveScalar(text) != ScalarType::kString) return true;
  if (text == "=" || text == "<<") return true;
  // Dates and sexagesimal numbers start with a digit or a sign; whole ones not with 0:.
  const bool is_text = text.starts_with("0:") && !absl::StrContains(text, ".");
  const bool number_like =
      !is_text && text.find_first_not_of("0123456789+-.:TZ_ ") == std::string::npos;
  if (number_like || text.front() == ' ' || text.back() == ' ') return true;
  if (absl::StrContains("#,[]{}&*!|>'\"%@`", absl::string_view(text).substr(0, 1))) return true;
  if (absl::StrContains("-?:", absl::string_view(text).substr(0, 1))) return true;
  if (absl::StrContains(text, ": ") || absl::StrContains(text, " #") || text.back() == ':') {
    return true;
  }
  return in_flow && text.find_first_of(",?[]{}:") != std::string::npos;
}

bool HasControl(const std::string& text) {
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return true;
  }
  return false;
}

std::string StringText(const std::string& text, bool in_flow) {
  if (HasControl(text)) return Json(text).dump();
  if (!NeedsQuotes(text, in_flow)) return text;
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "''"}}), "'");
}

// The shortest text that reads back, with the point that YAML 1.1 asks for.
std::string NumberText(double number) {
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), number);
  std::string text(buffer, end);
  const size_t exponent = text.find('e');
  if (text.find('.') != std::string::npos) return text;
  return exponent == std::string::npos ? text + ".0" : text.insert(exponent, ".0");
}

std::string ScalarText(const Json& value, bool in_flow) {
  if (value.is_string()) return StringText(value.get<std::string>(), in_flow);
  if (value.is_number_float()) return NumberText(value.get<double>());
  return value.dump();
}

bool IsLeaf(const Json& value) {
  if (!value.is_structured()) return true;
  for (const Json& item : value) {
    if (item.is_structured()) return false;
  }
  return true;
}

class Writer {
 public:
  void WriteBlock(const Json& map, size_t indent) {
    for (const auto& [key, value] : map.items()) {
      absl::StrAppend(&text_, std::string(indent, ' '), StringText(key, false), ":");
      WriteValue(value, indent);
    }
  }
  std::string Take() { return std::move(text_); }

 private:
  void WriteValue(const Json& value, size_t indent) {
    if (!IsLeaf(value)) {
      text_ += '\n';
      WriteBlock(value, indent + 2);
      return;
    }
    text_ += ' ';
    if (value.is_structured()) {
      WriteFlow(value, indent + 2);
    } else {
      text_ += ScalarText(value, false);
    }
    text_ += '\n';
  }

  void WriteFlow(const Json& value, size_t indent) {
    text_ += value.is_array() ? '[' : '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) text_ += ',';
      if (Column() > kWidth) {
        absl::StrAppend(&text_, "\n", std::string(indent, ' '));
      } else if (!first) {
        text_ += ' ';
      }
      first = false;
      if (value.is_object()) absl::StrAppend(&text_, StringText(key, true), ": ");
      text_ += ScalarText(item, true);
    }
    text_ += value.is_array() ? ']' : '}';
  }

  size_t Column() const {
    const size_t line = text_.rfind('\n');
    return line == std::string::npos ? text_.size() : text_.size() - line - 1;
  }

  std::string text_;
};

}  // namespace

std::string YamlText(const Json& tree) {
  Writer writer;
  writer.WriteBlock(tree, 0);
  return writer.Take();
}

}  // namespace llmc
