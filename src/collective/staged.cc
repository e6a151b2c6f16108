// Device memory through the host: every operation is the host's, on a copy.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "collective/device_collective.h"

namespace llmc {
namespace {

using kernels::DeviceQueue;
using kernels::PinnedBuffer;

// Pinned memory is dear; larger operands pass through it in pieces.
constexpr int64_t kPieceBytes = int64_t{32} << 20;

class StagedDeviceCollective final : public DeviceCollective {
 public:
  explicit StagedDeviceCollective(Collective& host) : DeviceCollective(host) {}

  std::string transport() const override { return world_size() == 1 ? "self" : "staged"; }

 private:
  absl::Status DoReduce(absl::string_view, DeviceQueue& queue, std::span<int64_t> values,
                        int root) override {
    const Route route{true, root == kAllRanks || root == rank()};
    return EachPiece(queue, std::as_writable_bytes(values), route, [&](std::span<std::byte> piece) {
      const std::span<int64_t> part(reinterpret_cast<int64_t*>(piece.data()), piece.size() / 8);
      return root == kAllRanks ? host_.AllReduceSum(part) : host_.ReduceSum(part, root);
    });
  }

  absl::Status DoBroadcast(absl::string_view, DeviceQueue& queue, std::span<std::byte> bytes,
                           int root) override {
    const Route route{rank() == root, rank() != root};
    return EachPiece(queue, bytes, route,
                     [&](std::span<std::byte> piece) { return host_.Broadcast(piece, root); });
  }

  absl::Status DoAllGather(absl::string_view name, DeviceQueue& queue, std::byte* out,
                           std::span<const int64_t> offsets) override {
    for (int r = 0; r < world_size(); ++r) {
      const auto size = static_cast<size_t>(offsets[r + 1] - offsets[r]);
      LLMC_RETURN_IF_ERROR(DoBroadcast(name, queue, {out + offsets[r], size}, r));
    }
    return absl::OkStatus();
  }

  absl::Status DoJoin(DeviceQueue&) override { return broken_; }
  absl::Status DoFinish() override { return broken_; }
  void DoAbort(absl::string_view) override {}

  // Whether this rank's bytes matter to the host's operation, and its result to them.
  struct Route {
    bool gives;
    bool receives;
  };

  template <typename Operate>
  absl::Status EachPiece(DeviceQueue& queue, std::span<std::byte> bytes, Route route,
                         const Operate& operate) {
    if (world_size() == 1) return broken_;
    for (size_t begin = 0; begin < bytes.size() && broken_.ok(); begin += kPieceBytes) {
      const size_t size = std::min<size_t>(kPieceBytes, bytes.size() - begin);
      Piece(queue, bytes.subspan(begin, size), route, operate);
    }
    return broken_;
  }

  template <typename Operate>
  void Piece(DeviceQueue& queue, std::span<std::byte> device, Route route, const Operate& operate) {
    if (absl::Status copied = CopyIn(queue, device, route); !copied.ok()) return Fail(copied);
    const std::span<std::byte> staged(staging_.bytes(), device.size());
    if (absl::Status done = operate(staged); !done.ok()) return Fail(done);
    if (!route.receives) return;
    absl::Status copied = queue.CopyToDevice(staged.data(), std::ssize(staged), device.data());
    // The next operation may come from another queue and uses the same pinned memory.
    if (copied.ok()) copied = queue.Synchronize();
    if (!copied.ok()) Fail(copied);
  }

  absl::Status CopyIn(DeviceQueue& queue, std::span<const std::byte> device, Route route) {
    if (!staging_.num_bytes()) {
      LLMC_ASSIGN_OR_RETURN(staging_, PinnedBuffer::Allocate(kPieceBytes));
    }
    if (!route.gives) return absl::OkStatus();
    LLMC_RETURN_IF_ERROR(queue.CopyToHost(device.data(), std::ssize(device), staging_.bytes()));
    return queue.Synchronize();
  }

  // Peers may wait in an operation to which this rank does not come.
  void Fail(const absl::Status& status) {
    broken_ = status;
    host_.Abort(status.message());
  }

  PinnedBuffer staging_;
  absl::Status broken_;
};

}  // namespace

std::unique_ptr<DeviceCollective> MakeStagedDeviceCollective(Collective& host) {
  return std::make_unique<StagedDeviceCollective>(host);
}

}  // namespace llmc
