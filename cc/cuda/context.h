// What an adapter gives to a launcher. No CUDA header is needed to call one.
#ifndef TFSEG_CUDA_CONTEXT_H_
#define TFSEG_CUDA_CONTEXT_H_

#include "core/memory.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace tfseg::cuda {

// A launcher has core's name and arguments, and this in the place of core::Context: an unqualified
// call finds the one of the two that the context belongs to. Buffers and workspace lie on the
// device; the work is only queued on the stream when a launcher returns, and only those that read
// or build lattices wait for what was queued before.
struct Context {
  CUstream_st* stream;
  core::Workspace& workspace;
};

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_CONTEXT_H_
