// core/max_unpool.h on a GPU. A mask that core calls an error contributes nothing here.
#ifndef TFSEG_CUDA_MAX_UNPOOL_H_
#define TFSEG_CUDA_MAX_UNPOOL_H_

#include "core/max_unpool.h"
#include "cuda/context.h"

namespace tfseg::cuda {

// Workspace: an index (4 bytes, or 8 for 2^32 masks and more) a mask, and one an output where an
// output is not itself as wide. Masks that all name one place are summed by one thread: right, but
// a million of them take seconds.
TFSEG_API core::Status Forward(const core::max_unpool::Params& params, const Context& context,
                               const core::ConstBuffer& input, const core::ConstBuffer& argmax,
                               const core::Buffer& output);

TFSEG_API core::Status Backward(const core::max_unpool::Params& params, const Context& context,
                                const core::ConstBuffer& grad, const core::ConstBuffer& argmax,
                                const core::Buffer& grad_input);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_MAX_UNPOOL_H_
