// Which jobs a list shows, and tokens that continue one.
#ifndef LLMC_SERVICE_JOB_FILTER_H_
#define LLMC_SERVICE_JOB_FILTER_H_

#include <functional>
#include <string>

#include "control/coordinator.h"
#include "llmc/status.h"

namespace llmc {

// Terms "field op value" joined by AND: state, submitter, pool and name with = and
// !=, priority with = != < <= > >=, labels.KEY with = and !=. Values may stand in
// double quotes. kInvalidArgument names the term.
absl::StatusOr<std::function<bool(const v1::Job&)>> ParseJobFilter(const std::string& filter);

// Opaque text that only this store's secret can make. `scope` must be the same when
// it is read: a page token of another filter is refused.
std::string SignToken(const std::string& secret, const std::string& scope,
                      const std::string& content);
// kInvalidArgument.
absl::StatusOr<std::string> ReadToken(const std::string& secret, const std::string& scope,
                                      const std::string& token);

}  // namespace llmc

#endif  // LLMC_SERVICE_JOB_FILTER_H_
