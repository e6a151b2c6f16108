#include "readers.h"

#include <cstring>
#include <string>

#include "checkpoint/safetensors.h"
#include "checkpoint/strict_json.h"
#include "dataset/text_rows.h"
#include "recipe/recipe.h"
#include "tokenizer/tokenizer.h"

namespace llmc::fuzz {
namespace {

// Bytes in memory as a file of a dataset.
class MemorySource final : public dataset::ByteSource {
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

void ReadAll(std::unique_ptr<dataset::RowReader> reader) {
  dataset::Row row;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(&row);
    if (!more.ok() || !*more) return;
  }
}

std::unique_ptr<dataset::ByteSource> Source(absl::string_view bytes) {
  return std::make_unique<MemorySource>(bytes);
}

}  // namespace

void SafetensorsHeader(absl::string_view bytes) { (void)ParseSafetensorsHeader(bytes, 4096); }

void Json(absl::string_view bytes) { (void)ParseStrictJson(bytes, "fuzz"); }

void TokenizerJson(absl::string_view bytes) {
  const auto tokenizer = Tokenizer::FromJson(bytes, "");
  if (!tokenizer.ok()) return;
  (void)(*tokenizer)
      ->Encode(
          "The quick  brown f\xc3\xb6x 123\r\n</s><s>\xe6\x97\xa5\xe6\x9c\xac e\xcc\x81 "
          "\xf0\x9f\x8e\x89 it's");
  (void)(*tokenizer)->Encode(bytes.substr(0, 200));
}

void RecipeYaml(absl::string_view bytes) {
  const absl::StatusOr<Recipe> recipe = Recipe::Parse(bytes, "fuzz");
  if (recipe.ok()) (void)ResolvedRecipeYaml(*recipe);
}

// The first byte chooses the format, and whether the bytes are compressed.
void DatasetRows(absl::string_view bytes) {
  if (bytes.empty()) return;
  const int choice = static_cast<unsigned char>(bytes[0]) % 6;
  bytes.remove_prefix(1);
  if (choice == 0) return ReadAll(dataset::CsvRows(Source(bytes), "fuzz"));
  if (choice == 1) return ReadAll(dataset::JsonLineRows(Source(bytes), "fuzz"));
  if (choice == 2) return ReadAll(dataset::JsonRows(Source(bytes), "fuzz"));
  if (choice == 3) return ReadAll(dataset::PlainTextRows(Source(bytes), "fuzz"));
  const auto kind = choice == 4 ? dataset::Compression::kGzip : dataset::Compression::kZstd;
  ReadAll(dataset::PlainTextRows(dataset::Decompress(Source(bytes), kind), "fuzz"));
}

}  // namespace llmc::fuzz
