#include <xxhash.h>

#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "dataset/dataset.h"
#include "llmc/file.h"

namespace llmc {
namespace {

void AppendLittleEndian(uint64_t value, int num_bytes, std::string* out) {
  for (int i = 0; i < num_bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

}  // namespace

std::string TokenHash(const std::vector<std::vector<int32_t>>& rows) {
  const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  XXH3_128bits_reset(state.get());
  std::string bytes;
  for (const std::vector<int32_t>& row : rows) {
    bytes.clear();
    AppendLittleEndian(row.size(), 8, &bytes);
    for (const int32_t id : row) AppendLittleEndian(static_cast<uint32_t>(id), 4, &bytes);
    XXH3_128bits_update(state.get(), bytes.data(), bytes.size());
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)));
}

absl::Status WriteTokenRows(const std::vector<std::vector<int32_t>>& rows,
                            const std::filesystem::path& output) {
  std::string text;
  for (const std::vector<int32_t>& row : rows) {
    text += "{\"input_ids\": [";
    for (size_t i = 0; i < row.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", row[i]);
    text += "]}\n";
  }
  return WriteFileDurably(output, text);
}

}  // namespace llmc
