// Where a model lies on disk, offline.
#ifndef LLMC_CHECKPOINT_MODEL_DIRECTORY_H_
#define LLMC_CHECKPOINT_MODEL_DIRECTORY_H_

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub, the first that is set.
std::filesystem::path HubCacheDirectory();

// An existing directory as it is; else "org/name" or "org/name@revision" (a
// branch, a tag or 40 hex digits) in the local Hugging Face cache. kNotFound
// with the exact `hf download` line when it is not there; kPermissionDenied when
// a file of the snapshot is a link that leaves the cache.
absl::StatusOr<std::filesystem::path> ResolveModelDirectory(const std::string& model);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_MODEL_DIRECTORY_H_
