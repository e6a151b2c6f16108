// A recipe's text as a tree with line numbers. YAML is read event by event, so that
// aliases, depth and repeated keys are under control before anything is built.
#ifndef LLMC_RECIPE_DOCUMENT_H_
#define LLMC_RECIPE_DOCUMENT_H_

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

struct NodeEntry;

struct Node {
  enum class Kind : uint8_t { kScalar, kList, kMap };

  Kind kind = Kind::kScalar;
  std::string text;                // Of a scalar.
  bool quoted = false;             // A quoted or !!str scalar: a string whatever it looks like.
  int line = 0;                    // From 1.
  std::vector<Node> items;         // Of a list.
  std::vector<NodeEntry> entries;  // Of a map, keys distinct, in file order.
  std::vector<int> entry_lines;    // Line of each key.

  bool is_null() const;
  bool is_map() const { return kind == Kind::kMap; }
  bool is_list() const { return kind == Kind::kList; }
  bool is_scalar() const { return kind == Kind::kScalar; }
  // The value of `key`, null when absent.
  const Node* Find(absl::string_view key) const;
};

struct NodeEntry {
  NodeEntry(std::string name, Node node) : key(std::move(name)), value(std::move(node)) {}

  std::string key;
  Node value;
};

// The node itself and everything below it.
int64_t CountNodes(const Node& node);

// A short description for messages: "'text'", "a list", "a mapping", "nothing".
std::string Describe(const Node& node);

// The node as JSON, plain scalars typed as YAML 1.1 types them (yes, ~, 0x10, 1e3).
nlohmann::json ToJson(const Node& node);

struct Document {
  Node root;  // A map; `args` is still in it.
  std::vector<std::string> warnings;
};

// Parses one YAML or JSON document (or the front matter of Markdown) and replaces
// {{name}} in its scalars by `args` or by the document's own `args:`. A scalar that
// is nothing but a placeholder takes the value whole, lists and maps too.
// kInvalidArgument "origin:line: what": syntax, repeated keys, too deep, too many
// nodes, unknown tags, a placeholder without a value, an element of `args` that
// nothing uses.
absl::StatusOr<Document> ParseDocument(absl::string_view text, absl::string_view origin,
                                       const std::map<std::string, std::string>& args);

}  // namespace llmc

#endif  // LLMC_RECIPE_DOCUMENT_H_
