// core/mean_field_step.h on a GPU. A vertex or point that does not exist, but that a lattice names,
// contributes nothing where core calls it an error.
#ifndef TFSEG_CUDA_MEAN_FIELD_STEP_H_
#define TFSEG_CUDA_MEAN_FIELD_STEP_H_

#include <vector>

#include "core/mean_field_step.h"
#include "cuda/context.h"

namespace tfseg::cuda {

// The same bits in every run, in all three. Where there are lattices they wait for the stream once,
// to read num_vertices. Images are taken one by one. Workspace, in the accumulator's dtype: for the
// vertices of the image and lattice that have the most, two rows of classes each, padded to 16
// bytes; and rows of classes for the points of one image: one for half and bfloat16, and one for
// matrices.
TFSEG_API core::Status Forward(const core::mean_field_step::Params& params, const Context& context,
                               const core::mean_field_step::Inputs& inputs,
                               const core::Buffer& output);

// Workspace: those, and one row a point more; another where the gradient to a diagonal mixing is
// wanted; and for that to any mixing 2 MB, or 8 bytes a number of one lattice's if that is more.
TFSEG_API core::Status Backward(const core::mean_field_step::Params& params, const Context& context,
                                const core::mean_field_step::Inputs& inputs,
                                const core::ConstBuffer& output, const core::ConstBuffer& grad,
                                const core::mean_field_step::Grads& grads);

// Workspace: the rows of vertices, two rows a point, and five numbers a point.
TFSEG_API core::Status FeaturesGrad(const core::mean_field_step::Params& params,
                                    const Context& context,
                                    const core::mean_field_step::Inputs& inputs,
                                    const core::ConstBuffer& output, const core::ConstBuffer& grad,
                                    const std::vector<core::Buffer>& grad_features);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_MEAN_FIELD_STEP_H_
