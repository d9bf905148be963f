// Stands in for the CUDA runtime's header of this name, for tests: see cuda_runtime_api.h.
#ifndef TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_H_
#define TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_H_

#include <tuple>
#include <utility>

#include "cuda_runtime_api.h"
#include "emulator.h"

template <typename T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  *pointer = static_cast<T*>(memory);
  return error;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
  return cuda_emulator::Run(*config, [&] { std::apply(kernel, parameters); });
}

#endif  // TFSEG_CUDA_EMULATOR_CUDA_RUNTIME_H_
