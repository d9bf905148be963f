// core/gaussian_filter.h on a GPU. A vertex or point that does not exist, but that the lattice
// names, contributes nothing where core calls it an error.
#ifndef TFSEG_CUDA_GAUSSIAN_FILTER_H_
#define TFSEG_CUDA_GAUSSIAN_FILTER_H_

#include "core/gaussian_filter.h"
#include "cuda/context.h"

namespace tfseg::cuda {

// The same bits in every run, in both. They wait for the stream once, to read num_vertices.
// Workspace: two numbers for each channel, padded to 16 bytes, of each vertex of the image that has
// the most; the gradient's also two a point of an image.
TFSEG_API core::Status Forward(const core::gaussian_filter::Params& params, const Context& context,
                               const core::ConstBuffer& values,
                               const core::permutohedral_lattice::Lattice& lattice,
                               const core::Buffer& output);

TFSEG_API core::Status FeaturesGrad(const core::gaussian_filter::Params& params,
                                    const Context& context, const core::ConstBuffer& values,
                                    const core::permutohedral_lattice::Lattice& lattice,
                                    const core::ConstBuffer& grad,
                                    const core::Buffer& grad_features);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_GAUSSIAN_FILTER_H_
