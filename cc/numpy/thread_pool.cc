#include "numpy/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

namespace tfseg::numpy {
namespace {

std::atomic<NumpyThreadPool*> pool{nullptr};
std::mutex pool_mutex;

}  // namespace

NumpyThreadPool::NumpyThreadPool()
    : num_threads_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {}

NumpyThreadPool& NumpyThreadPool::Get() {
  NumpyThreadPool* current = pool.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  const std::lock_guard<std::mutex> lock(pool_mutex);
  static const int forks = pthread_atfork([] { pool_mutex.lock(); }, [] { pool_mutex.unlock(); },
                                          [] {
                                            // The old pool's locks and threads are in an unknown
                                            // state here: leave it behind.
                                            NumpyThreadPool* parent =
                                                pool.load(std::memory_order_relaxed);
                                            pool.store(nullptr, std::memory_order_release);
                                            pool_mutex.unlock();
                                            if (parent != nullptr)
                                              Get().num_threads_ = parent->num_threads_.load();
                                          });
  (void)forks;
  current = pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    current = new NumpyThreadPool();
    pool.store(current, std::memory_order_release);
  }
  return *current;
}

void NumpyThreadPool::SetNumThreads(int num_threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  num_threads_ = std::max(1, num_threads);
}

void NumpyThreadPool::Schedule(void (*task)(void*), void* argument) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.emplace_back(task, argument);
    // The caller of a loop works too, so the pool needs one thread less than the loop uses.
    if (num_started_ < num_threads_ - 1) {
      try {
        std::thread([this] { Work(); }).detach();
        ++num_started_;
      } catch (const std::system_error&) {
        // No more threads on this system: those that run, and the caller, do the work.
      }
    }
  }
  more_.notify_one();
}

void NumpyThreadPool::Work() {
  for (;;) {
    std::unique_lock<std::mutex> lock(mutex_);
    more_.wait(lock, [this] { return !tasks_.empty(); });
    const auto [task, argument] = tasks_.front();
    tasks_.pop_front();
    lock.unlock();
    task(argument);
  }
}

}  // namespace tfseg::numpy
