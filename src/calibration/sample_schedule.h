// How a job's samples are cut into the units that ranks and threads share.
#ifndef LLMC_CALIBRATION_SAMPLE_SCHEDULE_H_
#define LLMC_CALIBRATION_SAMPLE_SCHEDULE_H_

#include <cstdint>
#include <vector>

namespace llmc {

// Consecutive samples [begin, end) whose inputs enter a statistic as one matrix
// product. A pack has at least `min_pack_tokens` tokens, or is the last of its chunk.
struct Pack {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t tokens = 0;
};

// Consecutive packs whose partial sum is kept in float32 before it is added to
// the total as integers. A chunk belongs to one rank.
struct Chunk {
  std::vector<Pack> packs;
  int64_t tokens = 0;
};

inline constexpr int64_t kMinPackTokens = 512;
// On a device, whose products want more rows.
inline constexpr int64_t kMinDevicePackTokens = 4096;
inline constexpr int64_t kMinChunkTokens = 4096;

// Cuts samples of the given lengths (tokens, > 0) into chunks whose equal share is at
// least kMinChunkTokens, one chunk when there are fewer tokens. Samples are not
// split, so a chunk may miss its share by up to one sample. The
// number of chunks is rounded down to a multiple of 24, 12, 4 or 2, so that
// common numbers of ranks get equal shares. Depends on the lengths alone, so the
// bytes of a result do not depend on ranks or threads.
std::vector<Chunk> CutIntoChunks(const std::vector<int64_t>& sample_tokens,
                                 int64_t min_pack_tokens = kMinPackTokens);

}  // namespace llmc

#endif  // LLMC_CALIBRATION_SAMPLE_SCHEDULE_H_
