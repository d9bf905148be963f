// The Gaussian filter of values at scattered points, on a permutohedral lattice: each vertex
// gathers the values of its points (splat), vertices are blurred by [1/2 1 1/2] along each of the
// lattice's axes (blur), each point reads its vertices (slice), scaled by 1 / (1 + 2^-d). It
// approximates sum_j exp(-|f_i - f_j|^2 / 2) v_j, up to a constant factor. Adams, Baek & Davis
// 2010, section 3; Krähenbühl & Koltun 2011.
//
// It is linear in the values; its transpose is the same filter with the axes blurred in reverse
// order.
//
// The gradient to the features is that of the Gaussian kernel k_ij = exp(-|f_i - f_j|^2 / 2), whose
// derivative by f_i is (f_j - f_i) k_ij, so that it is again a filter, of values times features.
// For the loss <g, K v>, per point i and feature a:
//   sum_c g_ic ([K (f_a v_c)]_i - f_ia [K v_c]_i) + v_ic ([K^T (f_a g_c)]_i - f_ia [K^T g_c]_i)
#ifndef TFSEG_CORE_GAUSSIAN_FILTER_H_
#define TFSEG_CORE_GAUSSIAN_FILTER_H_

#include <cstdint>

#include "core/permutohedral_lattice.h"

namespace tfseg::core::gaussian_filter {

struct Params {
  bool reverse = false;  // the transpose
};

// values [batch, points, channels] -> the same. `features` is the lattice's.
TFSEG_API Status InferShape(const Shape& values, const Shape& features, Shape* output);

// values, output: any floating dtype, the same. A vertex that the lattice names but has not is an
// error; so it is in all that reads lattices. The lists for splatting are not read here but by
// GPUs.
TFSEG_API Status Forward(const Params& params, const Context& context, const ConstBuffer& values,
                         const permutohedral_lattice::Lattice& lattice, const Buffer& output);

// The gradient of <grad, filter(values)> to the features: [batch, points, dimensions], float32.
// `params.reverse` as in the forward.
TFSEG_API Status FeaturesGrad(const Params& params, const Context& context,
                              const ConstBuffer& values,
                              const permutohedral_lattice::Lattice& lattice,
                              const ConstBuffer& grad, const Buffer& grad_features);

}  // namespace tfseg::core::gaussian_filter

#endif  // TFSEG_CORE_GAUSSIAN_FILTER_H_
