#include "recipe/document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "formats/names.h"
#include "recipe/placeholders.h"
#include "recipe/recipe.h"
#include "recipe/scalar.h"

namespace llmc {
namespace {

// Carries a refusal out of yaml-cpp's parser; caught in ParseYaml.
struct Refused {
  int line;
  std::string what;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark&, const std::string&) override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Node node;
    node.line = mark.line + 1;
    Finish(std::move(node), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node;
    node.line = mark.line + 1;
    node.text = value;
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    CheckTag(tag, node.line);
    Finish(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto at = anchors_.find(anchor);
    if (at == anchors_.end()) throw Refused{mark.line + 1, "an alias inside its own anchor"};
    Spend(CountNodes(at->second), mark.line + 1);
    Node copy = at->second;
    copy.line = mark.line + 1;
    Attach(std::move(copy));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(Node::Kind::kList, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(Node::Kind::kMap, mark, tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapEnd() override {
    MergeInherited(open_.back().node);
    Close();
  }

  Node TakeRoot() { return std::move(root_); }

 private:
  struct OpenNode {
    Node node;
    YAML::anchor_t anchor;
    std::optional<std::string> key;  // Read, its value is still to come.
    std::set<std::string> keys;
  };

  static void CheckTag(const std::string& tag, int line) {
    static const std::set<std::string> kKnown = {"",
                                                 "?",
                                                 "!",
                                                 "tag:yaml.org,2002:str",
                                                 "tag:yaml.org,2002:int",
                                                 "tag:yaml.org,2002:float",
                                                 "tag:yaml.org,2002:bool",
                                                 "tag:yaml.org,2002:null",
                                                 "tag:yaml.org,2002:map",
                                                 "tag:yaml.org,2002:seq"};
    if (kKnown.count(tag) == 0) {
      throw Refused{line, absl::StrCat("tag '", tag, "', expected a plain value without a tag")};
    }
  }

  void Spend(int64_t nodes, int line) {
    num_nodes_ += nodes;
    if (num_nodes_ > kMaxRecipeNodes) {
      throw Refused{line, absl::StrCat("more than ", kMaxRecipeNodes, " values")};
    }
  }

  void Open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    CheckTag(tag, mark.line + 1);
    if (open_.size() >= kMaxRecipeDepth) {
      throw Refused{mark.line + 1, absl::StrCat("more than ", kMaxRecipeDepth, " levels")};
    }
    OpenNode opened;
    opened.node.kind = kind;
    opened.node.line = mark.line + 1;
    opened.anchor = anchor;
    open_.push_back(std::move(opened));
  }

  void Close() {
    OpenNode closed = std::move(open_.back());
    open_.pop_back();
    Finish(std::move(closed.node), closed.anchor);
  }

  void Finish(Node node, YAML::anchor_t anchor) {
    Spend(1, node.line);
    if (anchor != 0) {
      Spend(CountNodes(node), node.line);
      anchors_[anchor] = node;
    }
    Attach(std::move(node));
  }

  void Attach(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    OpenNode& parent = open_.back();
    if (parent.node.is_list()) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.key) {
      OpenKey(parent, node);
    } else {
      parent.node.entries.emplace_back(*std::move(parent.key), std::move(node));
      parent.key.reset();
    }
  }

  static void OpenKey(OpenNode& parent, const Node& key) {
    if (!key.is_scalar() || key.text.empty()) {
      throw Refused{key.line, absl::StrCat("a key that is ", Describe(key), ", expected a name")};
    }
    if (!parent.keys.insert(key.text).second) {
      throw Refused{key.line, absl::StrCat("key '", key.text, "' is written twice; put the second ",
                                           "one under another name")};
    }
    parent.key = key.text;
    parent.node.entry_lines.push_back(key.line);
  }

  // YAML's merge key: entries of `<<` that the map does not have itself.
  void MergeInherited(Node& map) {
    const Node* inherited = map.Find("<<");
    if (inherited == nullptr) return;
    std::vector<Node> sources = inherited->is_list() ? inherited->items : std::vector{*inherited};
    std::vector<NodeEntry> own;
    std::vector<int> lines;
    for (size_t i = 0; i < map.entries.size(); ++i) {
      if (map.entries[i].key == "<<") continue;
      own.push_back(std::move(map.entries[i]));
      lines.push_back(map.entry_lines[i]);
    }
    map.entries = std::move(own);
    map.entry_lines = std::move(lines);
    for (const Node& source : sources) {
      if (!source.is_map()) throw Refused{map.line, "'<<' that is not a mapping"};
      for (size_t i = 0; i < source.entries.size(); ++i) {
        if (map.Find(source.entries[i].key) != nullptr) continue;
        map.entries.push_back(source.entries[i]);
        map.entry_lines.push_back(source.entry_lines[i]);
      }
    }
  }

  Node root_;
  std::vector<OpenNode> open_;
  std::map<YAML::anchor_t, Node> anchors_;
  int64_t num_nodes_ = 0;
};

// Bytes that the sequence at the start of `text` has; 0 when it is no character of UTF-8
// (RFC 3629: shortest form, no surrogates, at most U+10FFFF).
size_t Utf8SequenceLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;
  if (lead == 0xed && byte(1) >= 0xa0) return 0;
  if (lead == 0xf0 && byte(1) < 0x90) return 0;
  if (lead == 0xf4 && byte(1) >= 0x90) return 0;
  return length;
}

// The bytes of `text` before the first that are no character.
size_t Utf8Prefix(absl::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const size_t length = Utf8SequenceLength(text.substr(position));
    if (length == 0) break;
    position += length;
  }
  return position;
}

bool IsUtf8(absl::string_view text) { return Utf8Prefix(text) == text.size(); }

absl::Status LineError(absl::string_view origin, int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(origin, ":", line, ": ", what));
}

// Escapes in YAML and arguments of a command line may make what the file has not.
absl::Status CheckUtf8(const Node& node, absl::string_view origin) {
  if (!IsUtf8(node.text)) return LineError(origin, node.line, "text that is not UTF-8");
  for (const Node& item : node.items) LLMC_RETURN_IF_ERROR(CheckUtf8(item, origin));
  for (size_t i = 0; i < node.entries.size(); ++i) {
    if (!IsUtf8(node.entries[i].key)) {
      return LineError(origin, node.entry_lines[i], "a key that is not UTF-8");
    }
    LLMC_RETURN_IF_ERROR(CheckUtf8(node.entries[i].value, origin));
  }
  return absl::OkStatus();
}

// The one place where yaml-cpp's exceptions are caught.
absl::StatusOr<Node> ParseYaml(const std::string& text, absl::string_view origin) {
  TreeBuilder builder;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder))
      return LineError(origin, 1, "empty, expected a recipe");
    Node root = builder.TakeRoot();
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      return LineError(origin, root.line, "more than one YAML document, expected one");
    }
    return root;
  } catch (const Refused& refused) {
    return LineError(origin, refused.line, refused.what);
  } catch (const YAML::Exception& e) {
    return LineError(origin, e.mark.line + 1, absl::StrCat("not valid YAML: ", e.msg));
  } catch (const std::exception& e) {
    return LineError(origin, 1, absl::StrCat("not valid YAML: ", e.what()));
  }
}

// The YAML between the first two lines of `---` (or `+++`) when the text starts
// with one, with line numbers kept; otherwise the text itself.
absl::StatusOr<std::string> FrontMatter(absl::string_view text, absl::string_view origin) {
  const bool is_markdown = absl::EndsWith(absl::AsciiStrToLower(origin), ".md");
  size_t start = 0;
  while (start < text.size() && absl::ascii_isspace(text[start])) ++start;
  const absl::string_view delimiter = text.substr(start, 3);
  if (delimiter == "---" || delimiter == "+++") {
    const size_t end = text.find(absl::StrCat("\n", delimiter), start + 3);
    if (end != absl::string_view::npos) {
      std::string blank(text.substr(0, start));
      return blank + "   " + std::string(text.substr(start + 3, end - start - 3));
    }
  }
  if (!is_markdown) return std::string(text);
  return LineError(origin, 1, "no front matter, expected YAML between two lines of ---");
}

}  // namespace

int64_t CountNodes(const Node& node) {
  int64_t count = 1;
  for (const Node& item : node.items) count += CountNodes(item);
  for (const auto& [key, value] : node.entries) count += CountNodes(value);
  return count;
}

bool Node::is_null() const {
  return is_scalar() && !quoted && ResolveScalar(text) == ScalarType::kNull;
}

const Node* Node::Find(absl::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::string Describe(const Node& node) {
  if (node.is_map()) return "a mapping";
  if (node.is_list()) return "a list";
  if (node.is_null()) return "nothing";
  return absl::StrCat("'", node.text.substr(0, 80), node.text.size() > 80 ? "..." : "", "'");
}

nlohmann::json ToJson(const Node& node) {
  if (node.is_list()) {
    nlohmann::json list = nlohmann::json::array();
    for (const Node& item : node.items) list.push_back(ToJson(item));
    return list;
  }
  if (node.is_map()) {
    nlohmann::json map = nlohmann::json::object();
    for (const auto& [key, value] : node.entries) map[key] = ToJson(value);
    return map;
  }
  return node.quoted ? nlohmann::json(node.text) : ScalarToJson(node.text);
}

absl::StatusOr<Document> ParseDocument(absl::string_view text, absl::string_view origin,
                                       const std::map<std::string, std::string>& args) {
  if (text.size() > kMaxRecipeBytes) {
    return LineError(origin, 1,
                     absl::StrCat(text.size(), " bytes, expected at most ", kMaxRecipeBytes));
  }
  // yaml-cpp would replace some such bytes and let others through.
  if (const size_t good = Utf8Prefix(text); good < text.size()) {
    const int64_t line =
        1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(good), '\n');
    return LineError(origin, static_cast<int>(line), "text that is not UTF-8");
  }
  LLMC_ASSIGN_OR_RETURN(const std::string yaml, FrontMatter(text, origin));
  absl::StatusOr<std::string> marked = MarkPlaceholders(yaml);
  if (!marked.ok()) return At(origin, marked.status());
  Document document;
  LLMC_ASSIGN_OR_RETURN(document.root, ParseYaml(*marked, origin));
  if (!document.root.is_map()) {
    return LineError(
        origin, std::max(document.root.line, 1),
        absl::StrCat(Describe(document.root),
                     ", expected a mapping NAME_stage: NAME_modifiers: Modifier: {...}"));
  }
  absl::StatusOr<std::vector<std::string>> unused = FillPlaceholders(document.root, args);
  if (!unused.ok())
    return absl::Status(unused.status().code(),
                        absl::StrCat(origin, ":", unused.status().message()));
  LLMC_RETURN_IF_ERROR(CheckUtf8(document.root, origin));
  for (const std::string& name : *unused) {
    document.warnings.push_back(absl::StrCat(origin, ": args.", name, ": not used; write {{", name,
                                             "}} where the value should go"));
  }
  return document;
}

}  // namespace llmc
