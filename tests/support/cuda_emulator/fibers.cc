#include "fibers.h"

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <deque>
#include <memory>
#include <utility>

#ifdef TFSEG_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emulator {

struct Fiber {
  boost::context::fiber context;
  boost::context::stack_context stack;
  void* asan = nullptr;
  void* tsan = nullptr;
};

namespace {

constexpr std::size_t kStackBytes = 256 * 1024;

// A fiber is a thread to the race detector, which cannot see a race of one thread with itself. So
// there fibers take turns, and neighbouring blocks get different ones. Elsewhere the last used is
// the best, being in the cache.
#ifdef TFSEG_EMULATOR_TSAN
constexpr bool kTakeTurns = true;
constexpr std::size_t kMinIdle = 512;
#else
constexpr bool kTakeTurns = false;
constexpr std::size_t kMinIdle = 1;
#endif

// Never freed, as launches may go on while the process ends.
std::deque<Fiber*>& idle_fibers = *new std::deque<Fiber*>;

Fiber* running = nullptr;

// The stack that resumes the fibers.
struct {
  boost::context::fiber context;
  void* asan = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  void* tsan = nullptr;
} scheduler;

void* StackBottom(const Fiber& f) { return static_cast<char*>(f.stack.sp) - f.stack.size; }

void TsanSwitch([[maybe_unused]] void* fiber) {
#ifdef TFSEG_EMULATOR_TSAN
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
#endif
}
void AsanStartSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                     [[maybe_unused]] std::size_t bytes) {
#ifdef TFSEG_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
}
void AsanFinishSwitch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                      [[maybe_unused]] std::size_t* bytes) {
#ifdef TFSEG_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
#endif
}

boost::context::fiber FiberMain(boost::context::fiber&& from) {
  AsanFinishSwitch(nullptr, &scheduler.stack_bottom, &scheduler.stack_bytes);
  scheduler.context = std::move(from);
  for (;;) {
    RunThread();
    Suspend();  // comes back with another CUDA thread
  }
}

void Start(Fiber& f) {
  // In place of a handle that is not destroyed: that would unwind the frames of a kernel that has
  // failed, which runs its destructors.
  new (&f.context) boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(f.stack.sp, f.stack.size, f.stack),
      boost::context::protected_fixedsize_stack(kStackBytes), FiberMain);
  f.asan = nullptr;
#ifdef TFSEG_EMULATOR_TSAN
  f.tsan = __tsan_create_fiber(0);
#endif
}

}  // namespace

Fiber* GetFiber() {
  while (idle_fibers.size() < kMinIdle) {
    auto* fiber = new Fiber;
    fiber->stack = boost::context::protected_fixedsize_stack(kStackBytes).allocate();
    Start(*fiber);
    idle_fibers.push_front(fiber);
  }
  Fiber* fiber = idle_fibers.front();
  idle_fibers.pop_front();
  return fiber;
}

void PutFiber(Fiber* fiber) {
  if (kTakeTurns) {
    idle_fibers.push_back(fiber);
  } else {
    idle_fibers.push_front(fiber);
  }
}

void Restart(Fiber* fiber) {
#ifdef TFSEG_EMULATOR_ASAN
  __asan_unpoison_memory_region(StackBottom(*fiber), fiber->stack.size);
#endif
#ifdef TFSEG_EMULATOR_TSAN
  __tsan_destroy_fiber(fiber->tsan);
#endif
  Start(*fiber);
}

void BecomeScheduler() {
#ifdef TFSEG_EMULATOR_TSAN
  scheduler.tsan = __tsan_get_current_fiber();
#endif
}

void Resume(Fiber* fiber) {
  running = fiber;
  TsanSwitch(fiber->tsan);
  AsanStartSwitch(&scheduler.asan, StackBottom(*fiber), fiber->stack.size);
  fiber->context = std::move(fiber->context).resume();
  AsanFinishSwitch(scheduler.asan, nullptr, nullptr);
}

void Suspend() {
  Fiber* self = running;
  TsanSwitch(scheduler.tsan);
  AsanStartSwitch(&self->asan, scheduler.stack_bottom, scheduler.stack_bytes);
  scheduler.context = std::move(scheduler.context).resume();
  // The scheduler's stack may by now be that of another OS thread.
  AsanFinishSwitch(self->asan, &scheduler.stack_bottom, &scheduler.stack_bytes);
}

}  // namespace cuda_emulator
