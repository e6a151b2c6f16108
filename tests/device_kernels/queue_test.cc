#include <numeric>

#include "device_test.h"

namespace llmc::kernels {
namespace {

using QueueTest = DeviceTest;

TEST_F(QueueTest, FactsOfDevice_NameTheDevice) {
  const absl::StatusOr<DeviceFacts> facts = FactsOfDevice(0);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_FALSE(facts->name.empty());
  EXPECT_GT(facts->total_bytes, 0);
  EXPECT_LE(facts->free_bytes, facts->total_bytes);
  EXPECT_GE(facts->compute_capability, 80);
  EXPECT_GT(facts->num_multiprocessors, 0);
}

TEST_F(QueueTest, NoSuchDevice_IsNotFound) {
  EXPECT_EQ(DeviceQueue::Create(NumDevices()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DeviceQueue::Create(-1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FactsOfDevice(NumDevices()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(QueueTest, Copies_KeepBytes) {
  std::vector<int64_t> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 7);
  int64_t* const device = Upload(numbers);
  EXPECT_EQ(Download(device, 1000), numbers);
  ASSERT_TRUE(queue().Zero(device + 10, 80).ok());
  std::fill_n(numbers.begin() + 10, 10, 0);
  EXPECT_EQ(Download(device, 1000), numbers);
}

TEST_F(QueueTest, EmptyCopies_AreFine) {
  EXPECT_TRUE(queue().CopyToDevice(nullptr, 0, nullptr).ok());
  EXPECT_TRUE(queue().CopyToHost(nullptr, 0, nullptr).ok());
  EXPECT_TRUE(queue().Zero(nullptr, 0).ok());
}

TEST_F(QueueTest, Allocate_IsAlignedAndOutlivesItsQueue) {
  absl::StatusOr<std::unique_ptr<DeviceQueue>> other = DeviceQueue::Create(0);
  ASSERT_TRUE(other.ok());
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(**other, 100);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->as<char>()) % 256, 0u);
  EXPECT_EQ(buffer->num_bytes(), 100);
  other->reset();
}

TEST_F(QueueTest, MoreThanThereIs_IsResourceExhausted) {
  const absl::Status status = DeviceBuffer::Allocate(queue(), int64_t{1} << 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  // And the queue still works.
  EXPECT_EQ(Download(Upload(std::vector<int>{1, 2}), 2), (std::vector<int>{1, 2}));
}

TEST_F(QueueTest, PinnedMemory_TakesCopies) {
  absl::StatusOr<PinnedBuffer> pinned = PinnedBuffer::Allocate(16);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  const std::vector<int> numbers = {1, 2, 3, 4};
  ASSERT_TRUE(queue().CopyToHost(Upload(numbers), 16, pinned->bytes()).ok());
  ASSERT_TRUE(queue().Synchronize().ok());
  EXPECT_EQ(std::memcmp(pinned->bytes(), numbers.data(), 16), 0);
}

TEST_F(QueueTest, Events_AreInTheOrderOfTheQueue) {
  std::vector<int> numbers(1 << 20, 3);
  const absl::StatusOr<DeviceEvent> before = DeviceEvent::Record(queue());
  ASSERT_TRUE(before.ok()) << before.status();
  int* const device = Upload(numbers);
  const absl::StatusOr<DeviceEvent> after = DeviceEvent::Record(queue());
  ASSERT_TRUE(after.ok()) << after.status();
  ASSERT_TRUE(after->Wait().ok());
  const absl::StatusOr<double> seconds = after->SecondsSince(*before);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_GT(*seconds, 0);
  EXPECT_EQ(Download(device, 1), (std::vector<int>{3}));
}

TEST_F(QueueTest, EventThatWasNotRecorded_IsAnError) { EXPECT_FALSE(DeviceEvent().Wait().ok()); }

}  // namespace
}  // namespace llmc::kernels
