#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_queue.cuh"

namespace llmc::kernels {
namespace {

// What cuBLAS asks for on Hopper; also enough for the devices before it.
constexpr int64_t kBlasWorkspaceBytes = int64_t{32} << 20;

// Memory that is freed stays with the process: a layer allocates what the one before
// it gave back, and the operating system is slow.
absl::Status KeepFreedMemory(int device) {
  cudaMemPool_t pool = nullptr;
  LLMC_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool"));
  uint64_t threshold = ~uint64_t{0};
  return CudaStatus(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold),
                    "cudaMemPoolSetAttribute");
}

absl::StatusOr<std::shared_ptr<CudaStream>> NewStream(int device) {
  auto stream = std::make_shared<CudaStream>();
  stream->device = device;
  LLMC_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream->handle, cudaStreamNonBlocking),
                                  "cudaStreamCreateWithFlags"));
  stream->is_owned = true;
  return stream;
}

absl::Status OutOfMemory(int64_t num_bytes, cudaError_t code) {
  size_t free = 0;
  size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) free = total = 0;
  return absl::ResourceExhaustedError(
      absl::StrCat("device memory: ", num_bytes, " bytes do not fit, ", free, " of ", total,
                   " are free (cudaMallocAsync: ", cudaGetErrorString(code), ")"));
}

absl::Status NewEvent(cudaEvent_t& event) {
  if (event != nullptr) return absl::OkStatus();
  return CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                    "cudaEventCreateWithFlags");
}

// `workspace` belongs to the queue's stream, which the lanes fork from and join.
absl::Status OpenLane(DeviceQueue& queue, int index) {
  BlasLane& lane = queue.impl().lanes[index];
  if (index == 0) {
    lane.stream = queue.impl().stream;
  } else {
    LLMC_ASSIGN_OR_RETURN(lane.stream, NewStream(queue.device()));
  }
  LLMC_ASSIGN_OR_RETURN(lane.workspace, DeviceBuffer::Allocate(queue, kBlasWorkspaceBytes));
  cublasHandle_t handle = nullptr;
  LLMC_RETURN_IF_ERROR(BlasStatus(cublasCreate(&handle), "cublasCreate"));
  lane.handle = handle;
  LLMC_RETURN_IF_ERROR(BlasStatus(cublasSetStream(handle, lane.stream->handle), "cublasSetStream"));
  // After cublasSetStream, which takes the workspace away again.
  return BlasStatus(cublasSetWorkspace(handle, lane.workspace.as<std::byte>(), kBlasWorkspaceBytes),
                    "cublasSetWorkspace");
}

cudaError_t CountDevices(int& count) {
  count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) count = 0;
  return code;
}

}  // namespace

absl::Status CudaStatus(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(call, ": ", cudaGetErrorString(code));
  return code == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                           : absl::InternalError(message);
}

absl::Status BlasStatus(cublasStatus_t code, const char* call) {
  if (code == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(call, ": ", cublasGetStatusString(code));
  return code == CUBLAS_STATUS_ALLOC_FAILED ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

absl::Status SolverStatus(cusolverStatus_t code, const char* call) {
  if (code == CUSOLVER_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(call, ": cuSOLVER status ", static_cast<int>(code));
  return code == CUSOLVER_STATUS_ALLOC_FAILED ? absl::ResourceExhaustedError(message)
                                              : absl::InternalError(message);
}

CudaStream::~CudaStream() {
  if (is_owned) cudaStreamDestroy(handle);
}

BlasLane::~BlasLane() {
  if (handle != nullptr) cublasDestroy(handle);
  if (done != nullptr) cudaEventDestroy(done);
}

DeviceQueue::Impl::~Impl() {
  if (solver_params != nullptr) cusolverDnDestroyParams(solver_params);
  if (solver != nullptr) cusolverDnDestroy(solver);
  if (forked != nullptr) cudaEventDestroy(forked);
}

int NumDevices() {
  int count = 0;
  CountDevices(count);
  return count;
}

std::string WhyNoDevice() {
  int count = 0;
  const cudaError_t code = CountDevices(count);
  if (count > 0) return "";
  return code == cudaSuccess ? "CUDA: no device" : absl::StrCat("CUDA: ", cudaGetErrorString(code));
}

absl::StatusOr<DeviceFacts> FactsOfDevice(int device) {
  const int count = NumDevices();
  if (count == 0) return absl::NotFoundError(WhyNoDevice());
  if (device < 0 || device >= count) {
    return absl::NotFoundError(absl::StrCat("device ", device, ", expected 0..", count - 1));
  }
  cudaDeviceProp properties;
  LLMC_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "cudaSetDevice"));
  LLMC_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  size_t free = 0;
  size_t total = 0;
  LLMC_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
  return DeviceFacts{.name = properties.name,
                     .total_bytes = static_cast<int64_t>(total),
                     .free_bytes = static_cast<int64_t>(free),
                     .compute_capability = properties.major * 10 + properties.minor,
                     .num_multiprocessors = properties.multiProcessorCount};
}

DeviceQueue::DeviceQueue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceQueue::~DeviceQueue() = default;

absl::StatusOr<std::unique_ptr<DeviceQueue>> DeviceQueue::Create(int device, void* stream) {
  LLMC_RETURN_IF_ERROR(FactsOfDevice(device).status());
  LLMC_RETURN_IF_ERROR(KeepFreedMemory(device));
  auto impl = std::make_unique<Impl>();
  if (stream != nullptr) {
    impl->stream = std::make_shared<CudaStream>();
    impl->stream->device = device;
    impl->stream->handle = static_cast<cudaStream_t>(stream);
  } else {
    LLMC_ASSIGN_OR_RETURN(impl->stream, NewStream(device));
  }
  return std::unique_ptr<DeviceQueue>(new DeviceQueue(std::move(impl)));
}

int DeviceQueue::device() const { return impl_->stream->device; }
void* DeviceQueue::stream() const { return impl_->stream->handle; }

absl::Status DeviceQueue::Synchronize() {
  LLMC_RETURN_IF_ERROR(Enter(*this));
  return CudaStatus(cudaStreamSynchronize(impl_->stream->handle), "cudaStreamSynchronize");
}

absl::Status DeviceQueue::CopyToDevice(const void* host, int64_t num_bytes, void* device) {
  if (num_bytes == 0) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(Enter(*this));
  return CudaStatus(
      cudaMemcpyAsync(device, host, num_bytes, cudaMemcpyHostToDevice, impl_->stream->handle),
      "cudaMemcpyAsync to the device");
}

absl::Status DeviceQueue::CopyToHost(const void* device, int64_t num_bytes, void* host) {
  if (num_bytes == 0) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(Enter(*this));
  return CudaStatus(
      cudaMemcpyAsync(host, device, num_bytes, cudaMemcpyDeviceToHost, impl_->stream->handle),
      "cudaMemcpyAsync to the host");
}

absl::Status DeviceQueue::Zero(void* device, int64_t num_bytes) {
  if (num_bytes == 0) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(Enter(*this));
  return CudaStatus(cudaMemsetAsync(device, 0, num_bytes, impl_->stream->handle),
                    "cudaMemsetAsync");
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(DeviceQueue& queue, int64_t num_bytes) {
  LLMC_RETURN_IF_ERROR(Enter(queue));
  void* memory = nullptr;
  const std::shared_ptr<CudaStream> stream = queue.impl().stream;
  const cudaError_t code =
      cudaMallocAsync(&memory, std::max<int64_t>(num_bytes, 1), stream->handle);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // It is reported here; later calls start clean.
    return OutOfMemory(num_bytes, code);
  }
  LLMC_RETURN_IF_ERROR(CudaStatus(code, "cudaMallocAsync"));
  DeviceBuffer buffer;
  buffer.num_bytes_ = num_bytes;
  buffer.memory_ = std::shared_ptr<void>(
      memory, [stream](void* freed) { cudaFreeAsync(freed, stream->handle); });
  return buffer;
}

absl::StatusOr<DeviceEvent> DeviceEvent::Record(DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(Enter(queue));
  cudaEvent_t event = nullptr;
  LLMC_RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&event, cudaEventBlockingSync),
                                  "cudaEventCreateWithFlags"));
  DeviceEvent recorded;
  recorded.event_ = std::shared_ptr<void>(
      event, [](void* ended) { cudaEventDestroy(static_cast<cudaEvent_t>(ended)); });
  LLMC_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event, StreamOf(queue)), "cudaEventRecord"));
  return recorded;
}

absl::Status DeviceEvent::Wait() const {
  return CudaStatus(cudaEventSynchronize(static_cast<cudaEvent_t>(event_.get())),
                    "cudaEventSynchronize");
}

absl::StatusOr<double> DeviceEvent::SecondsSince(const DeviceEvent& earlier) const {
  float milliseconds = 0;
  LLMC_RETURN_IF_ERROR(
      CudaStatus(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.event_.get()),
                                      static_cast<cudaEvent_t>(event_.get())),
                 "cudaEventElapsedTime"));
  return static_cast<double>(milliseconds) / 1000;
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t num_bytes) {
  void* memory = nullptr;
  const cudaError_t code =
      cudaHostAlloc(&memory, std::max<int64_t>(num_bytes, 1), cudaHostAllocPortable);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat(
        "pinned host memory: ", num_bytes, " bytes: cudaHostAlloc: ", cudaGetErrorString(code)));
  }
  LLMC_RETURN_IF_ERROR(CudaStatus(code, "cudaHostAlloc"));
  PinnedBuffer buffer;
  buffer.num_bytes_ = num_bytes;
  buffer.memory_ = std::shared_ptr<void>(memory, [](void* freed) { cudaFreeHost(freed); });
  return buffer;
}

absl::Status Enter(DeviceQueue& queue) {
  return CudaStatus(cudaSetDevice(queue.device()), "cudaSetDevice");
}

absl::StatusOr<cublasHandle_t> BlasOf(DeviceQueue& queue, int lane) {
  LLMC_RETURN_IF_ERROR(Enter(queue));
  if (queue.impl().lanes[lane].handle == nullptr) {
    LLMC_RETURN_IF_ERROR(OpenLane(queue, lane));
  }
  return queue.impl().lanes[lane].handle;
}

absl::StatusOr<cusolverDnHandle_t> SolverOf(DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(Enter(queue));
  cusolverDnHandle_t& solver = queue.impl().solver;
  if (solver == nullptr) {
    cusolverDnHandle_t handle = nullptr;
    LLMC_RETURN_IF_ERROR(SolverStatus(cusolverDnCreate(&handle), "cusolverDnCreate"));
    solver = handle;
    LLMC_RETURN_IF_ERROR(SolverStatus(cusolverDnCreateParams(&queue.impl().solver_params),
                                      "cusolverDnCreateParams"));
    LLMC_RETURN_IF_ERROR(
        SolverStatus(cusolverDnSetStream(handle, StreamOf(queue)), "cusolverDnSetStream"));
    LLMC_RETURN_IF_ERROR(
        SolverStatus(cusolverDnSetDeterministicMode(handle, CUSOLVER_DETERMINISTIC_RESULTS),
                     "cusolverDnSetDeterministicMode"));
  }
  return solver;
}

absl::Status ForkLanes(DeviceQueue& queue) {
  DeviceQueue::Impl& impl = queue.impl();
  for (int i = 0; i < DeviceQueue::Impl::kNumLanes; ++i) {
    LLMC_RETURN_IF_ERROR(BlasOf(queue, i).status());
  }
  LLMC_RETURN_IF_ERROR(NewEvent(impl.forked));
  LLMC_RETURN_IF_ERROR(
      CudaStatus(cudaEventRecord(impl.forked, impl.stream->handle), "cudaEventRecord"));
  for (int i = 1; i < DeviceQueue::Impl::kNumLanes; ++i) {
    LLMC_RETURN_IF_ERROR(CudaStatus(
        cudaStreamWaitEvent(impl.lanes[i].stream->handle, impl.forked, 0), "cudaStreamWaitEvent"));
  }
  return absl::OkStatus();
}

absl::Status JoinLanes(DeviceQueue& queue) {
  DeviceQueue::Impl& impl = queue.impl();
  for (int i = 1; i < DeviceQueue::Impl::kNumLanes; ++i) {
    BlasLane& lane = impl.lanes[i];
    LLMC_RETURN_IF_ERROR(NewEvent(lane.done));
    LLMC_RETURN_IF_ERROR(
        CudaStatus(cudaEventRecord(lane.done, lane.stream->handle), "cudaEventRecord"));
    LLMC_RETURN_IF_ERROR(
        CudaStatus(cudaStreamWaitEvent(impl.stream->handle, lane.done, 0), "cudaStreamWaitEvent"));
  }
  return absl::OkStatus();
}

}  // namespace llmc::kernels
