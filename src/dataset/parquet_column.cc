#include "dataset/parquet_column.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataset/parquet_codec.h"
#include "llmc/file.h"

namespace llmc::dataset {
namespace {

constexpr int64_t kMaxPageBytes = int64_t{256} << 20;
constexpr int64_t kMaxHeaderBytes = int64_t{16} << 20;
constexpr int kRleEncoding = 3;

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("damaged Parquet column: ", what));
}

int BitWidth(int max_level) { return std::bit_width(static_cast<uint32_t>(max_level)); }

// Levels of a v1 page: their size in four bytes, then the runs.
absl::StatusOr<HybridDecoder> TakeLevels(absl::string_view* bytes, int max_level, int encoding) {
  if (max_level == 0) return HybridDecoder();
  if (encoding != kRleEncoding) {
    return absl::UnimplementedError("Parquet levels that are bit-packed the old way");
  }
  if (bytes->size() < 4) return Damaged("its levels end early");
  uint32_t size = 0;
  for (size_t i = 0; i < 4; ++i) {
    size |= static_cast<uint32_t>(static_cast<uint8_t>((*bytes)[i])) << (8 * i);
  }
  bytes->remove_prefix(4);
  if (size > bytes->size()) return Damaged("its levels end early");
  const HybridDecoder levels(bytes->substr(0, size), BitWidth(max_level));
  bytes->remove_prefix(size);
  return levels;
}

}  // namespace

absl::StatusOr<std::shared_ptr<RandomAccessFile>> RandomAccessFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, path, "open");
  std::shared_ptr<RandomAccessFile> file(new RandomAccessFile(fd, path));
  struct stat status {};
  if (::fstat(fd, &status) != 0) return ErrnoStatus(errno, path, "stat");
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError("not a regular file");
  file->size_ = status.st_size;
  return file;
}

RandomAccessFile::~RandomAccessFile() { ::close(fd_); }

absl::StatusOr<std::string> RandomAccessFile::Read(int64_t offset, int64_t count) const {
  std::string bytes(static_cast<size_t>(count), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::pread(fd_, bytes.data() + filled, bytes.size() - filled,
                                offset + static_cast<int64_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, path_, "read");
    if (got == 0) return absl::InvalidArgumentError("the file became shorter while it was read");
    filled += static_cast<size_t>(got);
  }
  return bytes;
}

ParquetColumn::ParquetColumn(std::shared_ptr<const RandomAccessFile> file, const ParquetNode& leaf,
                             const ParquetChunk& chunk)
    : file_(std::move(file)),
      leaf_(leaf),
      chunk_(chunk),
      offset_(chunk.offset),
      end_(chunk.offset + chunk.size),
      values_left_(chunk.num_values) {}

absl::StatusOr<bool> ParquetColumn::Load() {
  if (loaded_) return true;
  while (page_values_left_ == 0) {
    if (values_left_ == 0) return false;
    LLMC_RETURN_IF_ERROR(LoadPage());
  }
  --page_values_left_;
  LLMC_ASSIGN_OR_RETURN(const uint32_t repetition, repetitions_.Next());
  LLMC_ASSIGN_OR_RETURN(const uint32_t definition, definitions_.Next());
  repetition_ = static_cast<int>(std::min<uint32_t>(repetition, 1000));
  definition_ = static_cast<int>(std::min<uint32_t>(definition, 1000));
  if (repetition_ > leaf_.max_repetition || definition_ > leaf_.max_definition) {
    return Damaged("a level is too large");
  }
  loaded_ = true;
  return true;
}

absl::StatusOr<Value> ParquetColumn::Take() {
  loaded_ = false;
  if (is_null()) return Value();
  return values_->Next();
}

absl::StatusOr<ParquetPageHeader> ParquetColumn::ReadPageHeader() {
  if (offset_ >= end_) return Damaged("its pages end early");
  // Statistics can make a header long: read on while it seems cut off.
  absl::Status error;
  for (int64_t size = 4096;; size *= 16) {
    const int64_t count = std::min(size, end_ - offset_);
    LLMC_ASSIGN_OR_RETURN(const std::string bytes, file_->Read(offset_, count));
    auto header = ParseParquetPageHeader(bytes);
    if (header.ok()) return header;
    if (count == end_ - offset_ || size > kMaxHeaderBytes) return header.status();
  }
}

absl::Status ParquetColumn::LoadPage() {
  LLMC_ASSIGN_OR_RETURN(const ParquetPageHeader header, ReadPageHeader());
  offset_ += static_cast<int64_t>(header.header_size);
  if (header.compressed_size > end_ - offset_) return Damaged("a page is longer than its column");
  if (header.uncompressed_size > kMaxPageBytes || header.compressed_size > kMaxPageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a Parquet page of more than ", kMaxPageBytes, " bytes"));
  }
  LLMC_ASSIGN_OR_RETURN(std::string raw, file_->Read(offset_, header.compressed_size));
  offset_ += header.compressed_size;
  switch (header.kind) {
    case ParquetPageHeader::Kind::kIndex:
      return absl::OkStatus();
    case ParquetPageHeader::Kind::kDictionary:
      return OpenDictionary(header, raw);
    default:
      break;
  }
  if (header.num_values > values_left_) return Damaged("it has more values than it says");
  values_left_ -= header.num_values;
  page_values_left_ = header.num_values;
  return header.kind == ParquetPageHeader::Kind::kDataV1 ? OpenDataV1(header, raw)
                                                         : OpenDataV2(header, std::move(raw));
}

absl::Status ParquetColumn::OpenDictionary(const ParquetPageHeader& header,
                                           const std::string& raw) {
  if (has_dictionary_) return Damaged("it has two dictionaries");
  LLMC_ASSIGN_OR_RETURN(
      const std::string bytes,
      DecompressPage(chunk_.codec, raw, static_cast<size_t>(header.uncompressed_size)));
  LLMC_ASSIGN_OR_RETURN(dictionary_, DecodeDictionary(bytes, leaf_));
  has_dictionary_ = true;
  return absl::OkStatus();
}

absl::Status ParquetColumn::OpenDataV1(const ParquetPageHeader& header, const std::string& raw) {
  LLMC_ASSIGN_OR_RETURN(
      page_, DecompressPage(chunk_.codec, raw, static_cast<size_t>(header.uncompressed_size)));
  absl::string_view bytes = page_;
  LLMC_ASSIGN_OR_RETURN(repetitions_,
                        TakeLevels(&bytes, leaf_.max_repetition, header.repetition_encoding));
  LLMC_ASSIGN_OR_RETURN(definitions_,
                        TakeLevels(&bytes, leaf_.max_definition, header.definition_encoding));
  return OpenValues(bytes, header.encoding);
}

absl::Status ParquetColumn::OpenDataV2(const ParquetPageHeader& header, std::string raw) {
  const int64_t level_bytes = header.repetition_bytes + header.definition_bytes;
  if (level_bytes > header.compressed_size || level_bytes > header.uncompressed_size) {
    return Damaged("its levels end early");
  }
  const auto levels = static_cast<size_t>(level_bytes);
  page_ = std::move(raw);
  if (header.is_compressed) {
    LLMC_ASSIGN_OR_RETURN(
        const std::string values,
        DecompressPage(chunk_.codec, absl::string_view(page_).substr(levels),
                       static_cast<size_t>(header.uncompressed_size - level_bytes)));
    page_.resize(levels);
    page_ += values;
  }
  const absl::string_view bytes = page_;
  const auto repetition_bytes = static_cast<size_t>(header.repetition_bytes);
  repetitions_ = HybridDecoder(bytes.substr(0, repetition_bytes), BitWidth(leaf_.max_repetition));
  definitions_ = HybridDecoder(bytes.substr(repetition_bytes, levels - repetition_bytes),
                               BitWidth(leaf_.max_definition));
  return OpenValues(bytes.substr(levels), header.encoding);
}

absl::Status ParquetColumn::OpenValues(absl::string_view bytes, int encoding) {
  // A page of nulls may have nothing that a decoder could open.
  if (bytes.empty() && leaf_.max_definition > 0) encoding = 0;
  const std::vector<Value>* dictionary = has_dictionary_ ? &dictionary_ : nullptr;
  LLMC_ASSIGN_OR_RETURN(values_, DecodeValues({bytes, encoding, &leaf_, dictionary}));
  return absl::OkStatus();
}

}  // namespace llmc::dataset
