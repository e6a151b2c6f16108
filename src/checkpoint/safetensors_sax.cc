#include "checkpoint/safetensors_sax.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/strict_json.h"
#include "nlohmann/json.hpp"

namespace llmc {
namespace {

using Json = nlohmann::json;

// The reference's parser gives up at this many open objects and arrays.
constexpr int kMaxDepth = 127;

// Receives the parser's events. Every method returns false to stop; `error` then
// says why. Follows the reference's deserialiser: a tensor is an object with
// dtype, shape and data_offsets once each, other keys are ignored, or it is the
// list of the three.
class HeaderReader : public Json::json_sax_t {
 public:
  RawHeader header;
  std::string error;

  bool null() override {
    if (place_ == Place::kHeader && name_ == "__metadata__") return true;
    return Scalar("null");
  }
  bool boolean(bool) override { return Scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return Scalar("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Scalar("a fraction"); }
  bool binary(binary_t&) override { return Scalar("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (skipped_ > 0) return true;
    if (place_ == Place::kShape) {
      tensor_.shape.push_back(value);
      return true;
    }
    if (place_ != Place::kOffsets) return Scalar("a number");
    if (num_offsets_ == 2) return Fail("data_offsets has more than 2 entries");
    (num_offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    return true;
  }

  bool string(string_t& value) override {
    if (skipped_ > 0) return true;
    if (place_ == Place::kMetadata) {
      if (header.metadata.emplace(metadata_key_, std::move(value)).second) return true;
      return Fail(absl::StrCat("__metadata__ has ", Quoted(metadata_key_), " twice"));
    }
    if (!BeginListField()) return false;
    if (!InTensor() || field_ != Field::kDtype) return Scalar("a string");
    tensor_.dtype = std::move(value);
    return true;
  }

  bool key(string_t& value) override {
    if (skipped_ > 0) return true;
    if (place_ == Place::kMetadata) {
      metadata_key_ = std::move(value);
      return true;
    }
    if (place_ == Place::kTensor) return FieldKey(value);
    name_ = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (!Enter()) return false;
    if (skipped_ > 0) return Skip();
    switch (place_) {
      case Place::kStart:
        place_ = Place::kHeader;
        return true;
      case Place::kHeader:
        return name_ == "__metadata__" ? BeginMetadata() : BeginTensor(Place::kTensor);
      case Place::kTensor:
        if (field_ == Field::kOther) return Skip();
        [[fallthrough]];
      default:
        return Fail("an object where none belongs");
    }
  }

  bool end_object() override {
    --depth_;
    if (skipped_ > 0) return Unskip();
    if (place_ == Place::kTensor) return EndTensor();
    place_ = place_ == Place::kMetadata ? Place::kHeader : Place::kDone;
    return true;
  }

  bool start_array(std::size_t) override {
    if (!Enter()) return false;
    if (skipped_ > 0) return Skip();
    if (place_ == Place::kHeader && name_ != "__metadata__") return BeginTensor(Place::kTensorList);
    if (!BeginListField()) return false;
    if (!InTensor()) return Fail("a list where none belongs");
    if (field_ == Field::kOther) return Skip();
    if (field_ == Field::kDtype) return Fail("dtype is a list");
    outer_ = place_;
    place_ = field_ == Field::kShape ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    --depth_;
    if (skipped_ > 0) return Unskip();
    if (place_ == Place::kTensorList) return EndTensor();
    if (place_ == Place::kOffsets && num_offsets_ != 2)
      return Fail("data_offsets has less than 2 entries");
    place_ = outer_;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& e) override {
    error = absl::StrCat("header: not valid JSON at byte ", position, ": ",
                         absl::CHexEscape(absl::string_view(e.what()).substr(0, 200)));
    return false;
  }

 private:
  enum class Place { kStart, kHeader, kMetadata, kTensor, kTensorList, kShape, kOffsets, kDone };
  enum class Field { kDtype, kShape, kOffsets, kOther };

  bool InTensor() const { return place_ == Place::kTensor || place_ == Place::kTensorList; }

  bool Fail(absl::string_view what) {
    error = name_.empty() ? absl::StrCat("header: ", what)
                          : absl::StrCat("header entry ", Quoted(name_), ": ", what);
    return false;
  }

  // Any value that is only welcome under an unknown key.
  bool Scalar(absl::string_view what) {
    if (skipped_ > 0 || (place_ == Place::kTensor && field_ == Field::kOther)) return true;
    return Fail(absl::StrCat(what, " where it does not belong"));
  }

  bool Enter() {
    return ++depth_ <= kMaxDepth || Fail(absl::StrCat("nested more than ", kMaxDepth, " deep"));
  }
  bool Skip() {
    ++skipped_;
    return true;
  }
  bool Unskip() {
    --skipped_;
    return true;
  }

  bool BeginMetadata() {
    if (has_metadata_) return Fail("given twice");
    has_metadata_ = true;
    place_ = Place::kMetadata;
    return true;
  }

  bool BeginTensor(Place place) {
    tensor_ = RawTensor{};
    tensor_.name = name_;
    seen_ = 0;
    num_offsets_ = 0;
    list_position_ = 0;
    place_ = place;
    return true;
  }

  bool EndTensor() {
    if (seen_ != 7) return Fail("expected dtype, shape and data_offsets");
    header.tensors.push_back(std::move(tensor_));
    place_ = Place::kHeader;
    return true;
  }

  bool SeeField(Field field) {
    field_ = field;
    if (field == Field::kOther) return true;
    const int bit = 1 << static_cast<int>(field);
    if ((seen_ & bit) != 0) return Fail("a field given twice");
    seen_ |= bit;
    return true;
  }

  bool FieldKey(const std::string& key) {
    if (key == "dtype") return SeeField(Field::kDtype);
    if (key == "shape") return SeeField(Field::kShape);
    if (key == "data_offsets") return SeeField(Field::kOffsets);
    return SeeField(Field::kOther);
  }

  // In the list form the position names the field.
  bool BeginListField() {
    if (place_ != Place::kTensorList) return true;
    if (list_position_ == 3) return Fail("a list of more than 3 entries");
    return SeeField(static_cast<Field>(list_position_++));
  }

  Place place_ = Place::kStart;
  Place outer_ = Place::kTensor;
  Field field_ = Field::kOther;
  int depth_ = 0;
  int skipped_ = 0;  // Open objects and arrays under an unknown key.
  bool has_metadata_ = false;
  std::string name_, metadata_key_;
  RawTensor tensor_;
  int seen_ = 0;  // Bit per Field.
  int num_offsets_ = 0;
  int list_position_ = 0;
};

}  // namespace

absl::StatusOr<RawHeader> ParseRawHeader(absl::string_view json) {
  // The parser skips a byte order mark and stops at a NUL; the reference does
  // neither.
  if (json.find('\0') != absl::string_view::npos)
    return absl::InvalidArgumentError("header: not valid JSON: a NUL byte");
  if (json.substr(0, 3) == "\xef\xbb\xbf")
    return absl::InvalidArgumentError("header: not valid JSON: begins with a byte order mark");
  HeaderReader reader;
  if (Json::sax_parse(json.begin(), json.end(), &reader) && reader.error.empty())
    return std::move(reader.header);
  return absl::InvalidArgumentError(reader.error);
}

}  // namespace llmc
