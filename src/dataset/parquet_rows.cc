#include "dataset/parquet_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataset/parquet_column.h"
#include "dataset/parquet_metadata.h"

namespace llmc::dataset {
namespace {

constexpr int64_t kMaxFooterBytes = int64_t{256} << 20;
constexpr int64_t kMaxRowValues = 4'000'000;
constexpr int64_t kTrailerBytes = 8;  // The footer's size and "PAR1".

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("damaged Parquet file: ", what));
}

absl::StatusOr<ParquetMetadata> ReadFooter(const RandomAccessFile& file) {
  if (file.size() < 4 + kTrailerBytes) return Damaged("it is too short");
  LLMC_ASSIGN_OR_RETURN(const std::string trailer,
                        file.Read(file.size() - kTrailerBytes, kTrailerBytes));
  if (absl::EndsWith(trailer, "PARE")) return absl::UnimplementedError("encrypted Parquet files");
  if (!absl::EndsWith(trailer, "PAR1")) return Damaged("it does not end with PAR1");
  int64_t size = 0;
  for (size_t i = 0; i < 4; ++i) {
    size |= static_cast<int64_t>(static_cast<uint8_t>(trailer[i])) << (8 * i);
  }
  if (size > file.size() - 4 - kTrailerBytes || size > kMaxFooterBytes) {
    return Damaged("its footer is longer than the file");
  }
  LLMC_ASSIGN_OR_RETURN(const std::string footer,
                        file.Read(file.size() - kTrailerBytes - size, size));
  return ParseParquetMetadata(footer, file.size());
}

// The element of a list whose repeated field is `repeated`: the field itself in old
// files, else its one child (Parquet's LogicalTypes.md, backward compatibility).
bool IsElementItself(const ParquetNode& repeated, absl::string_view list_name) {
  return repeated.is_leaf || repeated.children.size() != 1 || repeated.name == "array" ||
         repeated.name == absl::StrCat(list_name, "_tuple");
}

// Builds rows from the columns of a row group (the Dremel record assembly).
class RecordAssembler {
 public:
  explicit RecordAssembler(std::vector<std::unique_ptr<ParquetColumn>>* columns)
      : columns_(*columns) {}

  // The next value of a top-level column.
  absl::StatusOr<Value> Read(const ParquetNode& node) {
    num_values_ = 0;
    LLMC_RETURN_IF_ERROR(LoadAll(node));
    for (size_t i = 0; i < node.num_leaves; ++i) {
      if (column(node.first_leaf + i).repetition() != 0) return Damaged("a row begins in a list");
    }
    return ReadNode(node);
  }

 private:
  ParquetColumn& column(size_t leaf) { return *columns_[leaf]; }
  ParquetColumn& lead(const ParquetNode& node) { return column(node.first_leaf); }

  absl::Status LoadAll(const ParquetNode& node) {
    for (size_t i = 0; i < node.num_leaves; ++i) {
      LLMC_ASSIGN_OR_RETURN(const bool loaded, column(node.first_leaf + i).Load());
      if (!loaded) return Damaged("a column has fewer rows than its row group");
    }
    return absl::OkStatus();
  }

  // Goes past the one entry that stands for an absent `node` in each of its leaves.
  absl::Status SkipAbsent(const ParquetNode& node) {
    for (size_t i = 0; i < node.num_leaves; ++i) {
      ParquetColumn& leaf = column(node.first_leaf + i);
      if (leaf.definition() >= node.max_definition) return Damaged("columns disagree on a null");
      LLMC_RETURN_IF_ERROR(leaf.Take().status());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Value> ReadNode(const ParquetNode& node) {
    if (node.repetition == ParquetRepetition::kRepeated) return ReadRepeated(node, node);
    LLMC_RETURN_IF_ERROR(LoadAll(node));
    if (node.repetition == ParquetRepetition::kOptional &&
        lead(node).definition() < node.max_definition) {
      LLMC_RETURN_IF_ERROR(SkipAbsent(node));
      return Value();
    }
    return ReadContent(node);
  }

  absl::StatusOr<Value> ReadContent(const ParquetNode& node) {
    if (++num_values_ > kMaxRowValues) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", kMaxRowValues, " values in one row"));
    }
    if (node.is_leaf) {
      if (lead(node).is_null()) return Damaged("columns disagree on a null");
      return lead(node).Take();
    }
    const bool one_repeated =
        node.children.size() == 1 && node.children[0].repetition == ParquetRepetition::kRepeated;
    if (node.annotation == ParquetAnnotation::kList && one_repeated) {
      const ParquetNode& repeated = node.children[0];
      const bool itself = IsElementItself(repeated, node.name);
      return ReadRepeated(repeated, itself ? repeated : repeated.children[0]);
    }
    if (node.annotation == ParquetAnnotation::kMap && one_repeated) return ReadMap(node);
    return ReadGroup(node);
  }

  absl::StatusOr<Value> ReadGroup(const ParquetNode& node) {
    std::vector<Entry> entries;
    for (const ParquetNode& child : node.children) {
      LLMC_ASSIGN_OR_RETURN(Value value, ReadNode(child));
      entries.emplace_back(Value(child.name), std::move(value));
    }
    return Value::MakeDict(std::move(entries));
  }

  // The elements of `repeated`, each read as `element`: `repeated` itself or its child.
  absl::StatusOr<Value> ReadRepeated(const ParquetNode& repeated, const ParquetNode& element) {
    LLMC_RETURN_IF_ERROR(LoadAll(repeated));
    std::vector<Value> items;
    if (lead(repeated).definition() < repeated.max_definition) {
      LLMC_RETURN_IF_ERROR(SkipAbsent(repeated));
      return Value::MakeList({});
    }
    while (true) {
      auto item = &element == &repeated ? ReadContent(element) : ReadNode(element);
      if (!item.ok()) return item.status();
      items.push_back(*std::move(item));
      LLMC_ASSIGN_OR_RETURN(const bool more, lead(repeated).Load());
      if (!more || lead(repeated).repetition() < repeated.max_repetition) break;
      if (lead(repeated).repetition() > repeated.max_repetition) {
        return Damaged("a list continues inside another");
      }
      LLMC_RETURN_IF_ERROR(LoadAll(repeated));
    }
    return Value::MakeList(std::move(items));
  }

  // A map becomes a dict.
  absl::StatusOr<Value> ReadMap(const ParquetNode& node) {
    const ParquetNode& repeated = node.children[0];
    LLMC_ASSIGN_OR_RETURN(const Value pairs, ReadRepeated(repeated, repeated));
    std::vector<Entry> entries;
    for (const Value& pair : pairs.items()) {
      if (!pair.is_dict() || pair.entries().size() != 2) return Damaged("a map without pairs");
      const Value& key = pair.entries()[0].second;
      if (!key.is_string()) return absl::UnimplementedError("Parquet maps whose keys are no text");
      entries.emplace_back(key, pair.entries()[1].second);
    }
    return Value::MakeDict(std::move(entries));
  }

  std::vector<std::unique_ptr<ParquetColumn>>& columns_;
  int64_t num_values_ = 0;  // Of the column in this row.
};

class ParquetReader : public RowReader {
 public:
  ParquetReader(std::shared_ptr<const RandomAccessFile> file, ParquetMetadata metadata,
                std::string path)
      : file_(std::move(file)), metadata_(std::move(metadata)), path_(std::move(path)) {
    CollectLeaves(metadata_.root);
  }

  absl::Status Choose(const ColumnChoice& choose) {
    std::vector<std::string> names;
    for (const ParquetNode& column : metadata_.root.children) names.push_back(column.name);
    LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> chosen, choose(names));
    for (const ParquetNode& column : metadata_.root.children) {
      if (std::find(chosen.begin(), chosen.end(), column.name) != chosen.end()) {
        chosen_.push_back(&column);
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Next(Row* row) override {
    while (rows_left_ == 0) {
      if (next_group_ == metadata_.row_groups.size()) return false;
      LLMC_RETURN_IF_ERROR(At(path_, OpenGroup(metadata_.row_groups[next_group_++])));
    }
    --rows_left_;
    row->where = absl::StrCat(path_, ": row ", ++row_number_);
    RecordAssembler assembler(&columns_);
    std::vector<Entry> entries;
    for (const ParquetNode* node : chosen_) {
      auto value = assembler.Read(*node);
      if (!value.ok()) {
        return At(absl::StrCat(row->where, ": column \"", node->name, "\""), value.status());
      }
      entries.emplace_back(Value(node->name), *std::move(value));
    }
    row->columns = Value::MakeDict(std::move(entries));
    return true;
  }

 private:
  void CollectLeaves(const ParquetNode& node) {
    if (node.is_leaf) leaves_.push_back(&node);
    for (const ParquetNode& child : node.children) CollectLeaves(child);
  }

  // Opens the leaves of the chosen columns; the others stay null.
  absl::Status OpenGroup(const ParquetRowGroup& group) {
    columns_.clear();
    columns_.resize(leaves_.size());
    for (const ParquetNode* node : chosen_) {
      for (size_t i = node->first_leaf; i < node->first_leaf + node->num_leaves; ++i) {
        if (group.chunks[i].type != leaves_[i]->type) {
          return Damaged("a column's type differs from the schema");
        }
        columns_[i] = std::make_unique<ParquetColumn>(file_, *leaves_[i], group.chunks[i]);
      }
    }
    rows_left_ = group.num_rows;
    return absl::OkStatus();
  }

  std::shared_ptr<const RandomAccessFile> file_;
  ParquetMetadata metadata_;
  std::string path_;
  std::vector<const ParquetNode*> leaves_;
  std::vector<const ParquetNode*> chosen_;  // Top-level columns.
  std::vector<std::unique_ptr<ParquetColumn>> columns_;
  size_t next_group_ = 0;
  int64_t rows_left_ = 0;
  int64_t row_number_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RowReader>> ParquetRows(const std::filesystem::path& path,
                                                       const ColumnChoice& choose) {
  LLMC_ASSIGN_OR_RETURN(const std::shared_ptr<RandomAccessFile> file,
                        RandomAccessFile::Open(path.string()));
  auto metadata = ReadFooter(*file);
  if (!metadata.ok()) return At(path.string(), metadata.status());
  auto reader = std::make_unique<ParquetReader>(file, *std::move(metadata), path.string());
  LLMC_RETURN_IF_ERROR(At(path.string(), reader->Choose(choose)));
  return reader;
}

}  // namespace llmc::dataset
