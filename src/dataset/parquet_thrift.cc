#include "dataset/parquet_thrift.h"

namespace llmc::dataset {
namespace {

constexpr int kMaxDepth = 64;

absl::Status Damaged() { return absl::InvalidArgumentError("a Parquet header is damaged"); }

// Counts one level of nesting while it lives.
class Level {
 public:
  explicit Level(int* depth) : depth_(depth) { ++*depth_; }
  ~Level() { --*depth_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  int* depth_;
};

}  // namespace

absl::StatusOr<uint8_t> ThriftReader::ReadByte() {
  if (position_ >= bytes_.size()) return Damaged();
  return static_cast<uint8_t>(bytes_[position_++]);
}

absl::StatusOr<uint64_t> ThriftReader::ReadVarint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    LLMC_ASSIGN_OR_RETURN(const uint8_t byte, ReadByte());
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return Damaged();
}

absl::StatusOr<int64_t> ThriftReader::ReadInteger() {
  LLMC_ASSIGN_OR_RETURN(const uint64_t zigzag, ReadVarint());
  return static_cast<int64_t>((zigzag >> 1) ^ (uint64_t{0} - (zigzag & 1)));
}

absl::StatusOr<absl::string_view> ThriftReader::ReadBinary() {
  LLMC_ASSIGN_OR_RETURN(const uint64_t size, ReadVarint());
  if (size > bytes_.size() - position_) return Damaged();
  const absl::string_view bytes = bytes_.substr(position_, static_cast<size_t>(size));
  position_ += static_cast<size_t>(size);
  return bytes;
}

absl::Status ThriftReader::ReadStruct(const Field& field) {
  const Level level(&depth_);
  if (depth_ > kMaxDepth) return Damaged();
  int64_t id = 0;
  while (true) {
    LLMC_ASSIGN_OR_RETURN(const uint8_t header, ReadByte());
    const uint8_t type = header & 0x0f;
    if (type == 0) return absl::OkStatus();
    if (type > static_cast<uint8_t>(ThriftType::kStruct)) return Damaged();
    if ((header >> 4) != 0) {
      id += header >> 4;
    } else {
      LLMC_ASSIGN_OR_RETURN(id, ReadInteger());
    }
    if (id < 0 || id > INT16_MAX) return Damaged();
    LLMC_RETURN_IF_ERROR(field(static_cast<int>(id), static_cast<ThriftType>(type)));
  }
}

absl::Status ThriftReader::ReadList(const std::function<absl::Status(ThriftType)>& element) {
  const Level level(&depth_);
  if (depth_ > kMaxDepth) return Damaged();
  LLMC_ASSIGN_OR_RETURN(const uint8_t header, ReadByte());
  const uint8_t type = header & 0x0f;
  if (type == 0 || type > static_cast<uint8_t>(ThriftType::kStruct)) return Damaged();
  uint64_t count = header >> 4;
  if (count == 15) {
    LLMC_ASSIGN_OR_RETURN(count, ReadVarint());
  }
  // Every element takes a byte at least.
  if (count > bytes_.size() - position_) return Damaged();
  for (uint64_t i = 0; i < count; ++i) {
    LLMC_RETURN_IF_ERROR(element(static_cast<ThriftType>(type)));
  }
  return absl::OkStatus();
}

absl::Status ThriftReader::SkipMap() {
  const Level level(&depth_);
  if (depth_ > kMaxDepth) return Damaged();
  LLMC_ASSIGN_OR_RETURN(const uint64_t count, ReadVarint());
  if (count == 0) return absl::OkStatus();
  if (count > bytes_.size() - position_) return Damaged();
  LLMC_ASSIGN_OR_RETURN(const uint8_t types, ReadByte());
  for (uint64_t i = 0; i < count; ++i) {
    LLMC_RETURN_IF_ERROR(Skip(static_cast<ThriftType>(types >> 4)));
    LLMC_RETURN_IF_ERROR(Skip(static_cast<ThriftType>(types & 0x0f)));
  }
  return absl::OkStatus();
}

absl::Status ThriftReader::Skip(ThriftType type) {
  switch (type) {
    case ThriftType::kTrue:
    case ThriftType::kFalse:
      return absl::OkStatus();
    case ThriftType::kByte:
      return ReadByte().status();
    case ThriftType::kI16:
    case ThriftType::kI32:
    case ThriftType::kI64:
      return ReadVarint().status();
    case ThriftType::kDouble:
      if (bytes_.size() - position_ < 8) return Damaged();
      position_ += 8;
      return absl::OkStatus();
    case ThriftType::kBinary:
      return ReadBinary().status();
    case ThriftType::kList:
    case ThriftType::kSet:
      return ReadList([this](ThriftType element) {
        // A bool in a list takes a byte, unlike one in a struct.
        const bool is_bool = element == ThriftType::kTrue || element == ThriftType::kFalse;
        return Skip(is_bool ? ThriftType::kByte : element);
      });
    case ThriftType::kMap:
      return SkipMap();
    case ThriftType::kStruct:
      return ReadStruct([this](int, ThriftType field) { return Skip(field); });
    case ThriftType::kStop:
      break;
  }
  return Damaged();
}

}  // namespace llmc::dataset
