// Ids of pieces seen before, per thread.
#ifndef LLMC_TOKENIZER_WORD_CACHE_H_
#define LLMC_TOKENIZER_WORD_CACHE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace llmc {

// The calling thread's cache for one model. Words are short and repeat, and a
// thread rarely changes its tokenizer, so there is one cache a thread and no lock.
class WordCache {
 public:
  // The calling thread's cache, emptied when another owner used it last. Every
  // model has an owner number of its own, never used again.
  static WordCache& OfThread(uint64_t owner);
  static uint64_t NewOwner();

  // Appends the ids of `word` and returns true when it is known.
  bool Find(absl::string_view word, std::vector<int32_t>* ids) const;

  // Remembers the ids ids[begin..] for `word`. Long words are not kept; a full
  // cache starts anew.
  void Add(absl::string_view word, const std::vector<int32_t>& ids, size_t begin);

 private:
  struct Entry {
    uint32_t begin = 0;
    uint32_t count = 0;
  };

  uint64_t owner_ = 0;
  absl::flat_hash_map<std::string, Entry> entries_;
  std::vector<int32_t> ids_;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_WORD_CACHE_H_
