// The CUDA runtime, NCCL and kernels::DeviceQueue on a machine without a GPU, for the
// state machine of the NCCL transport: streams are threads that work in order, device
// memory is host memory, ranks are threads. Faults happen when a test asks for them.
#ifndef LLMC_TESTS_DEVICE_COLLECTIVE_FAKE_CUDA_H_
#define LLMC_TESTS_DEVICE_COLLECTIVE_FAKE_CUDA_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <functional>

namespace llmc::fake {

inline constexpr int kNumDevices = 4;

// Adds work to a stream (a cudaStream_t of this fake).
void Enqueue(void* stream, std::function<void()> work);

// Faults, until Reset.
void Reset();
// All devices are in one PCI slot: they are one device.
void PutDevicesInOneSlot();
// The communicator of `rank` never comes up.
void HoldStart(int rank);
// The device of `rank` stops in its next operation, and NCCL knows the reason.
void FailNextOperation(int rank, ncclResult_t why);
// Every later query of an event gives `error`.
void FailEventQueries(cudaError_t error);

// Communicators that were neither destroyed nor aborted.
int NumLiveCommunicators();

}  // namespace llmc::fake

#endif  // LLMC_TESTS_DEVICE_COLLECTIVE_FAKE_CUDA_H_
