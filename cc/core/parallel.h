// Loops over blocks of work on the caller's thread pool.
#ifndef TFSEG_CORE_PARALLEL_H_
#define TFSEG_CORE_PARALLEL_H_

#include <cstdint>
#include <type_traits>

#include "core/memory.h"

namespace tfseg::core {

// The caller's threads. Core never makes threads of its own.
class ThreadPool {
 public:
  virtual ~ThreadPool() = default;
  virtual int NumThreads() const = 0;
  // Runs task(argument) later on some thread, or at once on this one.
  virtual void Schedule(void (*task)(void*), void* argument) = 0;
};

// What an adapter gives to a call: threads and scratch memory.
struct Context {
  ThreadPool& threads;
  Workspace& workspace;
};

using BlockFunction = void (*)(void* argument, int64_t begin, int64_t end);

// The part of ParallelFor that does not depend on the function's type.
void ParallelForBlocks(ThreadPool& threads, int64_t n, int64_t cost, BlockFunction fn,
                       void* argument);

// Calls fn(begin, end) over blocks that together cover [0, n) once. `cost` is that of one item,
// about in nanoseconds: blocks too small to be worth a thread are not split. The caller works too,
// and waits only for blocks already begun, so a pool whose threads are all waiting elsewhere cannot
// stop it. Subnormal numbers count in full, whatever mode the threads are in.
template <typename Fn>
void ParallelFor(ThreadPool& threads, int64_t n, int64_t cost, Fn&& fn) {
  using Function = std::remove_reference_t<Fn>;
  ParallelForBlocks(
      threads, n, cost,
      [](void* argument, int64_t begin, int64_t end) {
        (*static_cast<Function*>(argument))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&fn)));
}

}  // namespace tfseg::core

#endif  // TFSEG_CORE_PARALLEL_H_
