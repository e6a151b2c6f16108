// One JSON object a line on stderr: time, level, message and fields.
#ifndef LLMC_SERVICE_JSON_LOG_H_
#define LLMC_SERVICE_JSON_LOG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/coordinator.h"

namespace llmc {

using LogField = std::pair<std::string, std::string>;

// Thread-safe. Everything is escaped; bytes that are not UTF-8 are replaced.
void LogJson(absl::string_view level, absl::string_view message,
             const std::vector<LogField>& fields = {});

// One line for every state change and every warning of a rank.
void LogChange(const Change& change);

}  // namespace llmc

#endif  // LLMC_SERVICE_JSON_LOG_H_
