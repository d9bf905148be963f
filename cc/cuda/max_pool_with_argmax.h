// core/max_pool_with_argmax.h on a GPU.
#ifndef TFSEG_CUDA_MAX_POOL_WITH_ARGMAX_H_
#define TFSEG_CUDA_MAX_POOL_WITH_ARGMAX_H_

#include "core/max_pool_with_argmax.h"
#include "cuda/context.h"

namespace tfseg::cuda {

TFSEG_API core::Status Forward(const core::max_pool_with_argmax::Params& params,
                               const Context& context, const core::ConstBuffer& input,
                               const core::Buffer& output, const core::Buffer& argmax);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_MAX_POOL_WITH_ARGMAX_H_
