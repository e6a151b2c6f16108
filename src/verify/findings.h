// What the checks of one verification found, from any number of threads.
#ifndef LLMC_VERIFY_FINDINGS_H_
#define LLMC_VERIFY_FINDINGS_H_

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "verify/verify.h"

namespace llmc {

class Findings {
 public:
  // The first text counts when a subject has the same problem twice.
  void Add(ProblemCode code, absl::string_view subject, std::string text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!seen_.emplace(std::string(subject), code).second) return;
    report_.problems.push_back({code, std::string(subject), std::move(text)});
  }
  void Warn(std::string text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    report_.warnings.push_back(std::move(text));
  }
  void CountBytes(int64_t num_bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    report_.num_bytes_read += num_bytes;
  }
  void CountCompared(const std::string& module, double relative_error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++report_.num_weights_compared;
    const bool larger = relative_error > report_.largest_relative_error;
    // Between equals the name decides, so that threads do not.
    if (!larger && (relative_error != report_.largest_relative_error ||
                    module >= report_.largest_error_module))
      return;
    report_.largest_relative_error = relative_error;
    report_.largest_error_module = module;
  }

  // Problems sorted; call when no other thread adds any more.
  VerifyReport Take();
  VerifyReport& report() { return report_; }

 private:
  std::mutex mutex_;
  std::set<std::pair<std::string, ProblemCode>> seen_;
  VerifyReport report_;
};

}  // namespace llmc

#endif  // LLMC_VERIFY_FINDINGS_H_
