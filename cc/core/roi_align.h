// RoI Align: boxes cut out of feature maps, each resampled to the same number of bins.
//
//   output[k, p, q, c] = mean over the sample points (i, j) of bin (p, q) of box k of
//                        bilinear(features[levels[k]][box_indices[k], :, :, c], y(p, i), x(q, j))
//
// He, Gkioxari, Dollar & Girshick 2017, "Mask R-CNN", section 3 (RoIAlign), with the sample points
// and borders of Detectron2 and torchvision. Both the bilinear weights and the border rule are
// products of a part for y and a part for x, so everything here is said of one axis.
#ifndef TFSEG_CORE_ROI_ALIGN_H_
#define TFSEG_CORE_ROI_ALIGN_H_

#include <cstdint>
#include <vector>

#include "core/dtypes.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"

namespace tfseg::core::roi_align {

inline constexpr int kMaxLevels = 16;
// Of a bin along one axis. Bins of more pixels than this are sampled more coarsely: floating-point
// numbers of their size don't tell neighbouring pixels apart.
inline constexpr int64_t kMostPoints = int64_t{1} << 20;

struct Params {
  int64_t output_size[2] = {0, 0};  // bins: height, width
  int num_levels = 0;
  float spatial_scales[kMaxLevels] = {};  // of each level: feature pixels per image pixel
  int64_t sampling_ratio = 0;             // points per bin and axis; 0: the bin's size, rounded up
  bool aligned = true;                    // pixel centres lie at halves, and boxes may be small
};

// The name that messages begin with.
inline const char* OpOf(const Params& params) {
  return params.num_levels > 1 ? "multilevel_roi_align" : "roi_align";
}

// The sample points of a box along one axis, in pixels of the feature map.
template <typename A>
struct Axis {
  A start;         // of the first bin
  A bin;           // the size of a bin; negative in a box that is reversed
  int64_t points;  // of a bin
  int64_t bins;
  int64_t extent;  // of the map
  bool widened;    // to one pixel (aligned=False): the second coordinate moves nothing

  // Of point i of bin p. The order of the operations is torchvision's: where samples leave the map
  // the result jumps, and rounding decides.
  TFSEG_HOST_DEVICE A Position(int64_t p, int64_t i) const {
    return start + static_cast<A>(p) * bin +
           (static_cast<A>(i) + A(0.5)) * bin / static_cast<A>(points);
  }

  // How far along the box a point lies, from 0 at its first coordinate to 1 at its second: its
  // position moves by 1 - Share for each unit of the first, by Share for each of the second.
  TFSEG_HOST_DEVICE A Share(int64_t p, int64_t i) const {
    if (widened) return A(0);
    return (static_cast<A>(p) + (static_cast<A>(i) + A(0.5)) / static_cast<A>(points)) /
           static_cast<A>(bins);
  }
};

// `first` and `second` are coordinates of the box in image pixels.
template <typename A>
TFSEG_HOST_DEVICE inline Axis<A> AxisOf(const Params& params, A first, A second, float scale,
                                        int64_t bins, int64_t extent) {
  const A offset = params.aligned ? A(0.5) : A(0);
  Axis<A> axis;
  axis.start = first * static_cast<A>(scale) - offset;
  A size = second * static_cast<A>(scale) - offset - axis.start;
  axis.widened = !params.aligned && !(size >= A(1));
  if (axis.widened) size = A(1);
  axis.bin = size / static_cast<A>(bins);
  axis.bins = bins;
  axis.extent = extent;
  axis.points = params.sampling_ratio;
  if (params.sampling_ratio == 0) {
    // Rounded up by hand: C's ceil is another function on a device.
    const A most = static_cast<A>(kMostPoints);
    const A clipped = axis.bin >= most ? most : axis.bin > A(0) ? axis.bin : A(0);
    axis.points = static_cast<int64_t>(clipped);
    if (static_cast<A>(axis.points) < clipped) ++axis.points;
  }
  // Coordinates that are not finite, or too large to be subtracted from each other.
  const bool finite = first - first == A(0) && second - second == A(0) &&
                      axis.start - axis.start == A(0) && size - size == A(0);
  if (!finite || extent == 0) axis.points = 0;
  return axis;
}

// The points [begin, end) of one bin; outside of them no point lies inside the map.
struct PointRange {
  int64_t begin, end;
};
template <typename A>
TFSEG_HOST_DEVICE inline PointRange PointsInside(const Axis<A>& axis, int64_t p) {
  constexpr int64_t kFew = 8;
  if (axis.points <= kFew || !(axis.bin > A(0))) return {0, axis.points};
  // Positions never fall with i, also when rounded: a search finds where they enter and leave.
  const auto first_over = [&](A border, bool or_on) {
    int64_t low = 0, high = axis.points;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      const A position = axis.Position(p, middle);
      if (position > border || (or_on && position == border)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  return {first_over(A(-1), true), first_over(static_cast<A>(axis.extent), false)};
}

// What a point reads along one axis: 1 - fraction of pixel `low`, and `fraction` of the next one.
template <typename A>
struct Sample {
  bool inside;  // outside of [-1, extent] it counts as zero
  bool moves;   // false beyond the centres of the first and last pixel, where it stands still
  int64_t low;
  A fraction;
};
template <typename A>
TFSEG_HOST_DEVICE inline Sample<A> SampleAt(A position, int64_t extent) {
  if (!(position >= A(-1) && position <= static_cast<A>(extent))) return {false, false, 0, A(0)};
  if (position < A(0)) return {true, false, 0, A(0)};
  const auto low = static_cast<int64_t>(position);
  if (low >= extent - 1) return {true, false, extent - 1, A(0)};
  return {true, true, low, position - static_cast<A>(low)};
}

// A box on its map.
template <typename A>
struct Box {
  int64_t image;
  int level;
  Axis<A> y, x;
  A share;  // of a point in its bin's mean

  TFSEG_HOST_DEVICE bool empty() const { return y.points == 0 || x.points == 0; }
};
// `corners` are [y1, x1, y2, x2].
template <typename A>
TFSEG_HOST_DEVICE inline Box<A> BoxOf(const Params& params, const A* corners, int64_t image,
                                      int level, int64_t height, int64_t width) {
  const float scale = params.spatial_scales[level];
  Box<A> box;
  box.image = image;
  box.level = level;
  box.y = AxisOf(params, corners[0], corners[2], scale, params.output_size[0], height);
  box.x = AxisOf(params, corners[1], corners[3], scale, params.output_size[1], width);
  box.share = box.empty() ? A(0) : A(1) / (static_cast<A>(box.y.points) * box.x.points);
  return box;
}

// features: num_levels of [batch, height, width, channels], of one batch and number of channels;
// boxes [num_boxes, 4]; box_indices and levels [num_boxes]
// -> output [num_boxes, output_size, channels].
TFSEG_API Status InferShape(const Params& params, const std::vector<Shape>& features,
                            const Shape& boxes, const Shape& box_indices, const Shape& levels,
                            Shape* output);

// boxes have the accumulator's dtype: float64 for float64 features, else float32. A box of index -1
// gives zeros, whatever its level; other indices outside the batch, and levels that do not exist,
// are errors.
TFSEG_API Status Forward(const Params& params, const Context& context,
                         const std::vector<ConstBuffer>& features, const ConstBuffer& boxes,
                         const ConstBuffer& box_indices, const ConstBuffer& levels,
                         const Buffer& output);

// The shapes of the features' gradients. sizes: [batch, height, width of level 0, height, ...].
TFSEG_API Status InferFeaturesGradShapes(const Params& params, const Shape& grad,
                                         const Shape& boxes, const Shape& box_indices,
                                         const Shape& levels, const std::vector<int64_t>& sizes,
                                         std::vector<Shape>* grad_features);

// The adjoint of Forward: grad [num_boxes, output_size, channels] -> grad_features, shaped as
// features. A pixel's sum is kept in the accumulator's dtype and in an order of its own, for any
// number of threads.
TFSEG_API Status BackwardToFeatures(const Params& params, const Context& context,
                                    const ConstBuffer& grad, const ConstBuffer& boxes,
                                    const ConstBuffer& box_indices, const ConstBuffer& levels,
                                    const std::vector<Buffer>& grad_features);

// The shape of the boxes' gradient, [num_boxes, 4].
TFSEG_API Status InferBoxesGradShape(const Params& params, const Shape& grad,
                                     const std::vector<Shape>& features, const Shape& boxes,
                                     const Shape& box_indices, const Shape& levels,
                                     Shape* grad_boxes);

// The derivative of sum(grad * output) by the corners of each box: that of the bilinear weights
// (Jaderberg et al. 2015, "Spatial Transformer Networks", equation 7), to the right where a point
// stands on a pixel's centre. The number of points is taken as constant.
TFSEG_API Status BackwardToBoxes(const Params& params, const Context& context,
                                 const ConstBuffer& grad, const std::vector<ConstBuffer>& features,
                                 const ConstBuffer& boxes, const ConstBuffer& box_indices,
                                 const ConstBuffer& levels, const Buffer& grad_boxes);

}  // namespace tfseg::core::roi_align

#endif  // TFSEG_CORE_ROI_ALIGN_H_
