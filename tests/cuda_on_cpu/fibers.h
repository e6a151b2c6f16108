// Fibers: the threads of a block, on one thread of the CPU.
#ifndef LLMC_TESTS_CUDA_ON_CPU_FIBERS_H_
#define LLMC_TESTS_CUDA_ON_CPU_FIBERS_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace cuda_on_cpu {

// Runs a body once for each of a number of fibers, which wait for one another at
// barriers. One instance for each thread of the CPU; used again and again.
class FiberPool {
 public:
  FiberPool();
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // Runs body(i), i in [0, count), in falling order when `reversed`, up to its first
  // barrier or its end, and so on round by round. Ends the program when all that are
  // left wait.
  void Run(int count, bool reversed, const std::function<void(int)>& body);

  // Called by a fiber: waits until *generation is no longer `seen`.
  void WaitWhile(const unsigned* generation, unsigned seen);

  int current() const { return current_; }

 private:
  struct Stack;
  struct Fiber {
    Stack* stack = nullptr;
    const unsigned* generation = nullptr;  // Null: ready.
    unsigned seen = 0;
    bool is_done = false;
  };

  static void Enter();
  Stack* TakeStack();
  void Resume(int index);
  void SwitchToScheduler(bool is_last);

  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<Stack*> free_;
  std::vector<Fiber> fibers_;
  const std::function<void(int)>* body_ = nullptr;
  std::unique_ptr<Stack> scheduler_;
  int current_ = -1;
};

}  // namespace cuda_on_cpu

#endif  // LLMC_TESTS_CUDA_ON_CPU_FIBERS_H_
