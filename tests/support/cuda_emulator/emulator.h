// Runs CUDA kernels on the CPU, for tests.
//
// Every CUDA thread of a block is a fiber, and blocks run one after another. __syncthreads,
// __syncwarp and the *_sync warp intrinsics suspend the fiber until its partners arrive. A launch
// fails, with a message, if threads of a block wait for each other forever, reach different
// barriers, or name lanes in a mask that are not there.
//
// With -fsanitize=address out-of-bounds accesses are found. Those to __shared__ arrays too, but
// with g++ only in functions local to their file: of other templates and inline functions, whose
// statics the linker merges, it leaves the arrays unguarded. So kernels and device functions with
// such arrays belong in unnamed namespaces. With -fsanitize=thread each CUDA thread is a thread of
// its own to the race detector, so a missing barrier or atomic is found whatever the order in which
// the threads happen to run.
//
// Not emulated: dynamic shared memory, cooperative groups, textures, streams. Stricter than the
// device: a thread that returns before a barrier fails the launch. More lenient: __shared__ memory
// begins as zeros, later with what the last block left; memory order is that of the CPU; a loop
// that waits for another thread without an atomic, barrier or __nanosleep never ends.
#ifndef TFSEG_CUDA_EMULATOR_EMULATOR_H_
#define TFSEG_CUDA_EMULATOR_EMULATOR_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#if defined(__SANITIZE_THREAD__)
// Each block has an OS thread there, and so fresh memory: blocks must not seem to share it.
#define __shared__ static thread_local
#else
#define __shared__ static
#endif

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_emulator {

// The order in which blocks, and threads that can go on, run. kRandom also switches threads at
// atomics. The environment variable TFSEG_CUDA_ORDER (forward, reverse, or the seed of a random
// order) sets the first value.
enum class Order { kForward, kReverse, kRandom };
void SetOrder(Order order, std::uint64_t seed = 1);

// Why the last launch by the calling OS thread failed; empty if it did not.
const std::string& Message();

struct Stats {
  std::uint64_t launches, blocks, threads;
};
// What has run since the process began, by all OS threads: proof that a test did run kernels.
Stats GetStats();

// Runs `body` once for each thread of the grid. Any OS thread may call; launches take turns.
cudaError_t Run(const cudaLaunchConfig_t& config, const std::function<void()>& body);

// ---- What the intrinsics below are made of ------------------------------------------------------

struct Site {
  const char* file;
  int line;
};
// As a default argument: the place of the call.
constexpr Site Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}

// What a thread waits for. All lanes of the mask must ask for the same kind; all threads of a block
// for the same kind at the same place.
enum class Kind { kBarrier, kBarrierCount, kShuffle, kVote, kWarpBarrier };
struct Request {
  Kind kind;
  unsigned mask;       // the lanes that take part in a warp operation
  std::uint64_t bits;  // the value to shuffle, or the vote
  int source;          // the lane to read; -1: the own value
  Site site;
};
// Suspends the calling thread until its partners are there. Returns the shuffled value, the lanes'
// votes as a bit set, or the number of true votes in the block.
std::uint64_t Wait(const Request& request);
int Lane();
// Comes before each atomic: may let other threads run.
void AtomicPoint();
void Yield();
void Fence();

template <typename To, typename From>
To BitCast(From from) {
  static_assert(sizeof(To) >= sizeof(From) || sizeof(From) == sizeof(std::uint64_t));
  To to{};
  std::memcpy(&to, &from, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
  return to;
}

template <typename T>
T Shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "CUDA has no shuffle for this type");
  return BitCast<T>(Wait({Kind::kShuffle, mask, BitCast<std::uint64_t>(value), source, site}));
}
inline int CountInBlock(bool vote, Site site) {
  return static_cast<int>(Wait({Kind::kBarrierCount, 0, vote, -1, site}));
}

template <typename T, typename... Types>
inline constexpr bool kIsOneOf = (std::is_same_v<T, Types> || ...);

// Replaces *address by next(*address). Relaxed, as on the device; by bits, so that NaN ends too.
template <typename T, typename Next>
T AtomicUpdate(T* address, Next next) {
  AtomicPoint();
  T old;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  for (;;) {
    T desired = next(old);
    if (__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED,
                                  __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

}  // namespace cuda_emulator

// ---- Barriers -----------------------------------------------------------------------------------

inline void __syncthreads(cuda_emulator::Site site = cuda_emulator::Here()) {
  cuda_emulator::Wait({cuda_emulator::Kind::kBarrier, 0, 0, -1, site});
}
inline int __syncthreads_count(int predicate, cuda_emulator::Site site = cuda_emulator::Here()) {
  return cuda_emulator::CountInBlock(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, cuda_emulator::Site site = cuda_emulator::Here()) {
  return cuda_emulator::CountInBlock(predicate != 0, site) > 0;
}
inline int __syncthreads_and(int predicate, cuda_emulator::Site site = cuda_emulator::Here()) {
  return cuda_emulator::CountInBlock(predicate == 0, site) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_emulator::Site site = cuda_emulator::Here()) {
  cuda_emulator::Wait({cuda_emulator::Kind::kWarpBarrier, mask, 0, -1, site});
}
inline void __threadfence() { cuda_emulator::Fence(); }
inline void __threadfence_block() { cuda_emulator::Fence(); }
inline void __nanosleep(unsigned) { cuda_emulator::Yield(); }

// ---- Votes and shuffles of a warp ---------------------------------------------------------------

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_emulator::Site site = cuda_emulator::Here()) {
  return static_cast<unsigned>(
      cuda_emulator::Wait({cuda_emulator::Kind::kVote, mask, predicate != 0, -1, site}));
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_emulator::Site site = cuda_emulator::Here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_emulator::Site site = cuda_emulator::Here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

// A warp is split into groups of `width` lanes; a lane whose source lies outside its group keeps
// its own value.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              cuda_emulator::Site site = cuda_emulator::Here()) {
  const int group = cuda_emulator::Lane() & ~(width - 1);
  return cuda_emulator::Shuffle(mask, value, group + (source & (width - 1)), site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   cuda_emulator::Site site = cuda_emulator::Here()) {
  const int group = cuda_emulator::Lane() & ~(width - 1);
  const int place = cuda_emulator::Lane() - group + static_cast<int>(delta);
  return cuda_emulator::Shuffle(mask, value, place < width ? group + place : -1, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 cuda_emulator::Site site = cuda_emulator::Here()) {
  const int group = cuda_emulator::Lane() & ~(width - 1);
  const int place = cuda_emulator::Lane() - group - static_cast<int>(delta);
  return cuda_emulator::Shuffle(mask, value, place >= 0 ? group + place : -1, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  cuda_emulator::Site site = cuda_emulator::Here()) {
  // Not the mirror of the others: a group may read an earlier one, but not a later one.
  const int source = cuda_emulator::Lane() ^ lane_mask;
  const int end = (cuda_emulator::Lane() & ~(width - 1)) + width;
  return cuda_emulator::Shuffle(mask, value, source < end ? source : -1, site);
}

// ---- Atomics ------------------------------------------------------------------------------------
// CUDA has overloads for certain types; others must not compile here either. (std::uint64_t is
// unsigned long, for which CUDA has none.) As with overloads, the value converts to the type of the
// memory.

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long, float, double>,
                "CUDA has no atomicAdd for this type");
  if constexpr (std::is_floating_point_v<T>) {
    return cuda_emulator::AtomicUpdate(address, [&](T old) { return old + value; });
  } else {
    cuda_emulator::AtomicPoint();
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);  // wraps round
  }
}
template <typename T>
T atomicSub(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned>, "CUDA has no atomicSub for this type");
  cuda_emulator::AtomicPoint();
  return __atomic_fetch_sub(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicExch(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long, float>,
                "CUDA has no atomicExch for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long, unsigned short>,
                "CUDA has no atomicCAS for this type");
  cuda_emulator::AtomicPoint();
  __atomic_compare_exchange(address, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long, long long>,
                "CUDA has no atomicMin for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long, long long>,
                "CUDA has no atomicMax for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicAnd(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long>,
                "CUDA has no atomicAnd for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T old) { return old & value; });
}
template <typename T>
T atomicOr(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long>,
                "CUDA has no atomicOr for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T old) { return old | value; });
}
template <typename T>
T atomicXor(T* address, std::common_type_t<T> value) {
  static_assert(cuda_emulator::kIsOneOf<T, int, unsigned, unsigned long long>,
                "CUDA has no atomicXor for this type");
  return cuda_emulator::AtomicUpdate(address, [&](T old) { return old ^ value; });
}

// ---- Device functions that C++ lacks ------------------------------------------------------------

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __clzll(long long v) {
  return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v));
}
inline int __float_as_int(float v) { return cuda_emulator::BitCast<int>(v); }
inline unsigned __float_as_uint(float v) { return cuda_emulator::BitCast<unsigned>(v); }
inline float __int_as_float(int v) { return cuda_emulator::BitCast<float>(v); }
inline float __uint_as_float(unsigned v) { return cuda_emulator::BitCast<float>(v); }
inline long long __double_as_longlong(double v) { return cuda_emulator::BitCast<long long>(v); }
inline double __longlong_as_double(long long v) { return cuda_emulator::BitCast<double>(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline double rsqrt(double v) { return 1.0 / std::sqrt(v); }

#endif  // TFSEG_CUDA_EMULATOR_EMULATOR_H_
