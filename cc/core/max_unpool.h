// Max-unpooling: values go to the positions that a max-pooling's mask names, zeros elsewhere.
//
//   output[b, p] = sum of input[b, e] over the elements e of image b with argmax[b, e] = p
//
// where p counts the elements of one image (of the whole output, with include_batch_in_index).
// Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1; Noh,
// Hong & Han 2015, "Learning Deconvolution Network for Semantic Segmentation", section 3.2.1.
// Summing positions named twice makes it the exact adjoint of the gather that is its gradient.
#ifndef TFSEG_CORE_MAX_UNPOOL_H_
#define TFSEG_CORE_MAX_UNPOOL_H_

#include <cstdint>

#include "core/dtypes.h"
#include "core/max_pool_with_argmax.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"

namespace tfseg::core::max_unpool {

struct Params {
  bool include_batch_in_index = false;
  // With check_windows, each position must lie in its element's own channel and pooling window, as
  // VALID or SAME pooling of the output would place it.
  bool check_windows = false;
  int64_t ksize[2] = {0, 0};    // height, width
  int64_t strides[2] = {0, 0};  // height, width
};

// Whether a position along one axis lies in window number `window` of `windows`, as VALID pooling
// (no padding) or SAME pooling of `size` pixels places it.
TFSEG_HOST_DEVICE inline bool InWindow(int64_t position, int64_t window, int64_t size,
                                       int64_t windows, int64_t ksize, int64_t stride) {
  const int64_t padding =
      max_pool_with_argmax::PaddingBefore(size, windows, ksize, stride, /*same_padding=*/true);
  return position >= window * stride - padding && position < window * stride + ksize;
}

// Sizes of the masks (height, width) and of the output (out_height, out_width).
struct Geometry {
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;

  TFSEG_HOST_DEVICE int64_t masks_per_image() const { return height * width * channels; }
  TFSEG_HOST_DEVICE int64_t num_masks() const { return batch * masks_per_image(); }
  TFSEG_HOST_DEVICE int64_t out_per_image() const { return out_height * out_width * channels; }
  TFSEG_HOST_DEVICE int64_t num_outputs() const { return batch * out_per_image(); }
};

// The place in the whole output that mask number `element` of image `b` names, or -1 when it is not
// legal.
template <typename Index>
TFSEG_HOST_DEVICE inline int64_t Place(const Params& params, const Geometry& g, int64_t b,
                                       int64_t element, Index mask) {
  const int64_t image = g.out_per_image();
  const int64_t limit = params.include_batch_in_index ? g.batch * image : image;
  const auto position = static_cast<int64_t>(mask);
  if (!(position >= 0 && position < limit)) return -1;
  const int64_t place = params.include_batch_in_index ? position : b * image + position;
  if (params.check_windows) {
    const int64_t in_image = place - b * image;
    if (!(in_image >= 0 && in_image < image)) return -1;
    const int64_t pixel = in_image / g.channels;
    const int64_t mask_pixel = element % g.masks_per_image() / g.channels;
    const bool own = in_image % g.channels == element % g.channels &&
                     InWindow(pixel / g.out_width, mask_pixel / g.width, g.out_height, g.height,
                              params.ksize[0], params.strides[0]) &&
                     InWindow(pixel % g.out_width, mask_pixel % g.width, g.out_width, g.width,
                              params.ksize[1], params.strides[1]);
    if (!own) return -1;
  }
  return place;
}

// input and argmax [batch, height, width, channels] and the size of the output (kUnknown where
// unknown)
// -> output [batch, out_height, out_width, channels].
TFSEG_API Status InferShape(const Params& params, const Shape& input, const Shape& argmax,
                            int64_t out_height, int64_t out_width, Shape* output);

// output has the dtype of the input; its shape says the size. Positions outside the output are
// errors.
TFSEG_API Status Forward(const Params& params, const Context& context, const ConstBuffer& input,
                         const ConstBuffer& argmax, const Buffer& output);

// The shape of the values' gradient: that of argmax, checked against grad.
TFSEG_API Status InferGradShape(const Shape& grad, const Shape& argmax, Shape* grad_input);

// The gradient of the values: grad_input[b, e] = grad[b, argmax[b, e]], with the shape of argmax.
// grad [batch, out_height, out_width, channels].
TFSEG_API Status Backward(const Params& params, const Context& context, const ConstBuffer& grad,
                          const ConstBuffer& argmax, const Buffer& grad_input);

}  // namespace tfseg::core::max_unpool

#endif  // TFSEG_CORE_MAX_UNPOOL_H_
