#include "dataset/text_rows.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "dataset/json_text.h"
#include "dataset/python_text.h"

namespace llmc::dataset {
namespace {

// What every text format shares: where it is in which file.
class TextRows : public RowReader {
 public:
  TextRows(std::unique_ptr<ByteSource> source, std::string path)
      : reader_(std::move(source)), path_(std::move(path)) {}

  absl::StatusOr<bool> Next(Row* row) override {
    line_ = reader_.line();
    auto found = Read(row);
    if (!found.ok()) return At(Where(), found.status());
    if (*found) row->where = Where();
    return found;
  }

 protected:
  // As Next, with errors that do not name the place. Sets `line_` to the line on
  // which the row starts.
  virtual absl::StatusOr<bool> Read(Row* row) = 0;

  std::string Where() const { return absl::StrCat(path_, ":", line_); }

  // The next line that is not blank; false at the end.
  absl::StatusOr<bool> ReadLine(std::string* line) {
    while (true) {
      line_ = reader_.line();
      LLMC_ASSIGN_OR_RETURN(const bool found, reader_.GetLine(line, kMaxRowBytes));
      if (!found) return false;
      if (!absl::StripAsciiWhitespace(*line).empty()) return true;
    }
  }

  TextReader reader_;
  std::string path_;
  int64_t line_ = 1;
};

absl::Status CheckUtf8(absl::string_view text) {
  const std::optional<size_t> offset = FirstInvalidUtf8(text);
  if (!offset) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("byte ", *offset, ": not UTF-8"));
}

class PlainText : public TextRows {
 public:
  using TextRows::TextRows;

 protected:
  absl::StatusOr<bool> Read(Row* row) override {
    std::string line;
    LLMC_ASSIGN_OR_RETURN(const bool found, ReadLine(&line));
    if (!found) return false;
    LLMC_RETURN_IF_ERROR(CheckUtf8(line));
    row->columns = Value::MakeDict({{Value("text"), Value(std::move(line))}});
    return true;
  }
};

class Json : public TextRows {
 public:
  enum class Layout : uint8_t { kUnknown, kLines, kArray };

  Json(std::unique_ptr<ByteSource> source, std::string path, Layout layout)
      : TextRows(std::move(source), std::move(path)), layout_(layout) {}

 protected:
  absl::StatusOr<bool> Read(Row* row) override {
    if (layout_ == Layout::kUnknown) LLMC_RETURN_IF_ERROR(FindLayout());
    std::string text;
    LLMC_ASSIGN_OR_RETURN(const bool found,
                          layout_ == Layout::kArray ? ReadElement(&text) : ReadLine(&text));
    if (!found) return false;
    LLMC_ASSIGN_OR_RETURN(row->columns, ParseJson(text));
    if (row->columns.is_dict()) return true;
    return absl::InvalidArgumentError(
        absl::StrCat("JSON value of type ", row->columns.type_name(), ", expected an object"));
  }

 private:
  absl::Status FindLayout() {
    LLMC_ASSIGN_OR_RETURN(const int first, PeekPastSpace());
    layout_ = first == '[' ? Layout::kArray : Layout::kLines;
    if (layout_ == Layout::kArray) LLMC_RETURN_IF_ERROR(reader_.Get().status());
    return absl::OkStatus();
  }

  absl::StatusOr<int> PeekPastSpace() {
    while (true) {
      LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Peek());
      line_ = reader_.line();
      if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r') return byte;
      LLMC_RETURN_IF_ERROR(reader_.Get().status());
    }
  }

  absl::StatusOr<bool> ReadElement(std::string* text) {
    LLMC_ASSIGN_OR_RETURN(int byte, PeekPastSpace());
    if (!first_ && byte == ',') {
      LLMC_RETURN_IF_ERROR(reader_.Get().status());
      LLMC_ASSIGN_OR_RETURN(byte, PeekPastSpace());
    } else if (byte == ']') {
      return EndOfArray();
    } else if (!first_) {
      return absl::InvalidArgumentError("expected \",\" or \"]\" after an element of the array");
    }
    first_ = false;
    return CopyElement(text);
  }

  absl::StatusOr<bool> EndOfArray() {
    LLMC_RETURN_IF_ERROR(reader_.Get().status());
    LLMC_ASSIGN_OR_RETURN(const int byte, PeekPastSpace());
    if (byte == TextReader::kEnd) return false;
    return absl::InvalidArgumentError("text after the end of the JSON array");
  }

  // Copies up to the comma or bracket that ends the element; ParseJson judges it.
  absl::StatusOr<bool> CopyElement(std::string* text) {
    int depth = 0;
    bool in_string = false;
    bool escaped = false;
    while (true) {
      LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Peek());
      if (byte == TextReader::kEnd) {
        return absl::InvalidArgumentError("the file ends inside the JSON array");
      }
      const bool closes = byte == ']' || byte == '}';
      if (!in_string && depth == 0 && (byte == ',' || closes)) return true;
      if (text->size() >= kMaxRowBytes) {
        return absl::InvalidArgumentError(
            absl::StrCat("row of more than ", kMaxRowBytes, " bytes, expected shorter rows"));
      }
      if (in_string) {
        in_string = escaped || byte != '"';
        escaped = !escaped && byte == '\\';
      } else {
        in_string = byte == '"';
        depth += (byte == '[' || byte == '{') - closes;
      }
      text->push_back(static_cast<char>(byte));
      LLMC_RETURN_IF_ERROR(reader_.Get().status());
    }
  }

  Layout layout_;
  bool first_ = true;
};

class Csv : public TextRows {
 public:
  using TextRows::TextRows;

 protected:
  absl::StatusOr<bool> Read(Row* row) override {
    if (header_.empty()) LLMC_RETURN_IF_ERROR(ReadHeader());
    std::vector<std::string> fields;
    LLMC_ASSIGN_OR_RETURN(const bool found, ReadRecord(&fields));
    if (!found) return false;
    if (fields.size() != header_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(fields.size(), " fields, expected ", header_.size(), " as in the header"));
    }
    std::vector<Entry> columns;
    for (size_t i = 0; i < fields.size(); ++i) {
      columns.emplace_back(Value(header_[i]), Value(std::move(fields[i])));
    }
    row->columns = Value::MakeDict(std::move(columns));
    return true;
  }

 private:
  absl::Status ReadHeader() {
    LLMC_ASSIGN_OR_RETURN(const bool found, ReadRecord(&header_));
    if (!found) return absl::InvalidArgumentError("empty file, expected a CSV header row");
    for (size_t i = 0; i < header_.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (header_[i] != header_[j]) continue;
        return absl::InvalidArgumentError(
            absl::StrCat("column \"", header_[i], "\" is twice in the CSV header"));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<bool> ReadRecord(std::vector<std::string>* fields) {
    LLMC_RETURN_IF_ERROR(SkipBlankLines());
    line_ = reader_.line();
    LLMC_ASSIGN_OR_RETURN(const int first, reader_.Peek());
    if (first == TextReader::kEnd) return false;
    record_bytes_ = 0;
    while (true) {
      fields->emplace_back();
      LLMC_ASSIGN_OR_RETURN(const bool more, ReadField(&fields->back()));
      LLMC_RETURN_IF_ERROR(CheckUtf8(fields->back()));
      if (!more) return true;
    }
  }

  absl::Status SkipBlankLines() {
    while (true) {
      LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Peek());
      if (byte != '\n' && byte != '\r') return absl::OkStatus();
      LLMC_RETURN_IF_ERROR(reader_.Get().status());
    }
  }

  // True when another field follows on this record.
  absl::StatusOr<bool> ReadField(std::string* field) {
    LLMC_ASSIGN_OR_RETURN(const int first, reader_.Peek());
    if (first == '"') {
      LLMC_RETURN_IF_ERROR(ReadQuoted(field));
      return EndField();
    }
    while (true) {
      LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Peek());
      if (byte == ',' || byte == '\n' || byte == '\r' || byte == TextReader::kEnd) {
        return EndField();
      }
      LLMC_RETURN_IF_ERROR(Append(field));
    }
  }

  absl::Status Append(std::string* field) {
    if (++record_bytes_ > kMaxRowBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("row of more than ", kMaxRowBytes, " bytes, expected shorter rows"));
    }
    LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Get());
    field->push_back(static_cast<char>(byte));
    return absl::OkStatus();
  }

  absl::Status ReadQuoted(std::string* field) {
    LLMC_RETURN_IF_ERROR(reader_.Get().status());
    while (true) {
      LLMC_ASSIGN_OR_RETURN(int byte, reader_.Peek());
      if (byte == TextReader::kEnd) {
        return absl::InvalidArgumentError("the file ends inside a quoted field");
      }
      if (byte == '"') {
        LLMC_RETURN_IF_ERROR(reader_.Get().status());
        LLMC_ASSIGN_OR_RETURN(byte, reader_.Peek());
        if (byte != '"') return absl::OkStatus();
      }
      LLMC_RETURN_IF_ERROR(Append(field));
    }
  }

  absl::StatusOr<bool> EndField() {
    LLMC_ASSIGN_OR_RETURN(const int byte, reader_.Get());
    if (byte == ',') return true;
    if (byte == '\n' || byte == TextReader::kEnd) return false;
    if (byte != '\r') {
      return absl::InvalidArgumentError("text after the closing quote of a field");
    }
    LLMC_ASSIGN_OR_RETURN(const int next, reader_.Peek());
    if (next == '\n') LLMC_RETURN_IF_ERROR(reader_.Get().status());
    return false;
  }

  std::vector<std::string> header_;
  size_t record_bytes_ = 0;
};

}  // namespace

std::unique_ptr<RowReader> PlainTextRows(std::unique_ptr<ByteSource> source, std::string path) {
  return std::make_unique<PlainText>(std::move(source), std::move(path));
}

std::unique_ptr<RowReader> JsonLineRows(std::unique_ptr<ByteSource> source, std::string path) {
  return std::make_unique<Json>(std::move(source), std::move(path), Json::Layout::kLines);
}

std::unique_ptr<RowReader> JsonRows(std::unique_ptr<ByteSource> source, std::string path) {
  return std::make_unique<Json>(std::move(source), std::move(path), Json::Layout::kUnknown);
}

std::unique_ptr<RowReader> CsvRows(std::unique_ptr<ByteSource> source, std::string path) {
  return std::make_unique<Csv>(std::move(source), std::move(path));
}

}  // namespace llmc::dataset
