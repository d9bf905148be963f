#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace tfseg::core {
namespace {

// TensorFlow's own threads flush subnormals to zero and its callers' threads do not: without one
// mode for all, a result would depend on which thread took the block.
class ScopedSubnormals {
 public:
  ScopedSubnormals(const ScopedSubnormals&) = delete;
  ScopedSubnormals& operator=(const ScopedSubnormals&) = delete;
#if defined(__SSE__)
  ScopedSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~kFlushAndDenormalsAreZero); }
  ~ScopedSubnormals() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kFlushAndDenormalsAreZero = 0x8040;
  unsigned saved_;
#else
  ScopedSubnormals() {}
  ~ScopedSubnormals() {}
#endif
};

// One loop, shared by the caller and its helpers. It lives until the last of them is gone: a helper
// may be started by the pool long after the caller has finished all the work and returned.
class Loop {
 public:
  Loop(int64_t n, int64_t block, int holders, BlockFunction fn, void* argument)
      : n_(n), block_(block), unfinished_(n), holders_(holders), fn_(fn), argument_(argument) {}

  // Takes blocks until none is left. fn_ and argument_ are touched only with a block in hand, while
  // the caller is surely still there.
  void Work() {
    const ScopedSubnormals subnormals;
    for (;;) {
      const int64_t begin = next_.fetch_add(block_, std::memory_order_relaxed);
      if (begin >= n_) return;
      const int64_t end = std::min(begin + block_, n_);
      fn_(argument_, begin, end);
      if (unfinished_.fetch_sub(end - begin, std::memory_order_acq_rel) == end - begin) {
        const std::lock_guard<std::mutex> lock(mutex_);
        done_ = true;
        all_done_.notify_all();
      }
    }
  }

  void WaitForBlocksBegun() {
    if (unfinished_.load(std::memory_order_acquire) == 0) return;
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_; });
  }

  void Release() {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  ~Loop() = default;

  const int64_t n_;
  const int64_t block_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> unfinished_;
  std::atomic<int> holders_;
  const BlockFunction fn_;
  void* const argument_;
  std::mutex mutex_;
  std::condition_variable all_done_;
  bool done_ = false;
};

}  // namespace

void ParallelForBlocks(ThreadPool& threads, int64_t n, int64_t cost, BlockFunction fn,
                       void* argument) {
  if (n <= 0) return;
  // Starting a helper costs some microseconds; below this much work a block is not worth one.
  constexpr int64_t kSmallestBlock = 20000;
  // A few blocks a thread even out threads that the system runs at different speeds.
  constexpr int64_t kBlocksPerThread = 4;
  const int64_t num_threads = std::max(1, threads.NumThreads());
  const int64_t smallest = std::max<int64_t>(1, kSmallestBlock / std::max<int64_t>(1, cost));
  const int64_t even = (n + num_threads * kBlocksPerThread - 1) / (num_threads * kBlocksPerThread);
  const int64_t block = std::max(smallest, even);
  const int64_t num_blocks = (n + block - 1) / block;
  const int num_helpers = static_cast<int>(std::min(num_threads, num_blocks) - 1);
  if (num_helpers == 0) {
    const ScopedSubnormals subnormals;
    fn(argument, 0, n);
    return;
  }
  auto* loop = new Loop(n, block, num_helpers + 1, fn, argument);
  for (int helper = 0; helper < num_helpers; ++helper) {
    threads.Schedule(
        [](void* shared) {
          static_cast<Loop*>(shared)->Work();
          static_cast<Loop*>(shared)->Release();
        },
        loop);
  }
  loop->Work();
  loop->WaitForBlocksBegun();
  loop->Release();
}

}  // namespace tfseg::core
