// The thread pool of the numpy module.
#ifndef TFSEG_NUMPY_THREAD_POOL_H_
#define TFSEG_NUMPY_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "core/parallel.h"

namespace tfseg::numpy {

// Threads are started at the first task and never joined: tasks hold no Python objects, and at exit
// the process ends with them.
class NumpyThreadPool final : public core::ThreadPool {
 public:
  // The pool of the module. A forked child has no threads of its parent's and starts with a fresh
  // pool.
  static NumpyThreadPool& Get();

  int NumThreads() const override { return num_threads_; }
  // How many threads a call uses, the caller's included. Throws nothing; at least 1.
  void SetNumThreads(int num_threads);
  void Schedule(void (*task)(void*), void* argument) override;

 private:
  NumpyThreadPool();
  void Work();

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<std::pair<void (*)(void*), void*>> tasks_;
  std::atomic<int> num_threads_;
  int num_started_ = 0;
};

}  // namespace tfseg::numpy

#endif  // TFSEG_NUMPY_THREAD_POOL_H_
