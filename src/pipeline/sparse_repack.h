// From an output whose pruned weights hold their zeros to one in a layout that leaves
// them out (kernels/sparse_packing.h).
//
// How much is left is known only after pruning, but every byte of an output is placed
// before the first is written. So the job writes the zeros first, into a sibling of the
// output, and this makes the output of it.
#ifndef LLMC_PIPELINE_SPARSE_REPACK_H_
#define LLMC_PIPELINE_SPARSE_REPACK_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "checkpoint/checkpoint_writer.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

inline constexpr absl::string_view kUnpackedSuffix = ".llmc-unpacked";

struct RepackRequest {
  std::filesystem::path output_dir;
  SparseFormat format = SparseFormat::kSparse24Bitmask;
  std::vector<std::string> modules;  // Whose `weight` is packed.
  Fingerprint fingerprint;           // Of the job.
  int64_t max_shard_bytes = kDefaultMaxShardBytes;
  bool fresh = false;
};

// Whether the output is there, made by the same job. kFailedPrecondition when it is
// another's and `fresh` is not given.
absl::StatusOr<bool> IsRepacked(const RepackRequest& request);

// Writes the output from `unpacked_dir`, a finished one, verifies nothing, and removes
// `unpacked_dir`. `contents`: the files of the output, whose config.json gets a
// sparsity_config. May be called again after a crash. kFailedPrecondition: a weight is
// not 2:4.
absl::Status RepackSparse(const std::filesystem::path& unpacked_dir, const RepackRequest& request,
                          const CommitContents& contents);

}  // namespace llmc

#endif  // LLMC_PIPELINE_SPARSE_REPACK_H_
