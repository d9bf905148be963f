#include "core/roi_align.h"

#include <algorithm>
#include <vector>

#include "xla/handler.h"
#if defined(TFSEG_CUDA)
#include "cuda/roi_align.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::roi_align;

op::Params ParamsOf(ffi::Span<const int64_t> output_size, ffi::Span<const float> spatial_scales,
                    int64_t sampling_ratio, bool aligned) {
  op::Params params;
  // The shape function has seen to their number.
  std::copy_n(output_size.begin(), std::min<size_t>(output_size.size(), 2), params.output_size);
  params.num_levels = static_cast<int>(spatial_scales.size());
  std::copy_n(spatial_scales.begin(), std::min<int>(params.num_levels, op::kMaxLevels),
              params.spatial_scales);
  params.sampling_ratio = sampling_ratio;
  params.aligned = aligned;
  return params;
}

template <typename DeviceContext>
ffi::Error RoiAlign(DeviceContext device, ffi::AnyBuffer boxes, ffi::AnyBuffer box_indices,
                    ffi::AnyBuffer levels, ffi::RemainingArgs features,
                    ffi::Result<ffi::AnyBuffer> output, int64_t /*num_levels*/,
                    ffi::Span<const int64_t> output_size, ffi::Span<const float> spatial_scales,
                    int64_t sampling_ratio, bool aligned) {
  const op::Params params = ParamsOf(output_size, spatial_scales, sampling_ratio, aligned);
  const auto maps = BuffersOf(features);
  if (!maps.has_value()) return maps.error();
  return ToError(
      Forward(params, device.Get(), *maps, In(boxes), In(box_indices), In(levels), Out(output)));
}

template <typename DeviceContext>
ffi::Error RoiAlignFeaturesGrad(DeviceContext device, ffi::AnyBuffer boxes,
                                ffi::AnyBuffer box_indices, ffi::AnyBuffer levels,
                                ffi::AnyBuffer grad, ffi::RemainingRets grad_features,
                                int64_t /*num_levels*/, ffi::Span<const int64_t> output_size,
                                ffi::Span<const float> spatial_scales, int64_t sampling_ratio,
                                bool aligned) {
  const op::Params params = ParamsOf(output_size, spatial_scales, sampling_ratio, aligned);
  const auto maps = BuffersOf(grad_features);
  if (!maps.has_value()) return maps.error();
  return ToError(BackwardToFeatures(params, device.Get(), In(grad), In(boxes), In(box_indices),
                                    In(levels), *maps));
}

template <typename DeviceContext>
ffi::Error RoiAlignBoxesGrad(DeviceContext device, ffi::AnyBuffer boxes, ffi::AnyBuffer box_indices,
                             ffi::AnyBuffer levels, ffi::AnyBuffer grad,
                             ffi::RemainingArgs features, ffi::Result<ffi::AnyBuffer> grad_boxes,
                             int64_t /*num_levels*/, ffi::Span<const int64_t> output_size,
                             ffi::Span<const float> spatial_scales, int64_t sampling_ratio,
                             bool aligned) {
  const op::Params params = ParamsOf(output_size, spatial_scales, sampling_ratio, aligned);
  const auto maps = BuffersOf(features);
  if (!maps.has_value()) return maps.error();
  return ToError(BackwardToBoxes(params, device.Get(), In(grad), *maps, In(boxes), In(box_indices),
                                 In(levels), Out(grad_boxes)));
}

// The attributes that the three share.
#define TFSEG_ROI_ALIGN_ATTRIBUTES                    \
  Attr<int64_t>("num_levels")                         \
      .Attr<ffi::Span<const int64_t>>("output_size")  \
      .Attr<ffi::Span<const float>>("spatial_scales") \
      .Attr<int64_t>("sampling_ratio")                \
      .Attr<bool>("aligned")

TFSEG_REGISTER_HANDLERS("tfseg_roi_align", RoiAlign,
                        .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .RemainingArgs()
                            .Ret<ffi::AnyBuffer>()
                            .TFSEG_ROI_ALIGN_ATTRIBUTES);

TFSEG_REGISTER_HANDLERS("tfseg_roi_align_features_grad", RoiAlignFeaturesGrad,
                        .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .RemainingRets()
                            .TFSEG_ROI_ALIGN_ATTRIBUTES);

TFSEG_REGISTER_HANDLERS("tfseg_roi_align_boxes_grad", RoiAlignBoxesGrad,
                        .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .RemainingArgs()
                            .Ret<ffi::AnyBuffer>()
                            .TFSEG_ROI_ALIGN_ATTRIBUTES);

#undef TFSEG_ROI_ALIGN_ATTRIBUTES

}  // namespace
}  // namespace tfseg::xla
