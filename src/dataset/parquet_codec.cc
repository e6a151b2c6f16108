#include "dataset/parquet_codec.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataset/byte_source.h"

namespace llmc::dataset {
namespace {

absl::Status Damaged(absl::string_view codec) {
  return absl::InvalidArgumentError(absl::StrCat("a ", codec, " page is damaged"));
}

// Bytes in memory, for the stream decompressors.
class MemorySource : public ByteSource {
 public:
  explicit MemorySource(absl::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<size_t> Read(char* to, size_t size) override {
    const size_t count = std::min(size, bytes_.size());
    std::memcpy(to, bytes_.data(), count);
    bytes_.remove_prefix(count);
    return count;
  }

 private:
  absl::string_view bytes_;
};

absl::StatusOr<std::string> ReadAll(Compression compression, absl::string_view bytes, size_t size) {
  const auto source = Decompress(std::make_unique<MemorySource>(bytes), compression);
  std::string out;
  char block[16384];
  while (out.size() <= size) {
    LLMC_ASSIGN_OR_RETURN(const size_t count, source->Read(block, sizeof(block)));
    if (count == 0) break;
    out.append(block, count);
  }
  if (out.size() != size) return Damaged("compressed");
  return out;
}

// The raw Snappy format: the size as a varint, then literals and copies.
class SnappyDecoder {
 public:
  SnappyDecoder(absl::string_view in, size_t size) : in_(in), size_(size) {}

  absl::StatusOr<std::string> Run() {
    if (ReadVarint() != size_) return Damaged("Snappy");
    while (!in_.empty()) {
      const auto tag = static_cast<uint8_t>(TakeByte());
      const bool ok = (tag & 3) == 0 ? Literal(tag) : Copy(tag);
      if (!ok) return Damaged("Snappy");
    }
    if (out_.size() != size_) return Damaged("Snappy");
    return std::move(out_);
  }

 private:
  char TakeByte() {
    const char byte = in_[0];
    in_.remove_prefix(1);
    return byte;
  }

  uint64_t ReadVarint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 35 && !in_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(TakeByte());
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return UINT64_MAX;
  }

  // `count` little-endian bytes; false when they are not there.
  bool ReadNumber(size_t count, size_t* value) {
    if (in_.size() < count) return false;
    *value = 0;
    for (size_t i = 0; i < count; ++i) {
      *value |= static_cast<size_t>(static_cast<uint8_t>(TakeByte())) << (8 * i);
    }
    return true;
  }

  bool Literal(uint8_t tag) {
    size_t length = tag >> 2;
    if (length >= 60 && !ReadNumber(length - 59, &length)) return false;
    ++length;
    if (length > in_.size() || length > size_ - out_.size()) return false;
    out_.append(in_.data(), length);
    in_.remove_prefix(length);
    return true;
  }

  bool Copy(uint8_t tag) {
    size_t length = (tag >> 2) + 1;
    size_t offset = 0;
    if ((tag & 3) == 1) {
      length = ((tag >> 2) & 7) + 4;
      if (!ReadNumber(1, &offset)) return false;
      offset |= static_cast<size_t>(tag >> 5) << 8;
    } else if (!ReadNumber((tag & 3) == 2 ? 2 : 4, &offset)) {
      return false;
    }
    if (offset == 0 || offset > out_.size() || length > size_ - out_.size()) return false;
    // Byte by byte: a copy may overlap what it writes.
    for (size_t i = 0; i < length; ++i) out_.push_back(out_[out_.size() - offset]);
    return true;
  }

  absl::string_view in_;
  size_t size_;
  std::string out_;
};

absl::string_view CodecName(int codec) {
  switch (codec) {
    case 3:
      return "LZO";
    case 4:
      return "Brotli";
    case 5:
      return "LZ4";
    case 7:
      return "LZ4_RAW";
    default:
      return "unknown";
  }
}

}  // namespace

absl::StatusOr<std::string> DecompressPage(int codec, absl::string_view bytes, size_t size) {
  switch (codec) {
    case 0:
      if (bytes.size() != size) return Damaged("plain");
      return std::string(bytes);
    case 1:
      return SnappyDecoder(bytes, size).Run();
    case 2:
      return ReadAll(Compression::kGzip, bytes, size);
    case 6:
      return ReadAll(Compression::kZstd, bytes, size);
    default:
      return absl::UnimplementedError(absl::StrCat("Parquet codec ", CodecName(codec), " (", codec,
                                                   "), expected Snappy, gzip, zstd or none"));
  }
}

}  // namespace llmc::dataset
