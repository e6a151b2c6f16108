// The checks of an output that are not about one quantised module.
#ifndef LLMC_VERIFY_DIRECTORY_CHECK_H_
#define LLMC_VERIFY_DIRECTORY_CHECK_H_

#include <filesystem>

#include "verify/findings.h"
#include "verify/module_table.h"

namespace llmc {

// Stored tensors against the promised ones: missing, extra, dtype, shape; also
// against the manifest.
void CheckTensorSpecs(const Subject& subject, const ModuleTable& table, Findings& findings);

// total_size and total_parameters of the index (weight_map is checked when the
// checkpoint is opened).
void CheckIndexTotals(const Subject& subject, Findings& findings);

// Tokenizer and generation config as in the source, files of the manifest;
// `hashes`: also their bytes.
void CheckFiles(const Subject& subject, bool hashes, Findings& findings);

// tie_word_embeddings against the stored head.
void CheckTieFlag(const Subject& subject, Findings& findings);

// Sizes in config.json are those of the source.
void CheckConfigFields(const Subject& subject, Findings& findings);

// Bytes of tensors that nothing should have changed, bit by bit against the
// source.
void CheckUntouched(const Subject& subject, const ModuleTable& table, Findings& findings);

// Dense tensors finite; scales of the KV cache finite and positive.
void CheckOtherValues(const Subject& subject, const ModuleTable& table, Findings& findings);

// Tensor bytes against the manifest's hashes.
void CheckTensorHashes(const Subject& subject, Findings& findings);

}  // namespace llmc

#endif  // LLMC_VERIFY_DIRECTORY_CHECK_H_
