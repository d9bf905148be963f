// core/roi_align.h on a GPU. A box whose index or level core calls an error is taken as one of
// index -1: zeros, and no gradient.
#ifndef TFSEG_CUDA_ROI_ALIGN_H_
#define TFSEG_CUDA_ROI_ALIGN_H_

#include <vector>

#include "core/roi_align.h"
#include "cuda/context.h"

namespace tfseg::cuda {

TFSEG_API core::Status Forward(const core::roi_align::Params& params, const Context& context,
                               const std::vector<core::ConstBuffer>& features,
                               const core::ConstBuffer& boxes, const core::ConstBuffer& box_indices,
                               const core::ConstBuffer& levels, const core::Buffer& output);

// The same bits in every run. Workspace: 64 bytes a box. Boxes are sorted by comparing each with
// each: right, but a million of them take about a second.
TFSEG_API core::Status BackwardToFeatures(const core::roi_align::Params& params,
                                          const Context& context, const core::ConstBuffer& grad,
                                          const core::ConstBuffer& boxes,
                                          const core::ConstBuffer& box_indices,
                                          const core::ConstBuffer& levels,
                                          const std::vector<core::Buffer>& grad_features);

// The same bits in every run. Workspace: four numbers, in the boxes' dtype, a bin of each box.
TFSEG_API core::Status BackwardToBoxes(const core::roi_align::Params& params,
                                       const Context& context, const core::ConstBuffer& grad,
                                       const std::vector<core::ConstBuffer>& features,
                                       const core::ConstBuffer& boxes,
                                       const core::ConstBuffer& box_indices,
                                       const core::ConstBuffer& levels,
                                       const core::Buffer& grad_boxes);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_ROI_ALIGN_H_
