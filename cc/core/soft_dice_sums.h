// The sums that soft Dice, Jaccard, Tversky and cross-entropy losses are made of, in one pass over
// the logits. With p the activation of the logits, g the target (one-hot from integer labels, or
// given for each class) and w the weight of a pixel (1 unless given; 0 where it is ignored), for
// each image b and class c, summed over its pixels:
//
//   intersection[b, c] = sum w p g
//   prediction[b, c]   = sum w p^power
//   target[b, c]       = sum w g^power
//   cross_entropy[b]   = sum w sum_c class_weights[c] h(p, g)
//   weight_sum[b]      = sum w sum_c class_weights[c] g
//
// where h is -g log p for one class among several (softmax; probabilities of several classes), and
// -g log p - (1 - g) log(1 - p) for classes on their own (sigmoid; probabilities of one class),
// whose weight_sum is without the g. Milletari, Navab & Ahmadi 2016, "V-Net", section 3 (power 2);
// Sudre et al. 2017, "Generalised Dice overlap", section 2.
#ifndef TFSEG_CORE_SOFT_DICE_SUMS_H_
#define TFSEG_CORE_SOFT_DICE_SUMS_H_

#include <cmath>
#include <cstdint>
#include <string_view>

#include "core/dtypes.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"

namespace tfseg::core::soft_dice_sums {

enum class Activation { kSoftmax, kSigmoid, kNone };

// Whether there is an activation of this name.
inline bool FindActivation(std::string_view name, Activation* activation) {
  *activation = name == "softmax"   ? Activation::kSoftmax
                : name == "sigmoid" ? Activation::kSigmoid
                                    : Activation::kNone;
  return name == "softmax" || name == "sigmoid" || name == "none";
}

struct Params {
  Activation activation = Activation::kSoftmax;
  int power = 1;       // of prediction and target: 1 or 2
  bool dense = false;  // labels are targets for each class, not numbers of classes
  bool has_weights = false;
  bool has_class_weights = false;
  bool has_ignore_label = false;
  int64_t ignore_label = 0;  // of integer labels
};

// Logits are taken as at most this large, on both sides: infinite ones give finite results.
inline constexpr float kLargestLogit = 1e30f;
// Probabilities are given to the logarithm as at least this, as Keras does it.
inline constexpr float kSmallestProbability = 1e-7f;

// Whether each class has a yes and a no of its own, rather than a share of one.
TFSEG_HOST_DEVICE inline bool IsBinary(const Params& params, int64_t classes) {
  return params.activation == Activation::kSigmoid ||
         (params.activation == Activation::kNone && classes == 1);
}

// Integer labels of one class on its own are its mask, 0 or 1.
TFSEG_HOST_DEVICE inline int64_t NumLabels(const Params& params, int64_t classes) {
  return classes == 1 && IsBinary(params, classes) ? 2 : classes;
}

struct Geometry {
  int64_t batch, pixels, classes;  // pixels of an image
};

// --- The formulas for one class of one pixel ----------------------------------------------------
//
// In plain numbers, as the threads of a GPU compute them. The CPU has them for whole registers.

// NaN stays NaN.
template <typename A>
TFSEG_HOST_DEVICE inline A Clamped(A logit) {
  constexpr A kLargest = kLargestLogit;
  const A upper = logit > kLargest ? kLargest : logit;
  return upper < -kLargest ? -kLargest : upper;
}

// What a softmax takes from the clamped logits of a pixel together.
template <typename A>
struct Normalizer {
  A largest, inverse, log_sum;  // of the sum of exp(logit - largest)
};

template <typename A>
struct Element {
  A p, h;
};

// The probability of a clamped logit, and its cross entropy with the target. The normalizer is read
// for softmax only.
template <typename A>
TFSEG_HOST_DEVICE inline Element<A> ElementOf(const Params& params, bool binary, A logit, A target,
                                              const Normalizer<A>& normalizer) {
  if (params.activation == Activation::kSoftmax) {
    const A distance = logit - normalizer.largest;
    return {std::exp(distance) * normalizer.inverse, target * (normalizer.log_sum - distance)};
  }
  if (params.activation == Activation::kSigmoid) {
    const bool negative = logit < A(0);
    const A e = std::exp(negative ? logit : -logit);
    const A of_size = A(1) / (A(1) + e);
    const A positive = negative ? A(0) : logit;
    return {negative ? e * of_size : of_size, (positive - logit * target) + std::log(A(1) + e)};
  }
  constexpr A kSmallest = kSmallestProbability;
  const A p = logit, q = A(1) - p;
  A h = -(target * std::log(p < kSmallest ? kSmallest : p));
  if (binary) h -= (A(1) - target) * std::log(q < kSmallest ? kSmallest : q);
  return {p, h};
}

// Gradients of the sums that reach one class; that of the cross entropy times the class's weight.
template <typename A>
struct ClassGrad {
  A intersection, prediction, cross_entropy;
};

// The derivative of prediction by p.
template <typename A>
TFSEG_HOST_DEVICE inline A Slope(const Params& params, A p, const ClassGrad<A>& grad) {
  return params.power == 2 ? p * (A(2) * grad.prediction) : grad.prediction;
}

// The gradient of a logit, of a pixel of weight 1. `common` is what the softmax of a pixel adds to
// each of its logits: the sum over the classes of target * grad.cross_entropy - p * (the derivative
// by p of intersection and prediction).
template <typename A>
TFSEG_HOST_DEVICE inline A LogitGrad(const Params& params, bool binary, A p, A target,
                                     const ClassGrad<A>& grad, A common) {
  const A slope = Slope(params, p, grad);
  const A entropy = grad.cross_entropy;
  if (params.activation == Activation::kSoftmax) {
    return (slope + common) * p + target * (p * grad.intersection - entropy);
  }
  const A by_p = slope + target * grad.intersection;
  if (params.activation == Activation::kSigmoid) {
    return by_p * (p * (A(1) - p)) + (p - target) * entropy;
  }
  constexpr A kSmallest = kSmallestProbability;
  const A q = A(1) - p;
  A by_logit = by_p - (p < kSmallest ? A(0) : target * entropy / p);
  if (binary) by_logit += q < kSmallest ? A(0) : (A(1) - target) * entropy / q;
  return by_logit;
}

// logits [batch, ..., classes]; labels [batch, ...], or the shape of the logits where dense;
// weights [batch, ...]; class_weights [classes]
// -> sums [batch, classes] (intersection, prediction, target) and totals [batch] (cross_entropy,
// weight_sum). Unknown parts stay unknown. Shapes of what is not there are not looked at.
TFSEG_API Status InferShape(const Params& params, const Shape& logits, const Shape& labels,
                            const Shape& weights, const Shape& class_weights, Shape* sums,
                            Shape* totals);

struct Inputs {
  ConstBuffer logits;
  ConstBuffer labels;         // uint8, int32, int64; where dense also any floating dtype
  ConstBuffer weights;        // of the accumulator's dtype
  ConstBuffer class_weights;  // of the accumulator's dtype
};

// All sums have the accumulator's dtype.
struct Sums {
  Buffer intersection, prediction, target;  // [batch, classes]
  Buffer cross_entropy, weight_sum;         // [batch]
};

// A label that is neither a class nor ignored is an error.
TFSEG_API Status Forward(const Params& params, const Context& context, const Inputs& inputs,
                         const Sums& sums);

// The gradients of the sums that depend on the logits, in the accumulator's dtype.
struct SumsGrad {
  ConstBuffer intersection, prediction;  // [batch, classes]
  ConstBuffer cross_entropy;             // [batch]
};

// The gradient of the logits, with their shape and dtype; exactly 0 where a pixel is ignored or has
// no weight.
TFSEG_API Status Backward(const Params& params, const Context& context, const Inputs& inputs,
                          const SumsGrad& grad, const Buffer& grad_logits);

}  // namespace tfseg::core::soft_dice_sums

#endif  // TFSEG_CORE_SOFT_DICE_SUMS_H_
