#include "dataset/parquet_metadata.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataset/parquet_thrift.h"

namespace llmc::dataset {
namespace {

constexpr int kMaxSchemaDepth = 32;

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("damaged Parquet file: ", what));
}

// An element of the footer's flat schema.
struct SchemaElement {
  ParquetNode node;
  int64_t num_children = 0;
};

ParquetAnnotation AnnotationOf(int64_t converted_type) {
  switch (converted_type) {
    case 1:  // MAP
    case 2:  // MAP_KEY_VALUE
      return ParquetAnnotation::kMap;
    case 3:  // LIST
      return ParquetAnnotation::kList;
    case 13:  // UINT_32
      return ParquetAnnotation::kUnsigned32;
    default:
      return ParquetAnnotation::kNone;
  }
}

class MetadataParser {
 public:
  MetadataParser(absl::string_view footer, int64_t file_size)
      : reader_(footer), file_size_(file_size) {}

  absl::StatusOr<ParquetMetadata> Run() {
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([this](int id, ThriftType type) {
      if (id == 2 && type == ThriftType::kList) {
        return reader_.ReadList([this](ThriftType) { return ReadSchemaElement(); });
      }
      if (id == 4 && type == ThriftType::kList) {
        return reader_.ReadList([this](ThriftType) { return ReadRowGroup(); });
      }
      return reader_.Skip(type);
    }));
    if (elements_.empty()) return Damaged("no schema");
    LLMC_RETURN_IF_ERROR(BuildNode(nullptr, 0, &metadata_.root));
    if (next_element_ != elements_.size()) return Damaged("its schema is not one tree");
    LLMC_RETURN_IF_ERROR(CheckRowGroups());
    return std::move(metadata_);
  }

 private:
  // Stores an integer field; other types are skipped.
  absl::Status ReadNumber(ThriftType type, int64_t* value) {
    const bool is_integer =
        type == ThriftType::kI16 || type == ThriftType::kI32 || type == ThriftType::kI64;
    if (!is_integer) return reader_.Skip(type);
    LLMC_ASSIGN_OR_RETURN(*value, reader_.ReadInteger());
    return absl::OkStatus();
  }

  // Every list element is a struct in this file format.
  absl::Status ReadSchemaElement() {
    SchemaElement element;
    int64_t type_number = -1;
    int64_t repetition = 0;
    int64_t converted = -1;
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([&](int id, ThriftType type) -> absl::Status {
      if (id == 1) return ReadNumber(type, &type_number);
      if (id == 3) return ReadNumber(type, &repetition);
      if (id == 4 && type == ThriftType::kBinary) {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view name, reader_.ReadBinary());
        element.node.name = std::string(name);
        return absl::OkStatus();
      }
      if (id == 5) return ReadNumber(type, &element.num_children);
      if (id == 6) return ReadNumber(type, &converted);
      if (id == 10 && type == ThriftType::kStruct) return ReadLogicalType(&converted);
      return reader_.Skip(type);
    }));
    if (type_number > 7 || repetition < 0 || repetition > 2) return Damaged("unknown column type");
    element.node.is_leaf = type_number >= 0;
    if (element.node.is_leaf) element.node.type = static_cast<ParquetType>(type_number);
    element.node.repetition = static_cast<ParquetRepetition>(repetition);
    element.node.annotation = AnnotationOf(converted);
    elements_.push_back(std::move(element));
    return absl::OkStatus();
  }

  // LogicalType is a union: field 2 is MAP, 3 is LIST.
  absl::Status ReadLogicalType(int64_t* converted) {
    return reader_.ReadStruct([&](int id, ThriftType type) {
      if (id == 2) *converted = 1;
      if (id == 3) *converted = 3;
      return reader_.Skip(type);
    });
  }

  absl::Status BuildNode(const ParquetNode* parent, int depth, ParquetNode* node) {
    if (depth > kMaxSchemaDepth) return Damaged("its schema is nested too deeply");
    if (next_element_ == elements_.size()) return Damaged("its schema ends early");
    SchemaElement& element = elements_[next_element_++];
    *node = std::move(element.node);
    if (parent != nullptr) {
      const bool repeated = node->repetition == ParquetRepetition::kRepeated;
      const bool required = node->repetition == ParquetRepetition::kRequired;
      node->max_repetition = parent->max_repetition + repeated;
      node->max_definition = parent->max_definition + !required;
    }
    node->first_leaf = num_leaves_;
    num_leaves_ += node->is_leaf;
    if (!node->is_leaf && element.num_children < 1) return Damaged("a column group is empty");
    const int64_t num_children = node->is_leaf ? 0 : element.num_children;
    for (int64_t i = 0; i < num_children; ++i) {
      ParquetNode child;
      LLMC_RETURN_IF_ERROR(BuildNode(node, depth + 1, &child));
      node->children.push_back(std::move(child));
    }
    node->num_leaves = num_leaves_ - node->first_leaf;
    return absl::OkStatus();
  }

  absl::Status ReadRowGroup() {
    ParquetRowGroup group;
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([&](int id, ThriftType type) {
      if (id == 1 && type == ThriftType::kList) {
        return reader_.ReadList([&](ThriftType) { return ReadChunk(&group); });
      }
      if (id == 3) return ReadNumber(type, &group.num_rows);
      return reader_.Skip(type);
    }));
    metadata_.row_groups.push_back(std::move(group));
    return absl::OkStatus();
  }

  absl::Status ReadChunk(ParquetRowGroup* group) {
    ParquetChunk chunk;
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([&](int id, ThriftType type) -> absl::Status {
      if (id == 1) return absl::UnimplementedError("Parquet columns in other files");
      if (id == 3 && type == ThriftType::kStruct) return ReadChunkMetadata(&chunk);
      if (id == 8 || id == 9) return absl::UnimplementedError("encrypted Parquet columns");
      return reader_.Skip(type);
    }));
    group->chunks.push_back(chunk);
    return absl::OkStatus();
  }

  absl::Status ReadChunkMetadata(ParquetChunk* chunk) {
    int64_t type_number = -1;
    int64_t codec = 0;
    int64_t data_offset = 0;
    int64_t dictionary_offset = 0;
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([&](int id, ThriftType type) {
      if (id == 1) return ReadNumber(type, &type_number);
      if (id == 4) return ReadNumber(type, &codec);
      if (id == 5) return ReadNumber(type, &chunk->num_values);
      if (id == 7) return ReadNumber(type, &chunk->size);
      if (id == 9) return ReadNumber(type, &data_offset);
      if (id == 11) return ReadNumber(type, &dictionary_offset);
      return reader_.Skip(type);
    }));
    if (type_number < 0 || type_number > 7) return Damaged("unknown column type");
    chunk->type = static_cast<ParquetType>(type_number);
    chunk->codec = static_cast<int>(std::clamp<int64_t>(codec, -1, 100));
    // Some writers leave 0 for "no dictionary".
    const bool dictionary_first = dictionary_offset > 0 && dictionary_offset < data_offset;
    chunk->offset = dictionary_first ? dictionary_offset : data_offset;
    return absl::OkStatus();
  }

  absl::Status CheckRowGroups() {
    for (const ParquetRowGroup& group : metadata_.row_groups) {
      if (group.chunks.size() != num_leaves_) return Damaged("a row group lacks columns");
      if (group.num_rows < 0) return Damaged("a row group has a negative size");
      for (const ParquetChunk& chunk : group.chunks) {
        const bool inside = chunk.offset >= 0 && chunk.size >= 0 && chunk.num_values >= 0 &&
                            chunk.offset <= file_size_ && chunk.size <= file_size_ - chunk.offset;
        if (!inside) return Damaged("a column lies outside the file");
      }
    }
    return absl::OkStatus();
  }

  ThriftReader reader_;
  int64_t file_size_;
  std::vector<SchemaElement> elements_;
  size_t next_element_ = 0;
  size_t num_leaves_ = 0;
  ParquetMetadata metadata_;
};

class PageHeaderParser {
 public:
  explicit PageHeaderParser(absl::string_view bytes) : reader_(bytes) {}

  absl::StatusOr<ParquetPageHeader> Run() {
    LLMC_RETURN_IF_ERROR(reader_.ReadStruct([this](int id, ThriftType type) -> absl::Status {
      if (type == ThriftType::kStruct && (id == 5 || id == 7)) return ReadDataHeader();
      if (type == ThriftType::kStruct && id == 8) return ReadDataHeaderV2();
      if (type != ThriftType::kI32) return reader_.Skip(type);
      LLMC_ASSIGN_OR_RETURN(const int64_t value, reader_.ReadInteger());
      if (id == 1) kind_ = value;
      if (id == 2) header_.uncompressed_size = value;
      if (id == 3) header_.compressed_size = value;
      return absl::OkStatus();
    }));
    if (kind_ < 0 || kind_ > 3) return Damaged("unknown kind of page");
    if (header_.uncompressed_size < 0 || header_.compressed_size < 0 || header_.num_values < 0 ||
        header_.definition_bytes < 0 || header_.repetition_bytes < 0) {
      return Damaged("a page has a negative size");
    }
    header_.kind = static_cast<ParquetPageHeader::Kind>(kind_);
    header_.header_size = reader_.position();
    return header_;
  }

 private:
  // DataPageHeader, and DictionaryPageHeader, whose first two fields are the same.
  absl::Status ReadDataHeader() {
    return reader_.ReadStruct([this](int id, ThriftType type) -> absl::Status {
      if (type != ThriftType::kI32) return reader_.Skip(type);
      LLMC_ASSIGN_OR_RETURN(const int64_t value, reader_.ReadInteger());
      if (id == 1) header_.num_values = value;
      if (id == 2) header_.encoding = static_cast<int>(value);
      if (id == 3) header_.definition_encoding = static_cast<int>(value);
      if (id == 4) header_.repetition_encoding = static_cast<int>(value);
      return absl::OkStatus();
    });
  }

  absl::Status ReadDataHeaderV2() {
    return reader_.ReadStruct([this](int id, ThriftType type) -> absl::Status {
      if (id == 7) header_.is_compressed = type != ThriftType::kFalse;
      if (type != ThriftType::kI32) return reader_.Skip(type);
      LLMC_ASSIGN_OR_RETURN(const int64_t value, reader_.ReadInteger());
      if (id == 1) header_.num_values = value;
      if (id == 4) header_.encoding = static_cast<int>(value);
      if (id == 5) header_.definition_bytes = value;
      if (id == 6) header_.repetition_bytes = value;
      return absl::OkStatus();
    });
  }

  ThriftReader reader_;
  ParquetPageHeader header_;
  int64_t kind_ = -1;
};

}  // namespace

absl::StatusOr<ParquetMetadata> ParseParquetMetadata(absl::string_view footer, int64_t file_size) {
  return MetadataParser(footer, file_size).Run();
}

absl::StatusOr<ParquetPageHeader> ParseParquetPageHeader(absl::string_view bytes) {
  return PageHeaderParser(bytes).Run();
}

}  // namespace llmc::dataset
