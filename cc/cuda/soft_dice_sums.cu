#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/soft_dice_sums.h"

namespace tfseg::cuda {
namespace {

namespace op = core::soft_dice_sums;

constexpr char kOp[] = "soft_dice_sums";

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// --- The inputs, as kernels get them ------------------------------------------------------------

// Numbers of classes or targets, of a dtype that all threads branch on alike.
struct Labels {
  const void* data;
  core::DType dtype;

  template <typename From>
  __device__ From At(int64_t k) const {
    return static_cast<const From*>(data)[k];
  }

  __device__ int64_t Label(int64_t k) const {
    switch (dtype) {
      case core::DType::kUInt8:
        return At<uint8_t>(k);
      case core::DType::kInt32:
        return At<int32_t>(k);
      default:
        return At<int64_t>(k);
    }
  }

  template <typename A>
  __device__ A Target(int64_t k) const {
    using core::BFloat16;
    using core::Half;
    switch (dtype) {
      case core::DType::kFloat16:
        return static_cast<A>(static_cast<float>(At<Half>(k)));
      case core::DType::kBFloat16:
        return static_cast<A>(static_cast<float>(At<BFloat16>(k)));
      case core::DType::kFloat32:
        return static_cast<A>(At<float>(k));
      case core::DType::kFloat64:
        return static_cast<A>(At<double>(k));
      default:
        return static_cast<A>(Label(k));
    }
  }
};

template <typename T>
struct Batch {
  using A = core::AccumulatorOf<T>;

  op::Params params;
  op::Geometry g;
  const T* logits;         // [batch, pixels, classes]
  Labels labels;           // [batch, pixels], or as the logits where dense
  const A* weights;        // [batch, pixels]
  const A* class_weights;  // [classes]
  int group;               // lanes of a warp that look at the logits of one pixel together

  __device__ bool softmax() const { return params.activation == op::Activation::kSoftmax; }
  __device__ bool binary() const { return op::IsBinary(params, g.classes); }
  // Whether the other classes of a pixel leave all sums but the prediction as they are.
  __device__ bool one_class() const { return softmax() && !params.dense; }

  __device__ A Logit(int64_t pixel, int64_t c) const {
    return op::Clamped(static_cast<A>(logits[pixel * g.classes + c]));
  }
  __device__ A Target(int64_t pixel, int64_t c, int64_t label) const {
    if (params.dense) return labels.Target<A>(pixel * g.classes + c);
    if (g.classes == 1 && binary()) return static_cast<A>(label);
    return c == label ? A(1) : A(0);
  }
  __device__ A ClassWeight(int64_t c) const {
    return params.has_class_weights ? class_weights[c] : A(1);
  }
};

// --- Tiles --------------------------------------------------------------------------------------
//
// A block walks over tiles of pixels. First it finds out what it must know of each pixel as a
// whole; then its threads are laid over the logits as they lie in memory, so that each of them
// keeps to one class (or to every 256th), and takes the tile's pixels by turns.

constexpr int kTile = kBlockThreads;

template <typename A>
struct Tile {
  A* weights;       // [kTile], 0 where a pixel does not count
  int64_t* labels;  // [kTile]
  op::Normalizer<A>* normalizers;

  __device__ bool Counts(int pixel) const { return weights[pixel] != A(0); }
};

template <typename A>
__device__ inline Tile<A> SharedTile() {
  __shared__ A weights[kTile];
  __shared__ int64_t labels[kTile];
  __shared__ op::Normalizer<A> normalizers[kTile];
  return {weights, labels, normalizers};
}

// Calls fn(block) for this block's share of `threads` in blocks: all of its threads together.
template <typename Fn>
__device__ inline void ForBlocks(int64_t threads, Fn&& fn) {
  for (int64_t block = blockIdx.x; block < threads / kBlockThreads; block += gridDim.x) fn(block);
}

// Calls fn(pixel, lane, counts) for the pixels of a tile, with groups of lanes: all lanes of a warp
// together, so that they can shuffle.
template <typename T, typename A, typename Fn>
__device__ inline void ForGroups(const Batch<T>& in, int count, const Tile<A>& tile, Fn&& fn) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int begin = 0; begin < count; begin += kBlockThreads / in.group) {
    const int pixel = begin + thread / in.group;
    fn(pixel, thread % in.group, pixel < count && tile.Counts(pixel));
  }
}

// The sum over so many lanes, a power of two; each of them gets the same bits.
template <typename A>
__device__ inline A GroupSum(A value, int group) {
  for (int apart = group / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, apart);
  }
  return value;
}

template <typename A>
__device__ inline A GroupMax(A value, int group) {
  for (int apart = group / 2; apart > 0; apart /= 2) {
    const A other = __shfl_xor_sync(kAllLanes, value, apart);
    value = other > value ? other : value;
  }
  return value;
}

// Weights and labels of `count` pixels from `first`, counted through all images; and what softmax
// needs of their logits. Ends with a barrier.
template <typename T, typename A>
__device__ inline void LoadTile(const Batch<T>& in, int64_t first, int count, const Tile<A>& tile) {
  __syncthreads();  // the tile before has been read
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < count) {
    A weight = in.params.has_weights ? in.weights[first + thread] : A(1);
    int64_t label = 0;
    if (!in.params.dense) {
      label = in.labels.Label(first + thread);
      const bool ignored = in.params.has_ignore_label && label == in.params.ignore_label;
      const bool legal = label >= 0 && label < op::NumLabels(in.params, in.g.classes);
      if (ignored || !legal) weight = A(0);
    }
    tile.weights[thread] = weight;
    tile.labels[thread] = label;
  }
  __syncthreads();
  if (!in.softmax()) return;
  ForGroups(in, count, tile, [&](int pixel, int lane, bool counts) {
    // The smallest that a logit can be. NaN never takes its place, and spoils the sum.
    A largest = A(-op::kLargestLogit);
    for (int64_t c = lane; counts && c < in.g.classes; c += in.group) {
      const A logit = in.Logit(first + pixel, c);
      largest = logit > largest ? logit : largest;
    }
    largest = GroupMax(largest, in.group);
    A sum = 0;
    for (int64_t c = lane; counts && c < in.g.classes; c += in.group) {
      sum += std::exp(in.Logit(first + pixel, c) - largest);
    }
    sum = GroupSum(sum, in.group);
    if (counts && lane == 0) tile.normalizers[pixel] = {largest, A(1) / sum, std::log(sum)};
  });
  __syncthreads();
}

// Where a thread stands among the classes of a tile.
struct Place {
  int lanes;  // threads that share a class
  int lane;   // the first of its pixels, of which it takes every lanes-th
  int64_t c;  // the first of its classes, of which it takes every 256th; none if beyond the last
  bool many;  // whether threads have more than one class
};
__device__ inline Place PlaceAmong(int64_t classes) {
  const int thread = static_cast<int>(threadIdx.x);
  if (classes > kBlockThreads) return {1, 0, thread, true};
  const int all = static_cast<int>(classes);
  const int lanes = kBlockThreads / all, lane = thread / all;
  return {lanes, lane, lane < lanes ? thread % all : classes, false};
}

// --- Forward ------------------------------------------------------------------------------------
//
// Each block sums one part of an image. A second kernel adds up the parts.

// Cuts by sizes alone, so that sums are the same on every device.
struct Parts {
  int64_t per_image, tiles, pixels;  // of an image

  TFSEG_HOST_DEVICE int64_t Begin(int64_t part) const {
    const int64_t begin = tiles * part / per_image * kTile;
    return begin < pixels ? begin : pixels;
  }
};

// Sums of one part: three of each class, then cross entropy and weight sum.
TFSEG_HOST_DEVICE inline int64_t NumSums(int64_t classes) { return 3 * classes + 2; }

Parts PartsOf(const op::Geometry& g) {
  constexpr int64_t kMostParts = 1024;  // of all images; fills the largest devices
  constexpr int64_t kMostNumbers = int64_t{1} << 20;
  constexpr int64_t kLeastTiles = 2;
  const int64_t tiles = (g.pixels + kTile - 1) / kTile;
  const int64_t batch = std::max<int64_t>(1, g.batch);
  const int64_t most = std::min(kMostParts / batch, kMostNumbers / NumSums(g.classes) / batch);
  return {std::max<int64_t>(1, std::min(most, tiles / kLeastTiles)), tiles, g.pixels};
}

// What a thread has summed since it last moved it to doubles, which are slow on many devices.
template <typename A>
struct Run {
  A of_class[3] = {};  // intersection, prediction, target
  A of_image[2] = {};  // cross_entropy, weight_sum
};
constexpr int kTilesInARun = 8;

template <typename A, int kCount>
__device__ inline void Flush(A (&run)[kCount], double* sums, int64_t step) {
  for (int n = 0; n < kCount; ++n) {
    sums[n * step] += static_cast<double>(run[n]);
    run[n] = A(0);
  }
}

// Adds one class of a thread's pixels of a tile.
template <typename T, typename A>
__device__ inline void AddPixels(const Batch<T>& in, int64_t first, int count, const Tile<A>& tile,
                                 const Place& place, int64_t c, Run<A>* run) {
  const bool binary = in.binary();
  const A class_weight = in.ClassWeight(c);
  for (int pixel = place.lane; pixel < count; pixel += place.lanes) {
    if (!tile.Counts(pixel)) continue;
    const A weight = tile.weights[pixel];
    const int64_t label = tile.labels[pixel];
    const A target = in.Target(first + pixel, c, label);
    const op::Element<A> element = op::ElementOf(in.params, binary, in.Logit(first + pixel, c),
                                                 target, tile.normalizers[pixel]);
    const A of_p = element.p * weight;
    run->of_class[1] += in.params.power == 2 ? of_p * element.p : of_p;
    if (in.one_class() && c != label) continue;
    const A of_target = target * weight;
    run->of_class[0] += of_target * element.p;
    run->of_class[2] += in.params.power == 2 ? of_target * target : of_target;
    run->of_image[0] += weight * (class_weight * element.h);
    run->of_image[1] += class_weight * (binary ? weight : of_target);
  }
}

// Adds up rows of a number from each thread over the lanes that share a class, in an order that
// depends on sizes alone. The sum is left with the first lane.
template <int kRows>
__device__ inline void SumLanes(double (&rows)[kRows][kBlockThreads], int lanes, int classes) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread / classes;
  __syncthreads();
  int half = 1;
  while (2 * half < lanes) half *= 2;
  for (; lanes > 1; lanes = half, half /= 2) {
    if (lane < half && lane + half < lanes) {
      for (int n = 0; n < kRows; ++n) rows[n][thread] += rows[n][thread + half * classes];
    }
    __syncthreads();
  }
}

// A block sums the pixels [begin, end), counted through all images.
template <typename T>
__device__ inline void SumPart(const Batch<T>& in, int64_t begin, int64_t end,
                               double* to) {  // [3 * classes + 2]
  using A = core::AccumulatorOf<T>;
  __shared__ double of_classes[3][kBlockThreads];
  __shared__ double of_image[2][kBlockThreads];
  const Tile<A> tile = SharedTile<A>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t classes = in.g.classes;
  const Place place = PlaceAmong(classes);
  // A thread of many classes keeps their sums where they are to be written in the end.
  for (int64_t c = place.c; place.many && c < classes; c += kBlockThreads) {
    for (int n = 0; n < 3; ++n) to[n * classes + c] = 0;
  }
  Run<A> run;
  double sums[3] = {}, totals[2] = {};
  int tiles = 0;
  for (int64_t first = begin; first < end; first += kTile) {
    const int count = static_cast<int>(end - first < kTile ? end - first : kTile);
    LoadTile(in, first, count, tile);
    for (int64_t c = place.c; c < classes; c += kBlockThreads) {
      AddPixels(in, first, count, tile, place, c, &run);
      if (place.many) Flush(run.of_class, to + c, classes);
    }
    if (++tiles % kTilesInARun == 0) {
      Flush(run.of_class, sums, 1);
      Flush(run.of_image, totals, 1);
    }
  }
  Flush(run.of_class, sums, 1);
  Flush(run.of_image, totals, 1);
  for (int n = 0; n < 3; ++n) of_classes[n][thread] = sums[n];
  for (int n = 0; n < 2; ++n) of_image[n][thread] = totals[n];
  SumLanes(of_image, kBlockThreads, 1);
  if (thread == 0) {
    for (int n = 0; n < 2; ++n) to[3 * classes + n] = of_image[n][0];
  }
  if (place.many) return;
  SumLanes(of_classes, place.lanes, static_cast<int>(classes));
  if (thread >= classes) return;
  for (int n = 0; n < 3; ++n) to[n * classes + thread] = of_classes[n][thread];
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    SoftDiceSumsKernel(int64_t threads, const __grid_constant__ Batch<T> in, Parts parts,
                       double* partials) {  // [batch, parts, 3 * classes + 2]
  ForBlocks(threads, [&](int64_t block) {
    const int64_t image = block / parts.per_image * in.g.pixels;
    const int64_t part = block % parts.per_image;
    SumPart(in, image + parts.Begin(part), image + parts.Begin(part + 1),
            partials + block * NumSums(in.g.classes));
  });
}

template <typename A>
struct Outputs {
  A *intersection, *prediction, *target;  // [batch, classes]
  A *cross_entropy, *weight_sum;          // [batch]

  __device__ A* At(int64_t b, int64_t n, int64_t classes) const {
    if (n >= 3 * classes) return (n == 3 * classes ? cross_entropy : weight_sum) + b;
    A* of_classes = n < classes ? intersection : n < 2 * classes ? prediction : target;
    return of_classes + b * classes + n % classes;
  }
};

// A warp adds up the parts of one sum.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    SoftDiceSumsOfPartsKernel(int64_t lanes, int64_t per_image, int64_t classes,
                              const double* partials,  // [batch, per_image, 3 * classes + 2]
                              Outputs<A> outputs) {
  ForItems(lanes, [&](int64_t item) {
    const int64_t size = NumSums(classes);
    const int64_t n = item / kWarp % size, b = item / kWarp / size;
    const int64_t lane = item % kWarp;
    double sum = 0;
    for (int64_t part = lane; part < per_image; part += kWarp) {
      sum += partials[(b * per_image + part) * size + n];
    }
    sum = GroupSum(sum, kWarp);
    if (lane == 0) *outputs.At(b, n, classes) = static_cast<A>(sum);
  });
}

// --- Backward -----------------------------------------------------------------------------------

template <typename A>
struct Upstream {
  const A *intersection, *prediction;  // [batch, classes]
  const A* cross_entropy;              // [batch]
};

// What reaches class c of a pixel of image b with this label.
template <typename T, typename A>
__device__ inline op::ClassGrad<A> ClassGradOf(const Batch<T>& in, const Upstream<A>& grad,
                                               int64_t b, int64_t c, int64_t label) {
  const int64_t k = b * in.g.classes + c;
  if (in.one_class() && c != label) return {A(0), grad.prediction[k], A(0)};
  return {grad.intersection[k], grad.prediction[k], grad.cross_entropy[b] * in.ClassWeight(c)};
}

// What softmax adds to all logits of a pixel. Ends with a barrier.
template <typename T, typename A>
__device__ inline void LoadCommon(const Batch<T>& in, const Upstream<A>& grad, int64_t b,
                                  int64_t first, int count, const Tile<A>& tile,
                                  A* common) {  // [kTile]
  ForGroups(in, count, tile, [&](int pixel, int lane, bool counts) {
    A sum = 0;
    for (int64_t c = lane; counts && c < in.g.classes; c += in.group) {
      const int64_t label = tile.labels[pixel];
      const A target = in.Target(first + pixel, c, label);
      const A p = op::ElementOf(in.params, false, in.Logit(first + pixel, c), target,
                                tile.normalizers[pixel])
                      .p;
      const op::ClassGrad<A> of_class = ClassGradOf(in, grad, b, c, label);
      sum += target * of_class.cross_entropy -
             p * (op::Slope(in.params, p, of_class) + target * of_class.intersection);
    }
    sum = GroupSum(sum, in.group);
    if (counts && lane == 0) common[pixel] = sum;
  });
  __syncthreads();
}

// A block takes a tile.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    SoftDiceSumsGradKernel(int64_t threads, const __grid_constant__ Batch<T> in, int64_t tiles,
                           Upstream<core::AccumulatorOf<T>> grad,
                           T* grad_logits) {  // [batch, pixels, classes]
  using A = core::AccumulatorOf<T>;
  __shared__ A common[kTile];
  const Tile<A> tile = SharedTile<A>();
  const int64_t classes = in.g.classes;
  const Place place = PlaceAmong(classes);
  const bool binary = in.binary();
  ForBlocks(threads, [&](int64_t block) {
    const int64_t b = block / tiles, begin = block % tiles * kTile;
    const int64_t first = b * in.g.pixels + begin, rest = in.g.pixels - begin;
    const int count = static_cast<int>(rest < kTile ? rest : kTile);
    LoadTile(in, first, count, tile);
    if (in.softmax()) LoadCommon(in, grad, b, first, count, tile, common);
    for (int64_t c = place.c; c < classes; c += kBlockThreads) {
      for (int pixel = place.lane; pixel < count; pixel += place.lanes) {
        A by_logit = 0;
        if (tile.Counts(pixel)) {
          const int64_t label = tile.labels[pixel];
          const A target = in.Target(first + pixel, c, label);
          const A p = op::ElementOf(in.params, binary, in.Logit(first + pixel, c), target,
                                    tile.normalizers[pixel])
                          .p;
          by_logit = tile.weights[pixel] * op::LogitGrad(in.params, binary, p, target,
                                                         ClassGradOf(in, grad, b, c, label),
                                                         in.softmax() ? common[pixel] : A(0));
        }
        grad_logits[(first + pixel) * classes + c] = static_cast<T>(by_logit);
      }
    }
  });
}

// --- Launchers ----------------------------------------------------------------------------------

core::Status RequireShape(const char* argument, const core::Shape& shape,
                          const core::Shape& wanted) {
  bool same = shape.rank() == wanted.rank();
  for (int axis = 0; same && axis < shape.rank(); ++axis) same = shape[axis] == wanted[axis];
  if (same) return core::Status::Ok();
  return core::Status::InvalidArgument(std::string(kOp) + ": '" + argument + "' must have shape " +
                                       wanted.ToString() + ", got " + shape.ToString());
}

// Few enough lanes for a pixel that each has some of its classes.
int GroupOf(int64_t classes) {
  constexpr int64_t kLeastClasses = 4;
  int group = 1;
  while (group < kWarp && 2 * group * kLeastClasses <= classes) group *= 2;
  return group;
}

// Checks shapes and dtypes; calls fn with the batch.
template <typename Fn>
core::Status Dispatch(const op::Params& params, const op::Inputs& inputs, Fn&& fn) {
  core::Shape sums, totals;
  const core::Shape& shape = inputs.logits.shape;
  TFSEG_RETURN_IF_ERROR(op::InferShape(params, shape, inputs.labels.shape, inputs.weights.shape,
                                       inputs.class_weights.shape, &sums, &totals));
  const core::DType label = inputs.labels.dtype;
  if (!params.dense || core::SizeOf(label) == 0) {
    TFSEG_RETURN_IF_ERROR(
        core::DispatchLabel(kOp, "labels", label, [](auto) { return core::Status::Ok(); }));
  }
  return core::DispatchFloat(kOp, "logits", inputs.logits.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    using A = core::AccumulatorOf<T>;
    constexpr core::DType kWide = core::kAccumulatorDType<T>;
    if (params.has_weights) {
      TFSEG_RETURN_IF_ERROR(core::RequireDType(kOp, "weights", inputs.weights.dtype, kWide));
    }
    if (params.has_class_weights) {
      TFSEG_RETURN_IF_ERROR(
          core::RequireDType(kOp, "class_weights", inputs.class_weights.dtype, kWide));
    }
    op::Geometry g{shape[0], 1, shape[shape.rank() - 1]};
    for (int axis = 1; axis < shape.rank() - 1; ++axis) g.pixels *= shape[axis];
    return fn(Batch<T>{params,
                       g,
                       inputs.logits.As<T>(),
                       {inputs.labels.data, label},
                       inputs.weights.As<A>(),
                       inputs.class_weights.As<A>(),
                       GroupOf(g.classes)});
  });
}

}  // namespace

core::Status Forward(const op::Params& params, const Context& context, const op::Inputs& inputs,
                     const op::Sums& sums) {
  return Dispatch(params, inputs, [&](const auto& in) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(in.logits)>>;
    using A = core::AccumulatorOf<T>;
    const Parts parts = PartsOf(in.g);
    const int64_t blocks = in.g.batch * parts.per_image, size = NumSums(in.g.classes);
    const int64_t bytes = blocks * size * static_cast<int64_t>(sizeof(double));
    auto* partials = static_cast<double*>(context.workspace.Allocate(bytes));
    if (partials == nullptr) {
      return core::Status::ResourceExhausted(std::string(kOp) + ": no memory for " +
                                             std::to_string(bytes) + " bytes of workspace");
    }
    TFSEG_RETURN_IF_ERROR(
        Launch(kOp, SoftDiceSumsKernel<T>, context, blocks * kBlockThreads, in, parts, partials));
    const Outputs<A> outputs = {sums.intersection.As<A>(), sums.prediction.As<A>(),
                                sums.target.As<A>(), sums.cross_entropy.As<A>(),
                                sums.weight_sum.As<A>()};
    return Launch(kOp, SoftDiceSumsOfPartsKernel<A>, context, in.g.batch * size * kWarp,
                  parts.per_image, in.g.classes, partials, outputs);
  });
}

core::Status Backward(const op::Params& params, const Context& context, const op::Inputs& inputs,
                      const op::SumsGrad& grad, const core::Buffer& grad_logits) {
  return Dispatch(params, inputs, [&](const auto& in) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(in.logits)>>;
    using A = core::AccumulatorOf<T>;
    const core::Shape of_classes{in.g.batch, in.g.classes}, of_images{in.g.batch};
    const auto require = [&](const char* argument, const core::ConstBuffer& buffer,
                             const core::Shape& shape) {
      TFSEG_RETURN_IF_ERROR(RequireShape(argument, buffer.shape, shape));
      return core::RequireDType(kOp, argument, buffer.dtype, core::kAccumulatorDType<T>);
    };
    TFSEG_RETURN_IF_ERROR(require("grad_intersection", grad.intersection, of_classes));
    TFSEG_RETURN_IF_ERROR(require("grad_prediction", grad.prediction, of_classes));
    TFSEG_RETURN_IF_ERROR(require("grad_cross_entropy", grad.cross_entropy, of_images));
    const int64_t tiles = (in.g.pixels + kTile - 1) / kTile;
    const Upstream<A> upstream = {grad.intersection.As<A>(), grad.prediction.As<A>(),
                                  grad.cross_entropy.As<A>()};
    return Launch(kOp, SoftDiceSumsGradKernel<T>, context, in.g.batch * tiles * kBlockThreads, in,
                  tiles, upstream, grad_logits.As<T>());
  });
}

}  // namespace tfseg::cuda
