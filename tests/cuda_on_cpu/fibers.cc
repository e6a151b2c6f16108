#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// Saves the registers that a call preserves and the stack pointer, and takes those of
// another fiber. ucontext would make a system call each time.
extern "C" void llmc_switch_stack(void** save, void* load);
asm(R"(
.text
.globl llmc_switch_stack
.type llmc_switch_stack, @function
llmc_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size llmc_switch_stack, .-llmc_switch_stack
)");

namespace cuda_on_cpu {
namespace {

constexpr size_t kStackBytes = 128 * 1024;

thread_local FiberPool* running = nullptr;

[[noreturn]] void Die(const char* message) {
  std::fprintf(stderr, "CUDA on CPU: %s\n", message);
  std::abort();
}

}  // namespace

struct FiberPool::Stack {
  explicit Stack(bool is_scheduler) {
    if (!is_scheduler) {
      void* const mapped = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (mapped == MAP_FAILED) Die("no memory for a stack");
      memory = static_cast<char*>(mapped);
    }
#if defined(__SANITIZE_THREAD__)
    tsan = is_scheduler ? __tsan_get_current_fiber() : __tsan_create_fiber(0);
#endif
  }
  ~Stack() {
    if (memory == nullptr) return;
    munmap(memory, kStackBytes);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan);
#endif
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  // So that switching to it calls `entry`, with the stack aligned as after a call: 8 past
  // a multiple of 16.
  void Prepare(void (*entry)()) {
    auto* top = reinterpret_cast<uint64_t*>(memory + kStackBytes);
    *--top = 0;
    *--top = reinterpret_cast<uint64_t>(entry);
    for (int i = 0; i < 6; ++i) *--top = 0;
    pointer = top;
  }

  char* memory = nullptr;
  void* pointer = nullptr;
  void* asan = nullptr;  // AddressSanitizer's fake stack.
  void* tsan = nullptr;
  const void* bottom = nullptr;  // Of the scheduler's stack, as AddressSanitizer says.
  size_t size = 0;
};

FiberPool::FiberPool() : scheduler_(std::make_unique<Stack>(true)) {}
FiberPool::~FiberPool() = default;

FiberPool::Stack* FiberPool::TakeStack() {
  if (free_.empty()) {
    stacks_.push_back(std::make_unique<Stack>(false));
    free_.push_back(stacks_.back().get());
  }
  Stack* const stack = free_.back();
  free_.pop_back();
  stack->Prepare(&FiberPool::Enter);
  return stack;
}

void FiberPool::Enter() {
  FiberPool& pool = *running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &pool.scheduler_->bottom, &pool.scheduler_->size);
#endif
  (*pool.body_)(pool.current_);
  pool.fibers_[pool.current_].is_done = true;
  pool.SwitchToScheduler(true);
}

void FiberPool::SwitchToScheduler([[maybe_unused]] bool is_last) {
  Stack* const stack = fibers_[current_].stack;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(is_last ? nullptr : &stack->asan, scheduler_->bottom,
                                 scheduler_->size);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler_->tsan, 0);
#endif
  llmc_switch_stack(&stack->pointer, scheduler_->pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(stack->asan, &scheduler_->bottom, &scheduler_->size);
#endif
}

void FiberPool::Resume(int index) {
  current_ = index;
  Fiber& fiber = fibers_[index];
  if (fiber.stack == nullptr) fiber.stack = TakeStack();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_->asan, fiber.stack->memory, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(fiber.stack->tsan, 0);
#endif
  llmc_switch_stack(&scheduler_->pointer, fiber.stack->pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_->asan, nullptr, nullptr);
#endif
  if (!fiber.is_done) return;
  free_.push_back(fiber.stack);
  fiber.stack = nullptr;
}

void FiberPool::WaitWhile(const unsigned* generation, unsigned seen) {
  Fiber& fiber = fibers_[current_];
  fiber.generation = generation;
  fiber.seen = seen;
  SwitchToScheduler(false);
}

void FiberPool::Run(int count, bool reversed, const std::function<void(int)>& body) {
  fibers_.assign(count, Fiber{});
  body_ = &body;
  running = this;
  for (int left = count; left > 0;) {
    bool has_moved = false;
    for (int i = 0; i < count; ++i) {
      const int index = reversed ? count - 1 - i : i;
      Fiber& fiber = fibers_[index];
      if (fiber.is_done || (fiber.generation && *fiber.generation == fiber.seen)) continue;
      fiber.generation = nullptr;
      Resume(index);
      has_moved = true;
      left -= fiber.is_done ? 1 : 0;
    }
    if (!has_moved) Die("threads wait at a barrier that others never reach");
  }
}

}  // namespace cuda_on_cpu
