// What the launchers share. Plain C++ around cudaLaunchKernelEx, with no <<<>>>: the same source is
// compiled by nvcc for the device and by a C++ compiler for the emulator of the tests.
#ifndef TFSEG_CUDA_LAUNCH_H_
#define TFSEG_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "core/status.h"
#include "cuda/context.h"

namespace tfseg::cuda {

inline core::Status ToStatus(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return core::Status::Ok();
  return core::Status::Internal(std::string(op) + ": CUDA: " + cudaGetErrorString(error));
}

inline constexpr int kBlockThreads = 256;
// Several waves of blocks on the largest devices; beyond that a thread takes several items.
inline constexpr int64_t kMostBlocks = 4096;

// Queues kernel(items, args...) with enough threads for a loop by ForItems; nothing for no items.
template <typename... Params, typename... Args>
core::Status Launch(const char* op, void (*kernel)(int64_t, Params...), const Context& context,
                    int64_t items, Args&&... args) {
  if (items == 0) return core::Status::Ok();
  cudaLaunchConfig_t config = {};
  const int64_t blocks = (items + kBlockThreads - 1) / kBlockThreads;
  config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, kMostBlocks)));
  config.blockDim = dim3(kBlockThreads);
  config.stream = context.stream;
  return ToStatus(op, cudaLaunchKernelEx(&config, kernel, items, std::forward<Args>(args)...));
}

// Calls fn(item) for this thread's share of [0, items). Neighbouring threads take neighbouring
// items.
template <typename Fn>
__device__ inline void ForItems(int64_t items, Fn&& fn) {
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < items;
       item += threads) {
    fn(item);
  }
}

// Neighbouring channels that one thread moves at once, in accesses of up to 16 bytes.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T lanes[kCount];
};

template <int kCount, typename T>
__device__ inline Pack<T, kCount> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}

template <int kCount, typename T>
__device__ inline void StorePack(const Pack<T, kCount>& pack, T* to) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// How many T fill 16 bytes.
template <typename T>
inline constexpr int kFullPack = 16 / static_cast<int>(sizeof(T));

// Whether pixels of so many channels, in arrays that begin at these addresses, can be cut into
// packs of kCount.
template <int kCount, typename... Pointers>
bool FitsPacks(int64_t channels, const Pointers*... pointers) {
  return channels % kCount == 0 &&
         ((reinterpret_cast<uintptr_t>(static_cast<const void*>(pointers)) % 16 == 0) && ...);
}

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_LAUNCH_H_
