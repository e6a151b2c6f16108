// The hash that journals and manifests hold: XXH3, 128 bits, as 32 lower-case
// hex digits in the canonical (big-endian) order, what `xxhsum -H128` prints.
#ifndef LLMC_CHECKPOINT_CONTENT_HASH_H_
#define LLMC_CHECKPOINT_CONTENT_HASH_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

std::string ContentHash(std::span<const std::byte> bytes);
std::string ContentHash(absl::string_view bytes);

// The same over pieces given in order.
class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  ContentHasher(const ContentHasher&) = delete;
  ContentHasher& operator=(const ContentHasher&) = delete;

  void Add(std::span<const std::byte> piece);
  std::string Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_CONTENT_HASH_H_
