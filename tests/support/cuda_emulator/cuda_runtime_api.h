// Stands in for the CUDA runtime's header of this name, for tests: host memory plays device memory
// and kernels run on the CPU (emulator.h). It comes first on the include path, so that the sources
// under test need no #ifdef.
#ifndef TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_API_H_
#define TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_API_H_

#include <cstddef>
#include <cstdlib>
#include <cstring>

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
typedef struct CUstream_st* cudaStream_t;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;  // must be 0: dynamic shared memory is not emulated
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;  // must be 0, likewise
};

// The fill shows reads of memory that no kernel has written, which zeros would hide: as a float it
// is about -2.9e-16, as an int a large negative number.
inline cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = std::malloc(bytes);
  if (*pointer == nullptr) return bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
  std::memset(*pointer, 0xa5, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
  if (bytes != 0) std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  if (bytes != 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
// Nothing is ever pending: a launch returns when its kernel has ended, with the kernel's failure.
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

// The last failure of a launch by the calling OS thread.
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetLastError();
// For a failed launch what went wrong in the calling OS thread's last one.
const char* cudaGetErrorString(cudaError_t error);

#endif  // TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_API_H_
