// core/soft_dice_sums.h on a GPU. A pixel whose label core calls an error is taken as ignored.
#ifndef TFSEG_CUDA_SOFT_DICE_SUMS_H_
#define TFSEG_CUDA_SOFT_DICE_SUMS_H_

#include "core/soft_dice_sums.h"
#include "cuda/context.h"

namespace tfseg::cuda {

// The same bits in every run. Workspace: 8 bytes a sum of each image, or of each of its parts where
// there are several: 8 MB at most then.
TFSEG_API core::Status Forward(const core::soft_dice_sums::Params& params, const Context& context,
                               const core::soft_dice_sums::Inputs& inputs,
                               const core::soft_dice_sums::Sums& sums);

// The same bits in every run. No workspace.
TFSEG_API core::Status Backward(const core::soft_dice_sums::Params& params, const Context& context,
                                const core::soft_dice_sums::Inputs& inputs,
                                const core::soft_dice_sums::SumsGrad& grad,
                                const core::Buffer& grad_logits);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_SOFT_DICE_SUMS_H_
