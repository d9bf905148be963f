// Max-pooling that also says where each maximum stood.
//
//   output[b, i, j, c] = max over window (i, j) of input[b, y, x, c]
//   argmax[b, i, j, c] = (y * width + x) * channels + c of that maximum, plus b * height * width *
//   channels
//                        with include_batch_in_index
//
// Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1 (the
// switches); positions as tf.nn.max_pool_with_argmax numbers them. The backward pass is the adjoint
// of picking those positions: max_unpool::Forward of the gradient, to the size of the input.
#ifndef TFSEG_CORE_MAX_POOL_WITH_ARGMAX_H_
#define TFSEG_CORE_MAX_POOL_WITH_ARGMAX_H_

#include <cstdint>

#include "core/dtypes.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"

namespace tfseg::core::max_pool_with_argmax {

struct Params {
  int64_t ksize[2];    // height, width
  int64_t strides[2];  // height, width
  bool same_padding;   // SAME, else VALID
  bool include_batch_in_index;
};

// Whether a candidate takes the place of the best value so far. The first of equal values stays;
// the first NaN beats every number and stays. T may be a vector; the result is then a mask.
template <typename T>
TFSEG_HOST_DEVICE inline auto Beats(const T& candidate, const T& best) {
  return (!(candidate <= best)) & (best == best);
}

// Where a window begins along one axis: `padding` elements before the first row or column.
TFSEG_HOST_DEVICE inline int64_t PaddingBefore(int64_t input, int64_t output, int64_t ksize,
                                               int64_t stride, bool same_padding) {
  const int64_t total = (output - 1) * stride + ksize - input;
  return same_padding && total > 0 ? total / 2 : 0;
}

// Sizes of the input (height, width) and of the results (out_height, out_width), and the padding
// before the first row and column.
struct Geometry {
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;
  int64_t pad_top, pad_left;
};

inline Geometry GeometryOf(const Params& params, const Shape& input, const Shape& output) {
  return {
      input[0],
      input[1],
      input[2],
      input[3],
      output[1],
      output[2],
      PaddingBefore(input[1], output[1], params.ksize[0], params.strides[0], params.same_padding),
      PaddingBefore(input[2], output[2], params.ksize[1], params.strides[1], params.same_padding)};
}

// The part of window number `window` along one axis that lies inside the input.
struct Span {
  int64_t begin, end;
};
TFSEG_HOST_DEVICE inline Span WindowAlong(int64_t window, int64_t ksize, int64_t stride,
                                          int64_t padding, int64_t input) {
  const int64_t first = window * stride - padding;
  return {first > 0 ? first : 0, first + ksize < input ? first + ksize : input};
}

// input [batch, height, width, channels] -> output and argmax [batch, out_height, out_width,
// channels]. Parts of `input` may be unknown, and are then unknown in `output`.
TFSEG_API Status InferShape(const Params& params, const Shape& input, DType argmax, Shape* output);

// output has the dtype of the input; argmax is int32 or int64.
TFSEG_API Status Forward(const Params& params, const Context& context, const ConstBuffer& input,
                         const Buffer& output, const Buffer& argmax);

}  // namespace tfseg::core::max_pool_with_argmax

#endif  // TFSEG_CORE_MAX_POOL_WITH_ARGMAX_H_
