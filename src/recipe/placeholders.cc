#include "recipe/placeholders.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "recipe/recipe.h"

namespace llmc {
namespace {

// U+E000 and U+E001: private use, so no recipe has them and YAML keeps them.
constexpr absl::string_view kOpen = "\xEE\x80\x80";
constexpr absl::string_view kClose = "\xEE\x80\x81";

bool IsNameChar(char c) { return absl::ascii_isalnum(c) || c == '_'; }

// Length of a "{{ name }}" at the start of `text`, 0 when there is none.
size_t PlaceholderAt(absl::string_view text, absl::string_view* name) {
  if (text.substr(0, 2) != "{{") return 0;
  size_t at = 2;
  while (at < text.size() && text[at] == ' ') ++at;
  const size_t start = at;
  while (at < text.size() && IsNameChar(text[at])) ++at;
  *name = text.substr(start, at - start);
  while (at < text.size() && text[at] == ' ') ++at;
  return name->empty() || text.substr(at, 2) != "}}" ? 0 : at + 2;
}

absl::Status LineError(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(line, ": ", what));
}

bool HasPlaceholder(const Node& node) {
  if (node.text.find(kOpen.data(), 0, kOpen.size()) != std::string::npos) return true;
  for (const Node& item : node.items) {
    if (HasPlaceholder(item)) return true;
  }
  for (const auto& [key, value] : node.entries) {
    if (HasPlaceholder(value)) return true;
  }
  return false;
}

class Filler {
 public:
  absl::Status Collect(const Node& root, const std::map<std::string, std::string>& given) {
    if (const Node* own = root.Find("args")) {
      if (!own->is_map() && !own->is_null()) {
        return LineError(own->line, absl::StrCat("args: ", Describe(*own),
                                                 ", expected a mapping of names to values"));
      }
      for (const auto& [name, value] : own->entries) {
        if (HasPlaceholder(value)) {
          return LineError(value.line, absl::StrCat("args.", name, ": a {{...}} inside args"));
        }
        values_[name] = value;
      }
    }
    for (const auto& [name, text] : given) {
      Node value;
      value.text = text;
      values_[name] = value;
    }
    return absl::OkStatus();
  }

  absl::Status Fill(Node& node) {
    for (Node& item : node.items) LLMC_RETURN_IF_ERROR(Fill(item));
    for (auto& [key, value] : node.entries) {
      LLMC_RETURN_IF_ERROR(FillText(key, node.line));
      LLMC_RETURN_IF_ERROR(Fill(value));
    }
    return node.is_scalar() ? FillScalar(node) : absl::OkStatus();
  }

  bool Used(const std::string& name) const { return used_.count(name) > 0; }

 private:
  absl::StatusOr<const Node*> Value(const std::string& name, int line) {
    const auto at = values_.find(name);
    if (at != values_.end()) {
      used_.insert(name);
      return &at->second;
    }
    std::vector<std::string> known;
    for (const auto& [key, value] : values_) known.push_back(key);
    return LineError(line,
                     absl::StrCat("{{", name, "}}: no such name in args", DidYouMean(name, known)));
  }

  // A scalar that is one placeholder becomes the value; others get its text.
  absl::Status FillScalar(Node& node) {
    const absl::string_view text = node.text;
    const bool is_whole =
        text.substr(0, kOpen.size()) == kOpen && text.find(kClose) == text.size() - kClose.size();
    if (!is_whole) return FillText(node.text, node.line);
    const std::string name(text.substr(kOpen.size(), text.size() - 2 * kOpen.size()));
    LLMC_ASSIGN_OR_RETURN(const Node* value, Value(name, node.line));
    const int line = node.line;
    num_copied_ += CountNodes(*value);
    if (num_copied_ > kMaxRecipeNodes) return LineError(line, "too many values from {{...}}");
    node = *value;
    node.line = line;
    return absl::OkStatus();
  }

  absl::Status FillText(std::string& text, int line) {
    for (size_t at = text.find(kOpen.data(), 0, kOpen.size()); at != std::string::npos;
         at = text.find(kOpen.data(), at, kOpen.size())) {
      const size_t end = text.find(kClose.data(), at, kClose.size());
      if (end == std::string::npos) return LineError(line, "a broken {{...}}");
      const std::string name = text.substr(at + kOpen.size(), end - at - kOpen.size());
      LLMC_ASSIGN_OR_RETURN(const Node* value, Value(name, line));
      if (!value->is_scalar()) {
        return LineError(line, absl::StrCat("{{", name, "}} inside a longer text: ",
                                            Describe(*value), ", expected a single value"));
      }
      text.replace(at, end + kClose.size() - at, value->text);
      at += value->text.size();
      if (text.size() > kMaxRecipeBytes) return LineError(line, "too long after {{...}}");
    }
    return absl::OkStatus();
  }

  std::map<std::string, Node> values_;
  std::set<std::string> used_;
  int64_t num_copied_ = 0;
};

}  // namespace

absl::StatusOr<std::string> MarkPlaceholders(absl::string_view text) {
  if (text.find(kOpen) != absl::string_view::npos || text.find(kClose) != absl::string_view::npos) {
    return absl::InvalidArgumentError("holds U+E000 or U+E001, expected no private-use characters");
  }
  std::string marked;
  while (!text.empty()) {
    absl::string_view name;
    const size_t length = PlaceholderAt(text, &name);
    if (length > 0) {
      absl::StrAppend(&marked, kOpen, name, kClose);
      text.remove_prefix(length);
      continue;
    }
    const size_t next = std::min(text.find("{{", 1), text.size());
    absl::StrAppend(&marked, text.substr(0, next));
    text.remove_prefix(next);
  }
  return marked;
}

absl::StatusOr<std::vector<std::string>> FillPlaceholders(
    Node& root, const std::map<std::string, std::string>& given) {
  Filler filler;
  LLMC_RETURN_IF_ERROR(filler.Collect(root, given));
  for (auto& [key, value] : root.entries) {
    if (key != "args") LLMC_RETURN_IF_ERROR(filler.Fill(value));
  }
  for (const auto& [name, text] : given) {
    if (filler.Used(name)) continue;
    return LineError(root.line, absl::StrCat("argument '", name, "' is given, but there is no {{",
                                             name, "}} in the recipe"));
  }
  std::vector<std::string> unused;
  if (const Node* own = root.Find("args")) {
    for (const auto& [name, value] : own->entries) {
      if (!filler.Used(name)) unused.push_back(name);
    }
  }
  return unused;
}

}  // namespace llmc
