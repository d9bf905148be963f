// One mean-field update of a dense CRF (Krähenbühl & Koltun 2011, algorithm 1), fused:
//
//   logits_i = unary_i + sum_k mixing_k (a_ki [K_k (b_k q)]_i),   output = softmax(logits)
//
// where K_k is the Gaussian filter on lattice k, and a_k, b_k, per point, are powers of
// 1 / (norm + 1e-20) with norm = K_k 1:
//   symmetric: a = b = norm^-1/2; before: b = norm^-1; after: a = norm^-1; none: 1.
// mixing_k is a matrix [classes, classes] (class l takes mixing[l, m] times the message of class m)
// or its diagonal [classes]. Potts and a weight w is mixing = diagonal of w, up to a number common
// to all classes, which the softmax does not see; a compatibility matrix mu and weights W make
// mixing = -mu W.
#ifndef TFSEG_CORE_MEAN_FIELD_STEP_H_
#define TFSEG_CORE_MEAN_FIELD_STEP_H_

#include <cstdint>
#include <vector>

#include "core/permutohedral_lattice.h"

namespace tfseg::core::mean_field_step {

enum class Normalization { kNone, kBefore, kAfter, kSymmetric };

struct Params {
  std::vector<Normalization> normalizations;  // of each lattice
  bool diagonal = true;  // mixing is [lattices, classes], not [.., classes, classes]
  bool logits = false;   // the output is the logits, before the softmax
};

// q, unary [batch, points, classes], output the same. mixing [lattices, classes] or [lattices,
// classes, classes]. features: of each lattice. Without lattices the output is softmax(unary).
TFSEG_API Status InferShape(const Params& params, const Shape& q, const Shape& unary,
                            const Shape& mixing, const std::vector<Shape>& features, Shape* output);

struct Inputs {
  ConstBuffer q, unary;  // of one floating dtype
  ConstBuffer mixing;    // of the accumulator's dtype
  std::vector<permutohedral_lattice::Lattice> lattices;
};

TFSEG_API Status Forward(const Params& params, const Context& context, const Inputs& inputs,
                         const Buffer& output);

// Gradients of <grad, output>. Buffers whose data is nullptr are not computed (shapes and dtypes of
// the others are those of what they are gradients of). `output` is that of the forward; with
// params.logits it is not read. The filters are computed again rather than kept.
struct Grads {
  Buffer q, unary;
  Buffer mixing;
};
TFSEG_API Status Backward(const Params& params, const Context& context, const Inputs& inputs,
                          const ConstBuffer& output, const ConstBuffer& grad, const Grads& grads);

// And to the features of each lattice, [batch, points, dimensions], float32: through the filter, as
// gaussian_filter.h has it, and through the norms.
TFSEG_API Status FeaturesGrad(const Params& params, const Context& context, const Inputs& inputs,
                              const ConstBuffer& output, const ConstBuffer& grad,
                              const std::vector<Buffer>& grad_features);

}  // namespace tfseg::core::mean_field_step

#endif  // TFSEG_CORE_MEAN_FIELD_STEP_H_
