#include "dataset/row_reader.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataset/byte_source.h"
#include "dataset/parquet_rows.h"
#include "dataset/text_rows.h"

namespace llmc::dataset {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDirectoryDepth = 16;

enum class FileFormat : uint8_t { kUnknown, kJsonLines, kJson, kCsv, kText, kParquet };

struct FileKind {
  FileFormat format = FileFormat::kUnknown;
  Compression compression = Compression::kNone;
};

FileFormat FormatOf(absl::string_view name) {
  if (absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".ndjson")) {
    return FileFormat::kJsonLines;
  }
  if (absl::EndsWith(name, ".json")) return FileFormat::kJson;
  if (absl::EndsWith(name, ".csv")) return FileFormat::kCsv;
  if (absl::EndsWith(name, ".txt")) return FileFormat::kText;
  return absl::EndsWith(name, ".parquet") ? FileFormat::kParquet : FileFormat::kUnknown;
}

FileKind KindOf(const fs::path& path) {
  const std::string lower = absl::AsciiStrToLower(path.filename().string());
  absl::string_view name = lower;
  FileKind kind;
  if (absl::ConsumeSuffix(&name, ".gz"))
    kind.compression = Compression::kGzip;
  else if (absl::ConsumeSuffix(&name, ".zst"))
    kind.compression = Compression::kZstd;
  kind.format = FormatOf(name);
  const bool compressed = kind.compression != Compression::kNone;
  if (compressed && kind.format == FileFormat::kParquet) kind.format = FileFormat::kUnknown;
  return kind;
}

absl::Status UnknownKind(const fs::path& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(),
                   ": not a dataset by its name, expected .jsonl, .json, .csv or .txt (also with "
                   ".gz or .zst) or .parquet"));
}

absl::Status ListDirectory(const fs::path& directory, int depth, std::vector<fs::path>* files) {
  if (depth > kMaxDirectoryDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory.string(), ": directories nested deeper than ", kMaxDirectoryDepth));
  }
  std::error_code error;
  std::vector<fs::path> own;
  std::vector<fs::path> below;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (absl::StartsWith(it->path().filename().string(), ".")) continue;
    std::error_code ignored;
    // Links to directories are left out: they may lead in a circle.
    if (it->is_directory(ignored) && !it->is_symlink(ignored)) below.push_back(it->path());
    if (!it->is_regular_file(ignored)) continue;
    if (KindOf(it->path()).format != FileFormat::kUnknown) own.push_back(it->path());
  }
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(directory.string(), ": ", error.message()));
  }
  std::sort(own.begin(), own.end());
  std::sort(below.begin(), below.end());
  files->insert(files->end(), own.begin(), own.end());
  for (const fs::path& child : below) LLMC_RETURN_IF_ERROR(ListDirectory(child, depth + 1, files));
  return absl::OkStatus();
}

class Concatenation : public RowReader {
 public:
  Concatenation(std::vector<fs::path> files, ColumnChoice choose)
      : files_(std::move(files)), choose_(std::move(choose)) {}

  absl::StatusOr<bool> Next(Row* row) override {
    while (true) {
      if (current_ == nullptr) {
        if (next_ == files_.size()) return false;
        LLMC_ASSIGN_OR_RETURN(current_, OpenRows(files_[next_++], choose_));
      }
      LLMC_ASSIGN_OR_RETURN(const bool found, current_->Next(row));
      if (found) return true;
      current_.reset();
    }
  }

 private:
  std::vector<fs::path> files_;
  ColumnChoice choose_;
  size_t next_ = 0;
  std::unique_ptr<RowReader> current_;
};

}  // namespace

absl::StatusOr<std::vector<fs::path>> ListDatasetFiles(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) {
      return absl::NotFoundError(absl::StrCat(path.string(), ": no such file or directory"));
    }
    if (!fs::is_directory(status)) {
      if (KindOf(path).format == FileFormat::kUnknown) return UnknownKind(path);
      files.push_back(path);
      continue;
    }
    const size_t before = files.size();
    LLMC_RETURN_IF_ERROR(ListDirectory(path, 0, &files));
    if (files.size() == before) {
      return absl::InvalidArgumentError(absl::StrCat(
          path.string(), ": no dataset file (.jsonl, .json, .csv, .txt, .parquet) inside"));
    }
  }
  return files;
}

absl::StatusOr<std::unique_ptr<RowReader>> OpenRows(const fs::path& file,
                                                    const ColumnChoice& choose) {
  const FileKind kind = KindOf(file);
  if (kind.format == FileFormat::kUnknown) return UnknownKind(file);
  if (kind.format == FileFormat::kParquet) return ParquetRows(file, choose);
  LLMC_ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenFile(file, kind.compression));
  switch (kind.format) {
    case FileFormat::kJsonLines:
      return JsonLineRows(std::move(source), file.string());
    case FileFormat::kJson:
      return JsonRows(std::move(source), file.string());
    case FileFormat::kCsv:
      return CsvRows(std::move(source), file.string());
    default:
      return PlainTextRows(std::move(source), file.string());
  }
}

std::unique_ptr<RowReader> ConcatenateFiles(std::vector<fs::path> files, ColumnChoice choose) {
  return std::make_unique<Concatenation>(std::move(files), std::move(choose));
}

}  // namespace llmc::dataset
