#include "core/soft_dice_sums.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "core/first_error.h"
#include "core/simd.h"
#include "core/soft_dice_tiles.h"

namespace tfseg::core::soft_dice_sums {
namespace {

Status Invalid(const std::string& message) {
  return Status::InvalidArgument(std::string(kOp) + ": " + message);
}

// --- Blocks: parts of an image whose sums are kept apart ----------------------------------------

struct Blocks {
  int64_t per_image;  // depends on sizes alone, never on threads
  int64_t lanes;
  int64_t pixels;  // of an image

  int64_t begin(int64_t block) const {
    const int64_t tiles = (pixels + lanes - 1) / lanes;
    return std::min(pixels, tiles * block / per_image * lanes);
  }
};

Blocks BlocksOf(const Geometry& g, int64_t bytes_per_block) {
  constexpr int64_t kScratch = 512 << 10;
  constexpr int64_t kSmallestBlock = 1 << 16;  // numbers
  const int64_t affordable = kScratch / (bytes_per_block * std::max<int64_t>(1, g.batch));
  const int64_t worthwhile = g.pixels * g.classes / kSmallestBlock;
  return {std::clamp<int64_t>(std::min(affordable, worthwhile), 1, 64), LanesOf(g.classes),
          g.pixels};
}

// Sums of one block, in doubles so that no image is too large: intersection, prediction and target
// of each class, cross entropy and divisor.
template <typename T>
void SumBlock(const Params& params, const Geometry& g, Tile<T>* tile, int64_t b, int64_t begin,
              int64_t end,
              double* sums,               // [3 * classes + 2]
              AccumulatorOf<T>* in_lanes  // [3 * classes + 2, kSumLanes]
) {
  using A = AccumulatorOf<T>;
  using V = WideVector<A>;
  constexpr int kWidth = WideVectorOf<A>::kWidth;
  constexpr int64_t kFlush = 4096;  // pixels that single lanes add up
  const int64_t classes = g.classes, size = 3 * classes + 2;
  const int lanes = tile->lanes();
  std::fill(sums, sums + size, 0.0);
  std::fill(in_lanes, in_lanes + size * kSumLanes, A(0));
  const auto flush = [&] {
    for (int64_t n = 0; n < size; ++n) {
      for (int lane = 0; lane < kSumLanes; ++lane) {
        sums[n] += static_cast<double>(in_lanes[n * kSumLanes + lane]);
        in_lanes[n * kSumLanes + lane] = A(0);
      }
    }
  };
  // Adds fn(k), for the lanes from k on, to sum number n.
  const auto add = [&](int64_t n, auto&& fn) {
    for (int j = 0; j < kSumLanes; j += kWidth) {
      A* to = in_lanes + n * kSumLanes + j;
      V sum = LoadWide(to);
      for (int k = j; k < lanes; k += kSumLanes) sum += fn(k);
      StoreWide<A>(sum, to);
    }
  };
  const bool sparse = tile->sparse(), squared = params.power == 2;
  const A* const weights = tile->weights();
  const A* const scale = tile->scale();
  const A* const rows = tile->p(0);
  const int32_t* const labels = tile->labels();
  int64_t unflushed = 0;
  A weighted_scale[kMostLanes];
  for (int64_t first = begin; first < end; first += lanes) {
    const int count = static_cast<int>(std::min<int64_t>(lanes, end - first));
    tile->Load(b, first, count, nullptr);
    tile->ForVectors([&](int k) {
      StoreWide<A>(LoadWide(weights + k) * LoadWide(scale + k), weighted_scale + k);
    });
    const auto weighted = [&](const A* values) {
      return [=](int k) -> V { return LoadWide(values + k) * LoadWide(weights + k); };
    };
    add(3 * classes, weighted(tile->entropy()));
    add(3 * classes + 1, weighted(tile->shares()));
    for (int k = 0; sparse && k < lanes; k += kSumLanes) {
      for (int lane = 0; lane < kSumLanes; ++lane) {
        const int64_t label = labels[k + lane];
        A* const intersection = in_lanes + label * kSumLanes + lane;
        intersection[0] += rows[label * lanes + k + lane] * weighted_scale[k + lane];
        intersection[2 * classes * kSumLanes] += weights[k + lane];
      }
    }
    for (int64_t c = 0; c < classes; ++c) {
      const A* p = rows + c * lanes;
      if (!squared) {
        add(classes + c,
            [&](int k) -> V { return LoadWide(p + k) * LoadWide(weighted_scale + k); });
      } else {
        add(classes + c, [&](int k) -> V {
          const V scaled = LoadWide(p + k) * LoadWide(scale + k);
          return scaled * scaled * LoadWide(weights + k);
        });
      }
      if (sparse) continue;
      const A* target = tile->targets(c);
      add(c, [&](int k) -> V {
        return LoadWide(target + k) * (LoadWide(p + k) * LoadWide(weighted_scale + k));
      });
      add(2 * classes + c, [&](int k) -> V {
        const V of_class = LoadWide(target + k);
        const V w = LoadWide(weights + k);
        return squared ? of_class * of_class * w : of_class * w;
      });
    }
    unflushed += count;
    if (unflushed >= kFlush) {
      flush();
      unflushed = 0;
    }
  }
  flush();
}

template <typename T>
Status Sum(const Params& params, const Geometry& g, const Context& context, const Inputs& inputs,
           const Sums& out, FirstError* error) {
  using A = AccumulatorOf<T>;
  const int64_t classes = g.classes;
  const int64_t size = 3 * classes + 2;  // sums of a block
  const int64_t numbers = Tile<T>::ScratchNumbers(classes) + size * kSumLanes;
  const int64_t bytes =
      size * static_cast<int64_t>(sizeof(double)) + numbers * static_cast<int64_t>(sizeof(A));
  const Blocks blocks = BlocksOf(g, bytes);
  const int64_t num_blocks = g.batch * blocks.per_image;
  auto* sums = static_cast<double*>(context.workspace.Allocate(num_blocks * size * 8));
  auto* scratch = static_cast<A*>(
      context.workspace.Allocate(num_blocks * numbers * static_cast<int64_t>(sizeof(A))));
  if (sums == nullptr || scratch == nullptr) {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory for sums of " +
                                     std::to_string(classes) + " classes");
  }
  const int64_t cost = g.pixels * classes / blocks.per_image;
  ParallelFor(context.threads, num_blocks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      A* own = scratch + block * numbers;
      Tile<T> tile(params, g, inputs, own + size * kSumLanes, error);
      const int64_t b = block / blocks.per_image, part = block % blocks.per_image;
      SumBlock<T>(params, g, &tile, b, blocks.begin(part), blocks.begin(part + 1),
                  sums + block * size, own);
    }
  });
  A* const of_classes[3] = {out.intersection.As<A>(), out.prediction.As<A>(), out.target.As<A>()};
  const auto total = [&](int64_t b, int64_t n) {
    double sum = 0;
    for (int64_t part = 0; part < blocks.per_image; ++part) {
      sum += sums[(b * blocks.per_image + part) * size + n];
    }
    return static_cast<A>(sum);
  };
  for (int64_t b = 0; b < g.batch; ++b) {
    out.cross_entropy.As<A>()[b] = total(b, 3 * classes);
    out.weight_sum.As<A>()[b] = total(b, 3 * classes + 1);
    for (int n = 0; n < 3; ++n) {
      for (int64_t c = 0; c < classes; ++c) {
        of_classes[n][b * classes + c] = total(b, n * classes + c);
      }
    }
  }
  return Status::Ok();
}

// --- Backward ----------------------------------------------------------------------------------

// Turns a tile's probabilities into the gradient of its logits, pixel by pixel in stage().
template <typename T>
void Differentiate(const Params& params, const Geometry& g, ImageGrad<AccumulatorOf<T>> grad,
                   Tile<T>* tile) {
  using A = AccumulatorOf<T>;
  using V = WideVector<A>;
  // Copies, which the stores below cannot change: the compiler takes its decisions out of loops.
  const int64_t classes = g.classes, step = tile->lanes();
  const bool binary = IsBinary(params, classes), squared = params.power == 2;
  const bool sparse = tile->sparse();
  const Activation activation = params.activation;
  A* const rows = tile->p(0);
  const A* const targets = tile->targets(0);
  const int32_t* const labels = tile->labels();
  const auto slope = [=](int64_t c, const V& p) {
    return squared ? p * (A(2) * grad.prediction[c]) : V{} + grad.prediction[c];
  };
  A of_label[kMostLanes];  // what the gradient of the label's logit has more than that of others
  for (int lane = 0; sparse && lane < step; ++lane) {
    of_label[lane] = rows[labels[lane] * step + lane] * grad.intersection[labels[lane]];
  }
  tile->ForVectors([&](int k) {
    A* const row = rows + k;
    const A* const target_row = targets + k;
    const V w = LoadWide(tile->weights() + k);
    if (activation == Activation::kSoftmax) {
      const V scale = LoadWide(tile->scale() + k);
      const V entropy = LoadWide(tile->shares() + k) * grad.cross_entropy;
      V common = entropy - LoadWide(tile->mean() + k);
      if (sparse) {
        const V by_label = LoadWide(of_label + k) * scale;
        common -= by_label;
        StoreWide<A>((by_label - entropy) * w, of_label + k);
      }
      for (int64_t c = 0; c < classes; ++c) {
        const V p = LoadWide(row + c * step) * scale;
        V by_logit = (slope(c, p) + common) * p;
        if (!sparse) {
          const V target = LoadWide(target_row + c * step);
          by_logit +=
              target * (p * grad.intersection[c] - grad.cross_entropy * tile->class_weight(c));
        }
        StoreWide<A>(by_logit * w, row + c * step);
      }
      return;
    }
    for (int64_t c = 0; c < classes; ++c) {
      const V p = LoadWide(row + c * step);
      const V target = LoadWide(target_row + c * step);
      const V by_p = slope(c, p) + target * grad.intersection[c];
      const A entropy = grad.cross_entropy * tile->class_weight(c);
      V by_logit;
      if (activation == Activation::kSigmoid) {
        by_logit = by_p * (p * (A(1) - p)) + (p - target) * entropy;
      } else {
        constexpr A kSmallest = kSmallestProbability;
        const V q = A(1) - p;
        by_logit = by_p - (p < kSmallest ? V{} : target * entropy / p);
        if (binary) by_logit += q < kSmallest ? V{} : (A(1) - target) * entropy / q;
      }
      StoreWide<A>(by_logit * w, row + c * step);
    }
  });
  Transpose<false>(rows, classes, step, tile->stage());
  for (int lane = 0; sparse && lane < step; ++lane) {
    tile->stage()[lane * classes + labels[lane]] += of_label[lane];
  }
}

// Writes a tile's numbers, past the caches where that pays.
template <typename T>
void Write(const AccumulatorOf<T>* from, int64_t count, bool large, T* to) {
  const bool stream = large && reinterpret_cast<uintptr_t>(to) % kLine == 0;
  for (int64_t k = 0; k < count; k += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - k));
    if (!stream || lanes < kLanes) {
      StoreLanes(from + k, lanes, to + k);
    } else if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
      StreamLines<kLanes>(from + k, to + k);
    } else {
      T narrow[kLanes];
      StoreLanes(from + k, kLanes, narrow);
      StreamLines<kLanes>(narrow, to + k);
    }
  }
}

template <typename T>
Status DifferentiateAll(const Params& params, const Geometry& g, const Context& context,
                        const Inputs& inputs, const SumsGrad& grad, const Buffer& grad_logits,
                        FirstError* error) {
  using A = AccumulatorOf<T>;
  const int64_t classes = g.classes;
  const int64_t numbers = Tile<T>::ScratchNumbers(classes);
  const Blocks blocks = BlocksOf(g, numbers * static_cast<int64_t>(sizeof(A)) + 1);
  const int64_t num_blocks = g.batch * blocks.per_image;
  auto* scratch = static_cast<A*>(
      context.workspace.Allocate(num_blocks * numbers * static_cast<int64_t>(sizeof(A))));
  if (scratch == nullptr) {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory for tiles of " +
                                     std::to_string(classes) + " classes");
  }
  const bool large = WorthStreaming(
      grad_logits.data, g.batch * g.pixels * classes * SizeOf(grad_logits.dtype), kLine);
  const int64_t cost = 2 * g.pixels * classes / blocks.per_image;
  ParallelFor(context.threads, num_blocks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      Tile<T> tile(params, g, inputs, scratch + block * numbers, error);
      const int64_t b = block / blocks.per_image, part = block % blocks.per_image;
      const ImageGrad<A> of_image{grad.intersection.As<A>() + b * classes,
                                  grad.prediction.As<A>() + b * classes,
                                  grad.cross_entropy.As<A>()[b]};
      const int64_t last = blocks.begin(part + 1);
      for (int64_t first = blocks.begin(part); first < last; first += tile.lanes()) {
        const int count = static_cast<int>(std::min<int64_t>(tile.lanes(), last - first));
        tile.Load(b, first, count, &of_image);
        Differentiate<T>(params, g, of_image, &tile);
        T* to = grad_logits.As<T>() + (b * g.pixels + first) * classes;
        Write(tile.stage(), count * classes, large, to);
      }
    }
    StreamFence();
  });
  return Status::Ok();
}

// --- Checks --------------------------------------------------------------------------------------

// All dimensions but the last, which is that of the classes.
Shape PixelsOf(const Shape& logits) {
  if (!logits.has_rank()) return logits;
  Shape shape = Shape::OfRank(logits.rank() - 1);
  for (int axis = 0; axis < shape.rank(); ++axis) shape.set(axis, logits[axis]);
  return shape;
}

Status RequireSame(const char* argument, const Shape& shape, const Shape& wanted) {
  if (!shape.has_rank() || !wanted.has_rank()) return Status::Ok();
  bool same = shape.rank() == wanted.rank();
  for (int axis = 0; same && axis < shape.rank(); ++axis) {
    same = shape[axis] == kUnknown || wanted[axis] == kUnknown || shape[axis] == wanted[axis];
  }
  if (same) return Status::Ok();
  return Invalid(std::string("'") + argument + "' must have shape " + wanted.ToString() + ", got " +
                 shape.ToString());
}

Geometry GeometryOf(const Shape& logits) {
  Geometry g{logits[0], 1, logits[logits.rank() - 1]};
  for (int axis = 1; axis < logits.rank() - 1; ++axis) g.pixels *= logits[axis];
  return g;
}

Status Check(const Params& params, const Inputs& inputs) {
  Shape sums, totals;
  TFSEG_RETURN_IF_ERROR(InferShape(params, inputs.logits.shape, inputs.labels.shape,
                                   inputs.weights.shape, inputs.class_weights.shape, &sums,
                                   &totals));
  if (params.dense && SizeOf(inputs.labels.dtype) > 0) return Status::Ok();
  return DispatchLabel(kOp, "labels", inputs.labels.dtype, [](auto) { return Status::Ok(); });
}

// Calls fn with the type of the logits, and says which label was illegal.
template <typename Fn>
Status Run(const Params& params, const Inputs& inputs, Fn&& fn) {
  TFSEG_RETURN_IF_ERROR(Check(params, inputs));
  FirstError error;
  TFSEG_RETURN_IF_ERROR(DispatchFloat(kOp, "logits", inputs.logits.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    if (params.has_weights) {
      TFSEG_RETURN_IF_ERROR(
          RequireDType(kOp, "weights", inputs.weights.dtype, kAccumulatorDType<T>));
    }
    if (params.has_class_weights) {
      TFSEG_RETURN_IF_ERROR(
          RequireDType(kOp, "class_weights", inputs.class_weights.dtype, kAccumulatorDType<T>));
    }
    return fn(value, GeometryOf(inputs.logits.shape), &error);
  }));
  if (!error.any()) return Status::Ok();
  const Geometry g = GeometryOf(inputs.logits.shape);
  const Shape& labels = inputs.labels.shape;
  Shape where = Shape::OfRank(labels.rank());
  int64_t rest = error.element();
  for (int axis = labels.rank() - 1; axis >= 0; --axis) {
    where.set(axis, rest % labels[axis]);
    rest /= labels[axis];
  }
  std::string rule = "lie in [0, " + std::to_string(NumLabels(params, g.classes)) + ")";
  if (params.has_ignore_label) rule += " or be " + std::to_string(params.ignore_label);
  return Invalid("'labels' must " + rule + ", got " +
                 std::to_string(LabelAt(inputs.labels, error.element())) + " at " +
                 where.ToString());
}

}  // namespace

Status InferShape(const Params& params, const Shape& logits, const Shape& labels,
                  const Shape& weights, const Shape& class_weights, Shape* sums, Shape* totals) {
  if (params.power != 1 && params.power != 2) {
    return Invalid("'power' must be 1 or 2, got " + std::to_string(params.power));
  }
  if (params.dense && params.has_ignore_label) {
    return Invalid("'ignore_label' must be None where labels are targets for each class, got " +
                   std::to_string(params.ignore_label));
  }
  int64_t batch = kUnknown, classes = kUnknown;
  if (logits.has_rank()) {
    if (logits.rank() < 2 || logits.rank() > Shape::kMaxRank) {
      return Invalid("'logits' must have shape [batch, ..., classes], got " + logits.ToString());
    }
    batch = logits[0];
    classes = logits[logits.rank() - 1];
    if (classes == 0) {
      return Invalid("'logits' must have at least one class, got " + logits.ToString());
    }
  }
  const Shape pixels = PixelsOf(logits);
  TFSEG_RETURN_IF_ERROR(RequireSame("labels", labels, params.dense ? logits : pixels));
  if (params.has_weights) TFSEG_RETURN_IF_ERROR(RequireSame("weights", weights, pixels));
  if (params.has_class_weights) {
    TFSEG_RETURN_IF_ERROR(RequireSame("class_weights", class_weights, Shape{classes}));
  }
  *sums = {batch, classes};
  *totals = {batch};
  return Status::Ok();
}

Status Forward(const Params& params, const Context& context, const Inputs& inputs,
               const Sums& sums) {
  return Run(params, inputs, [&](auto value, const Geometry& g, FirstError* error) {
    using T = typename decltype(value)::type;
    return Sum<T>(params, g, context, inputs, sums, error);
  });
}

Status Backward(const Params& params, const Context& context, const Inputs& inputs,
                const SumsGrad& grad, const Buffer& grad_logits) {
  HintHugePages(grad_logits.data, grad_logits.shape.num_elements() * SizeOf(grad_logits.dtype));
  return Run(params, inputs, [&](auto value, const Geometry& g, FirstError* error) {
    using T = typename decltype(value)::type;
    const Shape sums{g.batch, g.classes};
    TFSEG_RETURN_IF_ERROR(RequireSame("grad_intersection", grad.intersection.shape, sums));
    TFSEG_RETURN_IF_ERROR(RequireSame("grad_prediction", grad.prediction.shape, sums));
    TFSEG_RETURN_IF_ERROR(
        RequireSame("grad_cross_entropy", grad.cross_entropy.shape, Shape{g.batch}));
    const auto require = [](const char* argument, const ConstBuffer& buffer) {
      return RequireDType(kOp, argument, buffer.dtype, kAccumulatorDType<T>);
    };
    TFSEG_RETURN_IF_ERROR(require("grad_intersection", grad.intersection));
    TFSEG_RETURN_IF_ERROR(require("grad_prediction", grad.prediction));
    TFSEG_RETURN_IF_ERROR(require("grad_cross_entropy", grad.cross_entropy));
    return DifferentiateAll<T>(params, g, context, inputs, grad, grad_logits, error);
  });
}

}  // namespace tfseg::core::soft_dice_sums
