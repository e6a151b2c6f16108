#include "tokenizer/word_cache.h"

#include <atomic>

namespace llmc {
namespace {

constexpr size_t kMaxWordBytes = 128;
constexpr size_t kMaxWords = size_t{1} << 16;

}  // namespace

WordCache& WordCache::OfThread(uint64_t owner) {
  thread_local WordCache cache;
  if (cache.owner_ != owner) {
    cache.entries_.clear();
    cache.ids_.clear();
    cache.owner_ = owner;
  }
  return cache;
}

uint64_t WordCache::NewOwner() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

bool WordCache::Find(absl::string_view word, std::vector<int32_t>* ids) const {
  if (word.size() > kMaxWordBytes) return false;
  const auto it = entries_.find(word);
  if (it == entries_.end()) return false;
  const auto begin = ids_.begin() + it->second.begin;
  ids->insert(ids->end(), begin, begin + it->second.count);
  return true;
}

void WordCache::Add(absl::string_view word, const std::vector<int32_t>& ids, size_t begin) {
  if (word.size() > kMaxWordBytes) return;
  if (entries_.size() >= kMaxWords) {
    entries_.clear();
    ids_.clear();
  }
  const Entry entry{static_cast<uint32_t>(ids_.size()), static_cast<uint32_t>(ids.size() - begin)};
  ids_.insert(ids_.end(), ids.begin() + begin, ids.end());
  entries_.emplace(std::string(word), entry);
}

}  // namespace llmc
