// The hidden states of this rank's samples between two layers.
#ifndef LLMC_CALIBRATION_ACTIVATION_STORE_H_
#define LLMC_CALIBRATION_ACTIVATION_STORE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device_queue.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

struct ActivationStoreOptions {
  // Bytes that may stay in memory; samples beyond it live in a file without a
  // name in `work_dir`, which the system frees when the process ends.
  int64_t resident_bytes = INT64_MAX;
  std::filesystem::path work_dir = "/tmp";
  // Memory that a device copies from and to without waiting.
  bool pinned = false;
};

// A fixed number of byte strings of known sizes. Samples are independent:
// different threads may load and store different ones at once. What is stored
// reads back bit for bit, so spilling never changes a result.
class ActivationStore {
 public:
  // kResourceExhausted when the spill file does not fit the disk.
  static absl::StatusOr<std::unique_ptr<ActivationStore>> Create(
      std::vector<int64_t> sample_bytes, const ActivationStoreOptions& options);
  ~ActivationStore();
  ActivationStore(const ActivationStore&) = delete;
  ActivationStore& operator=(const ActivationStore&) = delete;

  // `into` / `from` have exactly the sample's size.
  absl::Status Load(int64_t sample, std::span<std::byte> into) const;
  absl::Status Store(int64_t sample, std::span<const std::byte> from);

  // The sample's bytes where they are kept in memory; empty when it is spilled.
  std::span<std::byte> Resident(int64_t sample);

  int64_t resident_bytes() const { return resident_bytes_; }
  int64_t spilled_bytes() const { return spilled_bytes_; }

 private:
  struct Slot {
    HostTensor resident;            // U8 [size_bytes], or empty: spilled or pinned.
    kernels::PinnedBuffer pinned;   // The same, when memory is pinned.
    int64_t offset = 0;   // In the spill file.
    int64_t size_bytes = 0;
    bool is_resident = false;
  };

  ActivationStore() = default;
  absl::Status OpenSpillFile(const std::filesystem::path& work_dir);

  std::vector<Slot> slots_;
  int spill_fd_ = -1;
  int64_t resident_bytes_ = 0;
  int64_t spilled_bytes_ = 0;
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_ACTIVATION_STORE_H_
