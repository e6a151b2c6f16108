#include "calibration/activation_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "llmc/counters.h"
#include "llmc/file.h"

namespace llmc {

absl::StatusOr<std::unique_ptr<ActivationStore>> ActivationStore::Create(
    std::vector<int64_t> sample_bytes, const ActivationStoreOptions& options) {
  auto store = std::unique_ptr<ActivationStore>(new ActivationStore);
  for (int64_t size : sample_bytes) {
    Slot slot;
    slot.size_bytes = size;
    slot.is_resident = store->resident_bytes_ + size <= options.resident_bytes;
    if (slot.is_resident) {
      if (options.pinned) {
        LLMC_ASSIGN_OR_RETURN(slot.pinned, kernels::PinnedBuffer::Allocate(size));
      } else {
        slot.resident = HostTensor(DType::kU8, {size});
      }
      store->resident_bytes_ += size;
    } else {
      slot.offset = store->spilled_bytes_;
      store->spilled_bytes_ += size;
    }
    store->slots_.push_back(std::move(slot));
  }
  if (store->spilled_bytes_ > 0) LLMC_RETURN_IF_ERROR(store->OpenSpillFile(options.work_dir));
  return store;
}

absl::Status ActivationStore::OpenSpillFile(const std::filesystem::path& work_dir) {
  std::string name = (work_dir / "llmc-activations-XXXXXX").string();
  spill_fd_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (spill_fd_ < 0) return ErrnoStatus(errno, name, "create the activation spill file");
  ::unlink(name.c_str());
  // Blocks are reserved now: a full disk is found before any work, not in layer 40.
  const int error = ::posix_fallocate(spill_fd_, 0, spilled_bytes_);
  if (error != 0) {
    return ErrnoStatus(error, work_dir,
                       absl::StrCat("reserve ", spilled_bytes_, " bytes for activations"));
  }
  return absl::OkStatus();
}

ActivationStore::~ActivationStore() {
  if (spill_fd_ >= 0) ::close(spill_fd_);
}

std::span<std::byte> ActivationStore::Resident(int64_t sample) {
  Slot& slot = slots_[sample];
  if (!slot.is_resident) return {};
  if (slot.pinned.num_bytes() > 0) {
    return {slot.pinned.bytes(), static_cast<size_t>(slot.size_bytes)};
  }
  return slot.resident.bytes();
}

absl::Status ActivationStore::Load(int64_t sample, std::span<std::byte> into) const {
  const Slot& slot = slots_[sample];
  if (slot.is_resident) {
    const std::byte* const bytes =
        slot.pinned.num_bytes() > 0 ? slot.pinned.bytes() : slot.resident.as<std::byte>();
    std::memcpy(into.data(), bytes, into.size());
    return absl::OkStatus();
  }
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = ::pread(spill_fd_, into.data() + done, into.size() - done,
                              slot.offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(n < 0 ? errno : EIO, "activation spill file", "read");
    done += static_cast<size_t>(n);
  }
  Count(Counter::kSpillReadBytes, std::ssize(into));
  return absl::OkStatus();
}

absl::Status ActivationStore::Store(int64_t sample, std::span<const std::byte> from) {
  const Slot& slot = slots_[sample];
  if (slot.is_resident) {
    std::memcpy(Resident(sample).data(), from.data(), from.size());
    return absl::OkStatus();
  }
  size_t done = 0;
  while (done < from.size()) {
    const ssize_t n = ::pwrite(spill_fd_, from.data() + done, from.size() - done,
                               slot.offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "activation spill file", "write");
    done += static_cast<size_t>(n);
  }
  Count(Counter::kSpillWrittenBytes, std::ssize(from));
  return absl::OkStatus();
}

}  // namespace llmc
