#include "calibration/sample_schedule.h"

#include <numeric>

namespace llmc {
namespace {

int64_t NumChunks(int64_t total_tokens) {
  const int64_t most = total_tokens / kMinChunkTokens;
  if (most < 2) return 1;
  for (int64_t multiple : {24, 12, 4, 2}) {
    if (most >= 2 * multiple || (multiple <= 4 && most >= multiple))
      return most / multiple * multiple;
  }
  return most;
}

Chunk MakeChunk(const std::vector<int64_t>& sample_tokens, int64_t min_pack_tokens, int64_t begin,
                int64_t end) {
  Chunk chunk;
  for (int64_t i = begin; i < end; ++i) {
    if (chunk.packs.empty() || chunk.packs.back().tokens >= min_pack_tokens) {
      chunk.packs.push_back({i, i, 0});
    }
    chunk.packs.back().end = i + 1;
    chunk.packs.back().tokens += sample_tokens[i];
    chunk.tokens += sample_tokens[i];
  }
  return chunk;
}

}  // namespace

std::vector<Chunk> CutIntoChunks(const std::vector<int64_t>& sample_tokens,
                                 int64_t min_pack_tokens) {
  const int64_t total = std::accumulate(sample_tokens.begin(), sample_tokens.end(), int64_t{0});
  const int64_t num_chunks = NumChunks(total);
  const int64_t num_samples = static_cast<int64_t>(sample_tokens.size());
  std::vector<Chunk> chunks;
  int64_t seen = 0;
  int64_t begin = 0;
  for (int64_t i = 0; i < num_samples; ++i) {
    seen += sample_tokens[i];
    const int64_t next = static_cast<int64_t>(chunks.size()) + 1;
    const bool reached = seen * num_chunks >= next * total;
    if (reached || i + 1 == num_samples) {
      chunks.push_back(MakeChunk(sample_tokens, min_pack_tokens, begin, i + 1));
      begin = i + 1;
    }
  }
  return chunks;
}

}  // namespace llmc
