#include "llmc/parallel.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace llmc {
namespace {

int CpusOfThisProcess() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count < 1 ? 1 : count;
}

std::atomic<int> requested_threads{0};
thread_local bool inside_unit = false;

// One batch of units; workers and the caller draw from `next`.
struct Batch {
  int64_t num_units = 0;
  const std::function<void(int64_t)>* unit = nullptr;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void Drain() {
    inside_unit = true;
    for (int64_t i = next++; i < num_units; i = next++) {
      try {
        (*unit)(i);
      } catch (...) {
        next = num_units;
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
      }
    }
    inside_unit = false;
  }
};

// Threads that sleep between batches. Lives as long as the process.
class Pool {
 public:
  explicit Pool(int num_workers) {
    for (int i = 0; i < num_workers; ++i) threads_.emplace_back([this] { Work(); });
    for (std::thread& thread : threads_) thread.detach();
  }

  void Run(Batch& batch) {
    std::lock_guard<std::mutex> one_batch(run_mutex_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      batch_ = &batch;
      num_busy_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    batch.Drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return num_busy_ == 0; });
    batch_ = nullptr;
  }

 private:
  [[noreturn]] void Work() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      Batch* batch = batch_;
      lock.unlock();
      batch->Drain();
      lock.lock();
      if (--num_busy_ == 0) done_.notify_one();
    }
  }

  std::mutex run_mutex_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Batch* batch_ = nullptr;
  int num_busy_ = 0;
  uint64_t generation_ = 0;
  std::vector<std::thread> threads_;
};

Pool& ThePool() {
  static Pool* pool = new Pool(NumThreads() - 1);
  return *pool;
}

}  // namespace

void SetNumThreads(int num_threads) { requested_threads = num_threads < 1 ? 1 : num_threads; }

int NumThreads() {
  static const int cpus = CpusOfThisProcess();
  const int requested = requested_threads;
  return requested > 0 ? requested : cpus;
}

void ParallelFor(int64_t num_units, const std::function<void(int64_t)>& unit) {
  if (num_units <= 0) return;
  if (num_units == 1 || NumThreads() == 1 || inside_unit) {
    for (int64_t i = 0; i < num_units; ++i) unit(i);
    return;
  }
  Batch batch;
  batch.num_units = num_units;
  batch.unit = &unit;
  ThePool().Run(batch);
  if (batch.error) std::rethrow_exception(batch.error);
}

}  // namespace llmc
