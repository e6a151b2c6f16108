// A device for the contract tests of the kernels' device twins: CUDA's sources compiled for
// the CPU (kernels_device_test) or a CUDA device (kernels_cuda_test).
#ifndef LLMC_TESTS_DEVICE_KERNELS_DEVICE_TEST_H_
#define LLMC_TESTS_DEVICE_KERNELS_DEVICE_TEST_H_

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/device_queue.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// Skips where there is no device.
template <typename Base>
class OnDevice : public Base {
 protected:
  void SetUp() override {
    if (NumDevices() == 0) GTEST_SKIP() << "no GPU: " << WhyNoDevice();
    absl::StatusOr<std::unique_ptr<DeviceQueue>> queue = DeviceQueue::Create(0);
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
  }

  DeviceQueue& queue() { return *queue_; }

  // Device memory of `count` numbers, not initialised.
  template <typename T>
  T* Allocate(int64_t count) {
    absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(*queue_, count * sizeof(T));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    buffers_.push_back(*std::move(buffer));
    return buffers_.back().as<T>();
  }

  template <typename T>
  T* Upload(const T* numbers, int64_t count) {
    T* const device = Allocate<T>(count);
    EXPECT_TRUE(queue_->CopyToDevice(numbers, count * sizeof(T), device).ok());
    return device;
  }
  template <typename T>
  T* Upload(const std::vector<T>& numbers) {
    return Upload(numbers.data(), std::ssize(numbers));
  }
  std::byte* Upload(const HostTensor& tensor) {
    return Upload(tensor.bytes().data(), tensor.num_bytes());
  }

  template <typename T>
  std::vector<T> Download(const T* device, int64_t count) {
    std::vector<T> host(count);
    EXPECT_TRUE(queue_->CopyToHost(device, count * sizeof(T), host.data()).ok());
    EXPECT_TRUE(queue_->Synchronize().ok());
    return host;
  }

 private:
  std::unique_ptr<DeviceQueue> queue_;
  std::vector<DeviceBuffer> buffers_;
};

using DeviceTest = OnDevice<testing::Test>;
template <typename T>
using DeviceTestWithParam = OnDevice<testing::TestWithParam<T>>;

// Bit by bit, so that NaNs and signs of zeros count.
template <typename T>
testing::AssertionResult SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) {
    return testing::AssertionFailure() << a.size() << " numbers, expected " << b.size();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) == 0) continue;
    return testing::AssertionFailure() << "number " << i << ": " << +a[i] << ", expected " << +b[i];
  }
  return testing::AssertionSuccess();
}

template <typename T>
std::vector<T> ToVector(const HostTensor& tensor) {
  return {tensor.as<T>(), tensor.as<T>() + tensor.num_elements()};
}

}  // namespace llmc::kernels

#endif  // LLMC_TESTS_DEVICE_KERNELS_DEVICE_TEST_H_
