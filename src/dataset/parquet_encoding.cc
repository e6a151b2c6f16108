#include "dataset/parquet_encoding.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataset/python_text.h"
#include "dataset/row_reader.h"

namespace llmc::dataset {
namespace {

constexpr int64_t kMaxBlockValues = 1 << 16;

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("damaged Parquet page: ", what));
}

uint64_t LittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

// Takes `count` bytes off the front.
absl::StatusOr<absl::string_view> Take(absl::string_view* bytes, size_t count) {
  if (count > bytes->size()) return Damaged("it ends early");
  const absl::string_view taken = bytes->substr(0, count);
  bytes->remove_prefix(count);
  return taken;
}

absl::StatusOr<Value> TextValue(absl::string_view text) {
  if (text.size() > kMaxRowBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text of ", text.size(), " bytes, expected at most ", kMaxRowBytes));
  }
  if (const auto offset = FirstInvalidUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", *offset, " of a text: not UTF-8"));
  }
  return Value(text);
}

absl::Status UnsupportedType(ParquetType type) {
  return absl::UnimplementedError(absl::StrCat("Parquet columns of type ",
                                               type == ParquetType::kInt96 ? "INT96" : "FIXED_LEN",
                                               ", expected text, integers, floats or booleans"));
}

Value IntegerValue(int64_t value, const ParquetNode& leaf) {
  const bool is_unsigned = leaf.annotation == ParquetAnnotation::kUnsigned32;
  return Value(is_unsigned ? static_cast<int64_t>(static_cast<uint32_t>(value)) : value);
}

class PlainValues : public ParquetValues {
 public:
  PlainValues(absl::string_view bytes, const ParquetNode& leaf) : bytes_(bytes), leaf_(leaf) {}

  bool at_end() const { return bytes_.empty(); }

  absl::StatusOr<Value> Next() override {
    switch (leaf_.type) {
      case ParquetType::kBoolean:
        return NextBoolean();
      case ParquetType::kInt32: {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view raw, Take(&bytes_, 4));
        return IntegerValue(static_cast<int32_t>(LittleEndian(raw)), leaf_);
      }
      case ParquetType::kInt64: {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view raw, Take(&bytes_, 8));
        return Value(static_cast<int64_t>(LittleEndian(raw)));
      }
      case ParquetType::kFloat: {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view raw, Take(&bytes_, 4));
        const auto number = std::bit_cast<float>(static_cast<uint32_t>(LittleEndian(raw)));
        return Value(static_cast<double>(number));
      }
      case ParquetType::kDouble: {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view raw, Take(&bytes_, 8));
        return Value(std::bit_cast<double>(LittleEndian(raw)));
      }
      case ParquetType::kByteArray: {
        LLMC_ASSIGN_OR_RETURN(const absl::string_view length, Take(&bytes_, 4));
        LLMC_ASSIGN_OR_RETURN(const absl::string_view text, Take(&bytes_, LittleEndian(length)));
        return TextValue(text);
      }
      default:
        return UnsupportedType(leaf_.type);
    }
  }

 private:
  absl::StatusOr<Value> NextBoolean() {
    if (bytes_.empty()) return Damaged("it ends early");
    const bool value = ((static_cast<uint8_t>(bytes_[0]) >> bit_) & 1) != 0;
    bit_ = (bit_ + 1) % 8;
    if (bit_ == 0) bytes_.remove_prefix(1);
    return Value(value);
  }

  absl::string_view bytes_;
  const ParquetNode& leaf_;
  int bit_ = 0;
};

class DictionaryValues : public ParquetValues {
 public:
  DictionaryValues(HybridDecoder indices, const std::vector<Value>& dictionary)
      : indices_(indices), dictionary_(dictionary) {}

  absl::StatusOr<Value> Next() override {
    LLMC_ASSIGN_OR_RETURN(const uint32_t index, indices_.Next());
    if (index >= dictionary_.size()) return Damaged("an index is outside the dictionary");
    return dictionary_[index];
  }

 private:
  HybridDecoder indices_;
  const std::vector<Value>& dictionary_;
};

class BooleanRuns : public ParquetValues {
 public:
  explicit BooleanRuns(HybridDecoder runs) : runs_(runs) {}

  absl::StatusOr<Value> Next() override {
    LLMC_ASSIGN_OR_RETURN(const uint32_t value, runs_.Next());
    return Value(value != 0);
  }

 private:
  HybridDecoder runs_;
};

class DeltaIntegers : public ParquetValues {
 public:
  DeltaIntegers(DeltaDecoder decoder, const ParquetNode& leaf)
      : decoder_(std::move(decoder)), leaf_(leaf) {}

  absl::StatusOr<Value> Next() override {
    LLMC_ASSIGN_OR_RETURN(const int64_t value, decoder_.Next());
    // 32-bit columns wrap in 32 bits.
    const bool narrow = leaf_.type == ParquetType::kInt32;
    return IntegerValue(narrow ? static_cast<int32_t>(value) : value, leaf_);
  }

 private:
  DeltaDecoder decoder_;
  const ParquetNode& leaf_;
};

// DELTA_LENGTH_BYTE_ARRAY: all lengths, then all bytes.
class DeltaLengthTexts : public ParquetValues {
 public:
  static absl::StatusOr<DeltaLengthTexts> Open(absl::string_view bytes) {
    LLMC_ASSIGN_OR_RETURN(DeltaDecoder lengths, DeltaDecoder::Open(bytes));
    DeltaDecoder ahead = lengths;
    LLMC_ASSIGN_OR_RETURN(const absl::string_view text, ahead.SkipToRest());
    return DeltaLengthTexts(std::move(lengths), text);
  }

  absl::StatusOr<Value> Next() override {
    LLMC_ASSIGN_OR_RETURN(const absl::string_view text, NextBytes());
    return TextValue(text);
  }

  absl::StatusOr<absl::string_view> NextBytes() {
    LLMC_ASSIGN_OR_RETURN(const int64_t length, lengths_.Next());
    if (length < 0) return Damaged("a text has a negative length");
    return Take(&text_, static_cast<size_t>(length));
  }

 private:
  DeltaLengthTexts(DeltaDecoder lengths, absl::string_view text)
      : lengths_(std::move(lengths)), text_(text) {}

  DeltaDecoder lengths_;
  absl::string_view text_;
};

// DELTA_BYTE_ARRAY: lengths shared with the text before, then the suffixes.
class DeltaTexts : public ParquetValues {
 public:
  DeltaTexts(DeltaDecoder prefixes, DeltaLengthTexts suffixes)
      : prefixes_(std::move(prefixes)), suffixes_(std::move(suffixes)) {}

  absl::StatusOr<Value> Next() override {
    LLMC_ASSIGN_OR_RETURN(const int64_t shared, prefixes_.Next());
    LLMC_ASSIGN_OR_RETURN(const absl::string_view suffix, suffixes_.NextBytes());
    if (shared < 0 || shared > static_cast<int64_t>(last_.size())) {
      return Damaged("a text shares more than the text before has");
    }
    last_.resize(static_cast<size_t>(shared));
    last_.append(suffix.data(), suffix.size());
    return TextValue(last_);
  }

 private:
  DeltaDecoder prefixes_;
  DeltaLengthTexts suffixes_;
  std::string last_;
};

using ValuesOr = absl::StatusOr<std::unique_ptr<ParquetValues>>;

ValuesOr DecodeIndices(const ParquetEncodedValues& encoded) {
  if (encoded.dictionary == nullptr) return Damaged("it needs a dictionary that is not there");
  absl::string_view bytes = encoded.bytes;
  // A page of nulls only may leave out even the width.
  const int width = bytes.empty() ? 0 : static_cast<uint8_t>(bytes[0]);
  if (width > 32) return Damaged("dictionary indices are too wide");
  if (!bytes.empty()) bytes.remove_prefix(1);
  return std::make_unique<DictionaryValues>(HybridDecoder(bytes, width), *encoded.dictionary);
}

ValuesOr DecodeBooleanRuns(const ParquetEncodedValues& encoded) {
  if (encoded.leaf->type != ParquetType::kBoolean) return Damaged("RLE of no booleans");
  absl::string_view bytes = encoded.bytes;
  LLMC_ASSIGN_OR_RETURN(const absl::string_view length, Take(&bytes, 4));
  LLMC_ASSIGN_OR_RETURN(bytes, Take(&bytes, LittleEndian(length)));
  return std::make_unique<BooleanRuns>(HybridDecoder(bytes, 1));
}

ValuesOr DecodeDelta(const ParquetEncodedValues& encoded) {
  const ParquetType type = encoded.leaf->type;
  if (type != ParquetType::kInt32 && type != ParquetType::kInt64) {
    return Damaged("delta encoding of no integers");
  }
  LLMC_ASSIGN_OR_RETURN(DeltaDecoder decoder, DeltaDecoder::Open(encoded.bytes));
  return std::make_unique<DeltaIntegers>(std::move(decoder), *encoded.leaf);
}

ValuesOr DecodeDeltaText(const ParquetEncodedValues& encoded, bool shares_prefixes) {
  if (encoded.leaf->type != ParquetType::kByteArray) return UnsupportedType(encoded.leaf->type);
  if (!shares_prefixes) {
    LLMC_ASSIGN_OR_RETURN(DeltaLengthTexts texts, DeltaLengthTexts::Open(encoded.bytes));
    return std::make_unique<DeltaLengthTexts>(std::move(texts));
  }
  LLMC_ASSIGN_OR_RETURN(DeltaDecoder prefixes, DeltaDecoder::Open(encoded.bytes));
  DeltaDecoder ahead = prefixes;
  LLMC_ASSIGN_OR_RETURN(const absl::string_view rest, ahead.SkipToRest());
  LLMC_ASSIGN_OR_RETURN(DeltaLengthTexts suffixes, DeltaLengthTexts::Open(rest));
  return std::make_unique<DeltaTexts>(std::move(prefixes), std::move(suffixes));
}

}  // namespace

absl::Status HybridDecoder::StartRun() {
  uint64_t header = 0;
  for (int shift = 0;; shift += 7) {
    if (bytes_.empty() || shift > 35) return Damaged("a run is broken");
    const auto byte = static_cast<uint8_t>(bytes_[0]);
    bytes_.remove_prefix(1);
    header |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) break;
  }
  packed_ = (header & 1) != 0;
  left_ = packed_ ? (header >> 1) * 8 : header >> 1;
  bits_ = 0;
  num_bits_ = 0;
  if (packed_) return absl::OkStatus();
  const auto width = static_cast<size_t>((bit_width_ + 7) / 8);
  LLMC_ASSIGN_OR_RETURN(const absl::string_view raw, Take(&bytes_, width));
  repeated_ = static_cast<uint32_t>(LittleEndian(raw));
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> HybridDecoder::Next() {
  if (bit_width_ == 0) return 0;
  while (left_ == 0) LLMC_RETURN_IF_ERROR(StartRun());
  --left_;
  if (!packed_) return repeated_;
  while (num_bits_ < bit_width_) {
    if (bytes_.empty()) return Damaged("packed values end early");
    bits_ |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[0])) << num_bits_;
    bytes_.remove_prefix(1);
    num_bits_ += 8;
  }
  const auto value = static_cast<uint32_t>(bits_ & ((uint64_t{1} << bit_width_) - 1));
  bits_ >>= bit_width_;
  num_bits_ -= bit_width_;
  return value;
}

absl::StatusOr<DeltaDecoder> DeltaDecoder::Open(absl::string_view bytes) {
  DeltaDecoder decoder;
  decoder.bytes_ = bytes;
  LLMC_ASSIGN_OR_RETURN(const uint64_t block, decoder.ReadVarint());
  LLMC_ASSIGN_OR_RETURN(const uint64_t miniblocks, decoder.ReadVarint());
  LLMC_ASSIGN_OR_RETURN(const uint64_t count, decoder.ReadVarint());
  LLMC_ASSIGN_OR_RETURN(const uint64_t first, decoder.ReadVarint());
  const bool valid = block > 0 && block <= kMaxBlockValues && miniblocks > 0 &&
                     miniblocks <= block && block % miniblocks == 0 &&
                     (block / miniblocks) % 8 == 0 && count <= INT32_MAX;
  if (!valid) return Damaged("a delta header is broken");
  decoder.num_miniblocks_ = static_cast<int64_t>(miniblocks);
  decoder.per_miniblock_ = static_cast<int64_t>(block / miniblocks);
  decoder.num_values_ = static_cast<int64_t>(count);
  decoder.value_ = static_cast<int64_t>((first >> 1) ^ (uint64_t{0} - (first & 1)));
  return decoder;
}

absl::StatusOr<uint64_t> DeltaDecoder::ReadVarint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    LLMC_ASSIGN_OR_RETURN(const absl::string_view byte, Take(&bytes_, 1));
    value |= static_cast<uint64_t>(byte[0] & 0x7f) << shift;
    if ((byte[0] & 0x80) == 0) return value;
  }
  return Damaged("a number is too long");
}

absl::Status DeltaDecoder::StartBlock() {
  LLMC_ASSIGN_OR_RETURN(const uint64_t zigzag, ReadVarint());
  min_delta_ = static_cast<int64_t>((zigzag >> 1) ^ (uint64_t{0} - (zigzag & 1)));
  LLMC_ASSIGN_OR_RETURN(const absl::string_view widths,
                        Take(&bytes_, static_cast<size_t>(num_miniblocks_)));
  widths_.assign(widths.begin(), widths.end());
  next_miniblock_ = 0;
  return absl::OkStatus();
}

absl::Status DeltaDecoder::StartMiniblock() {
  if (next_miniblock_ >= widths_.size()) LLMC_RETURN_IF_ERROR(StartBlock());
  width_ = widths_[next_miniblock_++];
  if (width_ > 64) return Damaged("a delta is too wide");
  LLMC_ASSIGN_OR_RETURN(miniblock_,
                        Take(&bytes_, static_cast<size_t>(per_miniblock_ * width_ / 8)));
  left_ = per_miniblock_;
  bit_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> DeltaDecoder::Next() {
  if (num_read_ >= num_values_) return Damaged("it has fewer values than it says");
  if (num_read_++ == 0) return value_;
  if (left_ == 0) LLMC_RETURN_IF_ERROR(StartMiniblock());
  --left_;
  uint64_t delta = 0;
  for (int done = 0; done < width_;) {
    const auto byte = static_cast<uint8_t>(miniblock_[static_cast<size_t>(bit_ / 8)]);
    const int shift = static_cast<int>(bit_ % 8);
    const int count = std::min(8 - shift, width_ - done);
    delta |= static_cast<uint64_t>((byte >> shift) & ((1 << count) - 1)) << done;
    done += count;
    bit_ += count;
  }
  // Deltas wrap around, by design.
  value_ = static_cast<int64_t>(static_cast<uint64_t>(value_) + static_cast<uint64_t>(min_delta_) +
                                delta);
  return value_;
}

absl::StatusOr<absl::string_view> DeltaDecoder::SkipToRest() {
  while (num_read_ < num_values_) LLMC_RETURN_IF_ERROR(Next().status());
  return bytes_;
}

absl::StatusOr<std::unique_ptr<ParquetValues>> DecodeValues(const ParquetEncodedValues& encoded) {
  switch (encoded.encoding) {
    case 0:
      return std::make_unique<PlainValues>(encoded.bytes, *encoded.leaf);
    case 2:
    case 8:
      return DecodeIndices(encoded);
    case 3:
      return DecodeBooleanRuns(encoded);
    case 5:
      return DecodeDelta(encoded);
    case 6:
      return DecodeDeltaText(encoded, false);
    case 7:
      return DecodeDeltaText(encoded, true);
    default:
      return absl::UnimplementedError(
          absl::StrCat("Parquet encoding ", encoded.encoding,
                       encoded.encoding == 9 ? " (BYTE_STREAM_SPLIT)" : "",
                       ", expected plain, dictionary, RLE or delta"));
  }
}

absl::StatusOr<std::vector<Value>> DecodeDictionary(absl::string_view bytes,
                                                    const ParquetNode& leaf) {
  if (leaf.type == ParquetType::kBoolean) return Damaged("a dictionary of booleans");
  PlainValues plain(bytes, leaf);
  std::vector<Value> values;
  while (!plain.at_end()) {
    LLMC_ASSIGN_OR_RETURN(Value value, plain.Next());
    values.push_back(std::move(value));
  }
  return values;
}

}  // namespace llmc::dataset
