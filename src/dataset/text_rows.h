// Rows of text formats: lines, JSON lines, JSON arrays, CSV.
#ifndef LLMC_DATASET_TEXT_ROWS_H_
#define LLMC_DATASET_TEXT_ROWS_H_

#include <memory>
#include <string>

#include "dataset/byte_source.h"
#include "dataset/row_reader.h"

namespace llmc::dataset {

// Every line is a row with the column "text"; blank lines are skipped.
std::unique_ptr<RowReader> PlainTextRows(std::unique_ptr<ByteSource> source, std::string path);

// One object per line; blank lines are skipped.
std::unique_ptr<RowReader> JsonLineRows(std::unique_ptr<ByteSource> source, std::string path);

// One array of objects, or JSON lines when the first character is no bracket.
std::unique_ptr<RowReader> JsonRows(std::unique_ptr<ByteSource> source, std::string path);

// RFC 4180 with a header row; line ends may be "\n", too; blank lines are skipped.
// Every value is text.
std::unique_ptr<RowReader> CsvRows(std::unique_ptr<ByteSource> source, std::string path);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEXT_ROWS_H_
