#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/lattice_filter.h"
#include "cuda/mean_field_step.h"

namespace tfseg::cuda {
namespace {

namespace op = core::mean_field_step;
using core::permutohedral_lattice::Geometry;
using op::Normalization;

constexpr char kOp[] = "mean_field_step";

// --- Kernels ------------------------------------------------------------------------------------

template <typename A>
struct Mixing {
  const A* numbers;  // [classes], or [classes, classes]
  int64_t classes;
  bool diagonal, transposed;

  // Class c of the mixed messages of one point.
  __device__ A Of(const A* messages, int64_t c) const {
    if (diagonal) return numbers[c] * messages[c];
    const A* from = numbers + (transposed ? c : c * classes);
    const int64_t step = transposed ? classes : 1;
    A sum = 0;
    for (int64_t m = 0; m < classes; ++m) sum += from[m * step] * messages[m];
    return sum;
  }
};

// What one lattice adds to the classes of the points of an image; and where it is the last of them,
// the end of the step.
template <typename T>
struct Addition {
  using A = core::AccumulatorOf<T>;

  int64_t points, classes;
  int lanes;       // of a warp, that share a point
  bool filtered;   // false where there is no lattice at all
  Table<A> table;  // as the lattice's filter leaves it
  Factor factor;   // of its messages
  Mixing<A> mixing;
  A* messages;     // [points, classes]: room for them, unless the mixing is diagonal
  bool first;      // of the lattices: the sums are still to begin, with
  const T* start;  // [points, classes], or with zeros
  A* sums;         // [points, classes]
  bool softmax;    // of the sums
  T* output;       // [points, classes], perhaps those of the sums; nullptr unless it is the last

  __device__ A Before(int64_t k) const {
    if (!first) return sums[k];
    return start == nullptr ? A(0) : static_cast<A>(start[k]);
  }
};

// Calls fn(c) for each class of which this lane moves the packs.
template <typename T, typename Fn>
__device__ inline void ForClasses(const Addition<T>& in, int lane, Fn&& fn) {
  constexpr int kCount = kVertexPack<core::AccumulatorOf<T>>;
  for (int64_t first = lane * kCount; first < in.classes; first += in.lanes * kCount) {
    for (int64_t c = first; c < first + kCount && c < in.classes; ++c) fn(c);
  }
}

template <typename T>
__device__ inline void AddMessages(const Addition<T>& in, const LatticeImage& image, int64_t point,
                                   int lane) {
  using A = core::AccumulatorOf<T>;
  constexpr int kCount = kVertexPack<A>;
  const int64_t row = point * in.classes;
  if (!in.filtered) {
    ForClasses(in, lane, [&](int64_t c) { in.sums[row + c] = in.Before(row + c); });
    return;
  }
  const A share = image.Scale<A>() * in.factor.template At<A>(point);
  for (int64_t first = lane * kCount; first < in.classes; first += in.lanes * kCount) {
    const auto sliced = SlicePack(image, in.table.rows, in.table.stride, point, first);
    for (int n = 0; n < kCount && first + n < in.classes; ++n) {
      const int64_t c = first + n;
      const A message = sliced.lanes[n] * share;
      if (in.mixing.diagonal) {
        in.sums[row + c] = in.Before(row + c) + in.mixing.numbers[c] * message;
      } else {
        in.messages[row + c] = message;
      }
    }
  }
}

// Some lanes take a point. `lanes` is that of all points, rounded up to whole warps.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepKernel(int64_t lanes, const __grid_constant__ LatticeImage image,
                        const __grid_constant__ Addition<T> in) {
  using A = core::AccumulatorOf<T>;
  ForItems(lanes, [&](int64_t item) {
    const int64_t point = item / in.lanes, row = point * in.classes;
    // Lanes beyond the last point have no classes, but wait for the others.
    const bool exists = point < in.points;
    const int lane = static_cast<int>(item % in.lanes);
    const auto for_classes = [&](auto&& fn) {
      if (exists) ForClasses(in, lane, fn);
    };
    if (exists) AddMessages(in, image, point, lane);
    if (in.filtered && !in.mixing.diagonal) {
      __syncwarp();  // each lane reads the messages of all
      for_classes([&](int64_t c) {
        in.sums[row + c] = in.Before(row + c) + in.mixing.Of(in.messages + row, c);
      });
    }
    if (in.output == nullptr) return;
    if (!in.softmax) {
      for_classes([&](int64_t c) { in.output[row + c] = static_cast<T>(in.sums[row + c]); });
      return;
    }
    // NaN never is the largest, and spoils the sum.
    A largest = A(-INFINITY), sum = 0;
    for_classes([&](int64_t c) {
      const A logit = in.sums[row + c];
      largest = logit > largest ? logit : largest;
    });
    largest = LanesMax(largest, in.lanes);
    for_classes([&](int64_t c) {
      in.sums[row + c] = std::exp(in.sums[row + c] - largest);
      sum += in.sums[row + c];
    });
    sum = LanesSum(sum, in.lanes);
    for_classes([&](int64_t c) { in.output[row + c] = static_cast<T>(in.sums[row + c] / sum); });
  });
}

// The gradient to the logits: through the softmax, unless the output is they.
template <typename T, typename A>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepLogitsGradKernel(int64_t lanes, int64_t points, int64_t classes, int per_point,
                                  const T* output,  // [points, classes]; nullptr: the logits
                                  const T* grad,    // [points, classes]
                                  A* grad_logits,   // [points, classes]
                                  T* grad_unary) {  // the same; nullptr: not wanted
  ForItems(lanes, [&](int64_t item) {
    const int64_t point = item / per_point;
    const int64_t lane = item % per_point, end = point < points ? classes : 0;
    const auto at = [&](const T* numbers, int64_t c) {
      return static_cast<A>(numbers[point * classes + c]);
    };
    A dot = 0;
    for (int64_t c = lane; output != nullptr && c < end; c += per_point) {
      dot += at(output, c) * at(grad, c);
    }
    dot = LanesSum(dot, per_point);
    for (int64_t c = lane; c < end; c += per_point) {
      const A result = output == nullptr ? at(grad, c) : at(output, c) * (at(grad, c) - dot);
      grad_logits[point * classes + c] = result;
      if (grad_unary != nullptr) grad_unary[point * classes + c] = static_cast<T>(result);
    }
  });
}

template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepMixKernel(int64_t numbers, Mixing<A> mixing,
                           const A* messages,  // [points, classes]
                           A* mixed) {         // [points, classes]
  ForItems(numbers, [&](int64_t k) {
    const int64_t c = k % mixing.classes;
    mixed[k] = mixing.Of(messages + (k - c), c);
  });
}

// A thread sums what a part of the points gives to one number of the mixing.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepMixingGradKernel(int64_t sums, int64_t points, int64_t classes, bool diagonal,
                                  int64_t parts,
                                  const A* grad_logits,  // [points, classes]
                                  const A* messages,     // [points, classes]
                                  double* partials) {    // [parts, numbers of the mixing]
  constexpr int64_t kRun = 64;  // points summed in A: doubles are slow on many devices
  ForItems(sums, [&](int64_t item) {
    const int64_t numbers = sums / parts, part = item / numbers, number = item % numbers;
    const int64_t to = diagonal ? number : number / classes;
    const int64_t from = diagonal ? number : number % classes;
    const int64_t end = points * (part + 1) / parts;
    double sum = 0;
    for (int64_t begin = points * part / parts; begin < end; begin += kRun) {
      A run = 0;
      for (int64_t point = begin; point < end && point < begin + kRun; ++point) {
        run += grad_logits[point * classes + to] * messages[point * classes + from];
      }
      sum += static_cast<double>(run);
    }
    partials[item] = sum;
  });
}

// A warp adds the parts of one number.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepSumPartsKernel(int64_t lanes, int64_t parts,
                                const double* partials,  // [parts, numbers of the mixing]
                                A* grad_mixing) {        // the numbers
  ForItems(lanes, [&](int64_t item) {
    const int64_t numbers = lanes / kWarpLanes, number = item / kWarpLanes;
    const int64_t lane = item % kWarpLanes;
    double sum = 0;
    for (int64_t part = lane; part < parts; part += kWarpLanes) {
      sum += partials[part * numbers + number];
    }
    sum = LanesSum(sum, kWarpLanes);
    if (lane == 0) grad_mixing[number] += static_cast<A>(sum);
  });
}

// The gradient to the norms, through the factors of the messages (after the filter) and of what is
// filtered (before it). Each is norm^-exponent, and the derivative of the loss by its logarithm is
// the dot product of what it scales with the gradient to that.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    MeanFieldStepNormsGradKernel(int64_t points, Factor after, Factor before,
                                 const A* after_dots,   // [points]
                                 const A* before_dots,  // [points]
                                 A* grad_norms) {       // [points]
  ForItems(points, [&](int64_t point) {
    const A norm = static_cast<A>(after.norms[point]) + A(1e-20);
    grad_norms[point] = -(static_cast<A>(after.exponent) * after_dots[point] +
                          static_cast<A>(before.exponent) * before_dots[point]) /
                        norm;
  });
}

// --- Launchers ----------------------------------------------------------------------------------

// A call, after its arguments have been checked.
template <typename T>
struct Call {
  using Type = T;
  using A = core::AccumulatorOf<T>;

  const op::Params& params;
  const Context& context;
  const op::Inputs& inputs;
  std::vector<DeviceLattice> lattices;
  int64_t batch, points, classes;

  int64_t numbers() const { return points * classes; }  // of an image
  int64_t packs() const { return (classes + kVertexPack<A> - 1) / kVertexPack<A>; }
  // The part of image b of an array [batch, points, classes].
  template <typename Buffer>
  auto* Part(const Buffer& buffer, int64_t b) const {
    return buffer.template As<T>() + b * numbers();
  }
  Values Q(int64_t b) const { return {Part(inputs.q, b), inputs.q.dtype, classes}; }
  Values Accumulated(const A* data) const { return {data, core::kAccumulatorDType<T>, classes}; }
  int64_t mixing_size() const { return params.diagonal ? classes : classes * classes; }
  Mixing<A> MixingOf(size_t k, bool transposed) const {
    const A* numbers = inputs.mixing.template As<A>() + static_cast<int64_t>(k) * mixing_size();
    return {numbers, classes, params.diagonal, transposed};
  }
  // Of what lattice k filters, and of its messages.
  Factor Before(size_t k, const LatticeImage& image) const {
    const Normalization how = params.normalizations[k];
    const bool all = how == Normalization::kBefore, half = how == Normalization::kSymmetric;
    return {image.norms, all ? 1.0f : half ? 0.5f : 0.0f};
  }
  Factor After(size_t k, const LatticeImage& image) const {
    const Normalization how = params.normalizations[k];
    const bool all = how == Normalization::kAfter, half = how == Normalization::kSymmetric;
    return {image.norms, all ? 1.0f : half ? 0.5f : 0.0f};
  }
};

// Workspace of Update.
template <typename A>
struct Scratch {
  Table<A> table;
  A* sums = nullptr;      // [points, classes], where the output cannot hold them
  A* messages = nullptr;  // [points, classes], where they are wanted
};

template <typename T>
core::Status AllocateScratch(const Call<T>& call, bool messages,
                             Scratch<core::AccumulatorOf<T>>* scratch) {
  TFSEG_RETURN_IF_ERROR(
      AllocateTable(kOp, call.context, call.lattices, call.classes, &scratch->table));
  if (!std::is_same_v<T, core::AccumulatorOf<T>>) {
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, call.context, call.numbers(), &scratch->sums));
  }
  if (!messages) return core::Status::Ok();
  return Allocate(kOp, call.context, call.numbers(), &scratch->messages);
}

// Image b of  output = end(start + sum over k of mixing_k (after_k K_k (before_k values))),  or,
// transposed, with the transposes of the mixings and filters, and the factors exchanged.
template <typename T>
core::Status Update(const Call<T>& call, int64_t b, const Values& values, bool transposed,
                    const T* start, bool softmax, Scratch<core::AccumulatorOf<T>>* scratch,
                    T* output) {
  using A = core::AccumulatorOf<T>;
  Addition<T> in = {};
  in.points = call.points;
  in.classes = call.classes;
  in.lanes = LanesFor(call.packs());
  in.filtered = !call.lattices.empty();
  in.messages = scratch->messages;
  in.start = start;
  in.softmax = softmax;
  in.sums = scratch->sums;
  if constexpr (std::is_same_v<T, A>) in.sums = output;
  const size_t count = std::max<size_t>(1, call.lattices.size());
  for (size_t k = 0; k < count; ++k) {
    LatticeImage image = {};
    if (in.filtered) {
      image = call.lattices[k].Image(b);
      in.mixing = call.MixingOf(k, transposed);
      in.factor = transposed ? call.Before(k, image) : call.After(k, image);
      Values from = values;
      from.factor = transposed ? call.After(k, image) : call.Before(k, image);
      TFSEG_RETURN_IF_ERROR(Blur(kOp, call.context, image, from, transposed, &scratch->table));
      in.table = scratch->table;
    }
    in.first = k == 0;
    in.output = k + 1 == count ? output : nullptr;
    TFSEG_RETURN_IF_ERROR(Launch(kOp, MeanFieldStepKernel<T>, call.context,
                                 WholeWarps(call.points * in.lanes), image, in));
  }
  return core::Status::Ok();
}

template <typename T>
core::Status LogitsGrad(const Call<T>& call, int64_t b, const core::ConstBuffer& output,
                        const core::ConstBuffer& grad, core::AccumulatorOf<T>* grad_logits,
                        T* grad_unary) {
  const int lanes = LanesFor(call.packs());
  return Launch(kOp, MeanFieldStepLogitsGradKernel<T, core::AccumulatorOf<T>>, call.context,
                WholeWarps(call.points * lanes), call.points, call.classes, lanes,
                call.params.logits ? nullptr : call.Part(output, b), call.Part(grad, b),
                grad_logits, grad_unary);
}

// Adds what image b gives to the gradient of the mixings.
template <typename T>
core::Status AddMixingGrad(const Call<T>& call, int64_t b,
                           const core::AccumulatorOf<T>* grad_logits, int64_t parts,
                           double* partials, Scratch<core::AccumulatorOf<T>>* scratch,
                           core::AccumulatorOf<T>* grad_mixing) {
  using A = core::AccumulatorOf<T>;
  for (size_t k = 0; k < call.lattices.size(); ++k) {
    const LatticeImage image = call.lattices[k].Image(b);
    Values q = call.Q(b);
    q.factor = call.Before(k, image);
    TFSEG_RETURN_IF_ERROR(Blur(kOp, call.context, image, q, false, &scratch->table));
    TFSEG_RETURN_IF_ERROR(Slice(kOp, call.context, image, scratch->table, call.classes,
                                call.After(k, image), core::kAccumulatorDType<T>,
                                scratch->messages));
    const int64_t size = call.mixing_size();
    TFSEG_RETURN_IF_ERROR(Launch(kOp, MeanFieldStepMixingGradKernel<A>, call.context, parts * size,
                                 call.points, call.classes, call.params.diagonal, parts,
                                 grad_logits, scratch->messages, partials));
    TFSEG_RETURN_IF_ERROR(Launch(kOp, MeanFieldStepSumPartsKernel<A>, call.context,
                                 size * kWarpLanes, parts, partials,
                                 grad_mixing + static_cast<int64_t>(k) * size));
  }
  return core::Status::Ok();
}

// By sizes alone, so that sums are the same on every device.
int64_t PartsOf(int64_t points, int64_t mixing_size) {
  constexpr int64_t kLeastPoints = 64;
  constexpr int64_t kMostNumbers = int64_t{1} << 18;
  const int64_t most = std::min((points + kLeastPoints - 1) / kLeastPoints,
                                kMostNumbers / std::max<int64_t>(1, mixing_size));
  return std::max<int64_t>(1, most);
}

// Checks shapes and dtypes; calls fn(Call<T>).
template <typename Fn>
core::Status Dispatch(const op::Params& params, const Context& context, const op::Inputs& inputs,
                      Fn&& fn) {
  std::vector<core::Shape> features;
  for (const auto& lattice : inputs.lattices) features.push_back(lattice.features.shape);
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(op::InferShape(params, inputs.q.shape, inputs.unary.shape,
                                       inputs.mixing.shape, features, &shape));
  TFSEG_RETURN_IF_ERROR(core::RequireDType(kOp, "unary", inputs.unary.dtype, inputs.q.dtype));
  std::vector<Geometry> geometries(inputs.lattices.size());
  for (size_t k = 0; k < geometries.size(); ++k) {
    const std::string name = "lattices[" + std::to_string(k) + "]";
    TFSEG_RETURN_IF_ERROR(
        core::permutohedral_lattice::CheckLattice(kOp, name, inputs.lattices[k], &geometries[k]));
  }
  return core::DispatchFloat(kOp, "q", inputs.q.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    TFSEG_RETURN_IF_ERROR(
        core::RequireDType(kOp, "mixing", inputs.mixing.dtype, core::kAccumulatorDType<T>));
    Call<T> call = {params, context, inputs, {}, shape[0], shape[1], shape[2]};
    TFSEG_RETURN_IF_ERROR(ReadLattices(kOp, context, inputs.lattices, geometries, &call.lattices));
    return fn(call);
  });
}

// Checks output and gradient too.
template <typename Fn>
core::Status DispatchGrad(const op::Params& params, const Context& context,
                          const op::Inputs& inputs, const core::ConstBuffer& output,
                          const core::ConstBuffer& grad, Fn&& fn) {
  return Dispatch(params, context, inputs, [&](const auto& call) {
    const auto require = [&](const char* argument, const core::ConstBuffer& buffer) {
      core::Dim batch{"batch", call.batch}, points{"points", call.points};
      core::Dim classes{"classes", call.classes};
      core::ShapeChecker check(kOp);
      check.Require(argument, buffer.shape, {&batch, &points, &classes});
      TFSEG_RETURN_IF_ERROR(check.status());
      return core::RequireDType(kOp, argument, buffer.dtype, inputs.q.dtype);
    };
    if (!params.logits) TFSEG_RETURN_IF_ERROR(require("output", output));
    TFSEG_RETURN_IF_ERROR(require("grad", grad));
    return fn(call);
  });
}

}  // namespace

core::Status Forward(const op::Params& params, const Context& context, const op::Inputs& inputs,
                     const core::Buffer& output) {
  return Dispatch(params, context, inputs, [&](const auto& call) {
    using A = typename std::decay_t<decltype(call)>::A;
    Scratch<A> scratch;
    TFSEG_RETURN_IF_ERROR(AllocateScratch(call, !params.diagonal, &scratch));
    for (int64_t b = 0; b < call.batch; ++b) {
      TFSEG_RETURN_IF_ERROR(Update(call, b, call.Q(b), false, call.Part(inputs.unary, b),
                                   !params.logits, &scratch, call.Part(output, b)));
    }
    return core::Status::Ok();
  });
}

core::Status Backward(const op::Params& params, const Context& context, const op::Inputs& inputs,
                      const core::ConstBuffer& output, const core::ConstBuffer& grad,
                      const op::Grads& grads) {
  return DispatchGrad(params, context, inputs, output, grad, [&](const auto& call) {
    using A = typename std::decay_t<decltype(call)>::A;
    using T = typename std::decay_t<decltype(call)>::Type;
    const bool to_q = grads.q.data != nullptr, to_mixing = grads.mixing.data != nullptr;
    Scratch<A> scratch;
    A* grad_logits;
    double* partials = nullptr;
    const int64_t parts = PartsOf(call.points, call.mixing_size());
    TFSEG_RETURN_IF_ERROR(AllocateScratch(call, to_mixing || !params.diagonal, &scratch));
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, call.numbers(), &grad_logits));
    if (to_mixing) {
      TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, parts * call.mixing_size(), &partials));
      const auto bytes = static_cast<size_t>(inputs.mixing.shape.num_elements()) * sizeof(A);
      TFSEG_RETURN_IF_ERROR(
          ToStatus(kOp, cudaMemsetAsync(grads.mixing.data, 0, bytes, context.stream)));
    }
    for (int64_t b = 0; b < call.batch; ++b) {
      T* grad_unary = grads.unary.data == nullptr ? nullptr : call.Part(grads.unary, b);
      TFSEG_RETURN_IF_ERROR(LogitsGrad(call, b, output, grad, grad_logits, grad_unary));
      if (to_mixing) {
        TFSEG_RETURN_IF_ERROR(
            AddMixingGrad(call, b, grad_logits, parts, partials, &scratch, grads.mixing.As<A>()));
      }
      if (!to_q) continue;
      const T* no_start = nullptr;
      TFSEG_RETURN_IF_ERROR(Update(call, b, call.Accumulated(grad_logits), true, no_start, false,
                                   &scratch, call.Part(grads.q, b)));
    }
    return core::Status::Ok();
  });
}

core::Status FeaturesGrad(const op::Params& params, const Context& context,
                          const op::Inputs& inputs, const core::ConstBuffer& output,
                          const core::ConstBuffer& grad,
                          const std::vector<core::Buffer>& grad_features) {
  return DispatchGrad(params, context, inputs, output, grad, [&](const auto& call) {
    using A = typename std::decay_t<decltype(call)>::A;
    using T = typename std::decay_t<decltype(call)>::Type;
    Table<A> table;
    A *grad_logits, *grad_messages, *of_points;
    // The gradient to the norms is filtered too.
    const int64_t channels = std::max<int64_t>(1, call.classes);
    TFSEG_RETURN_IF_ERROR(AllocateTable(kOp, context, call.lattices, channels, &table));
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, call.numbers(), &grad_logits));
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, call.numbers(), &grad_messages));
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, 5 * call.points, &of_points));
    A* const scratch = of_points;  // [2, points]
    A* const after_dots = of_points + 2 * call.points;
    A* const before_dots = after_dots + call.points;
    A* const grad_norms = before_dots + call.points;
    for (int64_t b = 0; b < call.batch; ++b) {
      T* const no_unary = nullptr;
      TFSEG_RETURN_IF_ERROR(LogitsGrad(call, b, output, grad, grad_logits, no_unary));
      for (size_t k = 0; k < call.lattices.size(); ++k) {
        const LatticeImage image = call.lattices[k].Image(b);
        TFSEG_RETURN_IF_ERROR(Launch(kOp, MeanFieldStepMixKernel<A>, context, call.numbers(),
                                     call.MixingOf(k, true), grad_logits, grad_messages));
        Values q = call.Q(b), upstream = call.Accumulated(grad_messages);
        q.factor = call.Before(k, image);
        upstream.factor = call.After(k, image);
        std::vector<FilteredPair> pairs = {{q, upstream}};
        if (params.normalizations[k] != Normalization::kNone) {
          // The norms are the filter of ones.
          TFSEG_RETURN_IF_ERROR(
              FilterAndDot(kOp, context, image, q, false, upstream, false, &table, after_dots));
          TFSEG_RETURN_IF_ERROR(
              FilterAndDot(kOp, context, image, upstream, true, q, false, &table, before_dots));
          TFSEG_RETURN_IF_ERROR(Launch(kOp, MeanFieldStepNormsGradKernel<A>, context, call.points,
                                       upstream.factor, q.factor, after_dots, before_dots,
                                       grad_norms));
          pairs.push_back({{nullptr, core::kAccumulatorDType<T>, 1},
                           {grad_norms, core::kAccumulatorDType<T>, 1}});
        }
        const Geometry& g = call.lattices[k].geometry;
        TFSEG_RETURN_IF_ERROR(
            PairsFeaturesGrad(kOp, context, image, pairs, false, &table, scratch,
                              grad_features[k].As<float>() + b * g.points * g.dimensions));
      }
    }
    return core::Status::Ok();
  });
}

}  // namespace tfseg::cuda
