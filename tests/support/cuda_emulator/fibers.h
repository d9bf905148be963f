// The stacks that CUDA threads run on, and what the sanitizers must know of them. Only for the
// emulator's own files.
//
// Those are never built with -fsanitize=thread or address; TFSEG_EMULATOR_TSAN and
// TFSEG_EMULATOR_ASAN say that the kernels are. The bookkeeping must be invisible to the race
// detector, or it would order all accesses of the kernels. And a new fiber's first frame is begun
// before AddressSanitizer can be told of the fiber: if it knew that frame, it would free it with
// the OS thread that made the fiber.
#ifndef TFSEG_CUDA_EMULATOR_FIBERS_H_
#define TFSEG_CUDA_EMULATOR_FIBERS_H_

#ifdef TFSEG_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_emulator {

// A stack that runs one CUDA thread after another. Its OS thread may differ from launch to launch.
struct Fiber;

Fiber* GetFiber();
// Takes back a fiber whose CUDA thread has ended.
void PutFiber(Fiber* fiber);
// Makes a fiber new that a failed launch has left in the middle of a kernel.
void Restart(Fiber* fiber);

// Says that the calling OS thread resumes fibers from now on.
void BecomeScheduler();
// In the scheduler: runs the fiber until it suspends itself or its CUDA thread ends.
void Resume(Fiber* fiber);
// On a fiber: goes back to the scheduler.
void Suspend();

// The emulator's part: runs the current CUDA thread, on a fiber.
void RunThread();

// To the race detector, what comes after Acquire(token) comes after what came before
// Release(token).
inline void Release([[maybe_unused]] char* token) {
#ifdef TFSEG_EMULATOR_TSAN
  __tsan_release(token);
#endif
}
inline void Acquire([[maybe_unused]] char* token) {
#ifdef TFSEG_EMULATOR_TSAN
  __tsan_acquire(token);
#endif
}

}  // namespace cuda_emulator

#endif  // TFSEG_CUDA_EMULATOR_FIBERS_H_
