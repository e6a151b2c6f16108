// Template source to its tree.
#ifndef LLMC_DATASET_TEMPLATE_PARSER_H_
#define LLMC_DATASET_TEMPLATE_PARSER_H_

#include "absl/strings/string_view.h"
#include "dataset/template_ast.h"
#include "llmc/status.h"

namespace llmc::dataset {

// kInvalidArgument "line: what" for a syntax error, a statement llmc does not know
// (include, import, extends, block, ...), a name that is no filter or test, source
// larger than 1 MiB, or nesting deeper than 100.
absl::StatusOr<Block> ParseTemplate(absl::string_view source);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_PARSER_H_
