#include "core/roi_align.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>

#include "core/chunks.h"
#include "core/simd.h"
#include "core/taps.h"

namespace tfseg::core::roi_align {
namespace {

constexpr int64_t kMostPixels = std::numeric_limits<int32_t>::max();

Status Invalid(const Params& params, const std::string& message) {
  return Status::InvalidArgument(std::string(OpOf(params)) + ": " + message);
}

// The name of a map in a message.
std::string MapName(const Params& params, size_t level) {
  return params.num_levels > 1 ? "features[" + std::to_string(level) + "]" : "features";
}

struct Dims {
  Dim batch{"batch"}, channels{"channels"}, boxes{"num_boxes"};
};

Status CheckParams(const Params& params) {
  if (!(params.num_levels >= 1 && params.num_levels <= kMaxLevels)) {
    return Invalid(params, "'spatial_scales' must have 1 to " + std::to_string(kMaxLevels) +
                               " numbers, got " + std::to_string(params.num_levels));
  }
  for (int level = 0; level < params.num_levels; ++level) {
    const float scale = params.spatial_scales[level];
    char text[32];
    snprintf(text, sizeof(text), "%g", static_cast<double>(scale));
    if (!(scale > 0 && scale <= std::numeric_limits<float>::max())) {
      return Invalid(params,
                     std::string(params.num_levels > 1 ? "'spatial_scales'" : "'spatial_scale'") +
                         " must be positive and finite, got " + text);
    }
  }
  if (!(params.sampling_ratio >= 0 && params.sampling_ratio <= kMostPoints)) {
    return Invalid(params, "'sampling_ratio' must lie in [0, " + std::to_string(kMostPoints) +
                               "], got " + std::to_string(params.sampling_ratio));
  }
  return RequirePixels(OpOf(params), "output_size", params.output_size);
}

Status CheckFeatures(const Params& params, const std::vector<Shape>& features, Dims* dims) {
  TFSEG_RETURN_IF_ERROR(CheckParams(params));
  if (features.size() != static_cast<size_t>(params.num_levels)) {
    return Invalid(params, "'spatial_scales' must have " + std::to_string(features.size()) +
                               " numbers, got " + std::to_string(params.num_levels));
  }
  for (size_t level = 0; level < features.size(); ++level) {
    const std::string name = MapName(params, level);
    Dim height{"height"}, width{"width"};
    ShapeChecker check(OpOf(params));
    check.Require(name.c_str(), features[level], {&dims->batch, &height, &width, &dims->channels});
    TFSEG_RETURN_IF_ERROR(check.status());
    if (std::max(height.size, width.size) > kMostPixels) {
      return Invalid(params, "'" + name + "' must have sides of at most 2147483647 pixels, got " +
                                 features[level].ToString());
    }
  }
  return Status::Ok();
}

Status CheckBoxes(const Params& params, const Shape& boxes, const Shape& box_indices,
                  const Shape& levels, Dims* dims) {
  Dim four{nullptr, 4};
  ShapeChecker check(OpOf(params));
  check.Require("boxes", boxes, {&dims->boxes, &four});
  check.Require("box_indices", box_indices, {&dims->boxes});
  check.Require("levels", levels, {&dims->boxes});
  TFSEG_RETURN_IF_ERROR(check.status());
  if (dims->boxes.size > kMostPixels) {
    return Invalid(params, "'boxes' must be at most 2147483647, got " + boxes.ToString());
  }
  return Status::Ok();
}

Status CheckGrad(const Params& params, const Shape& grad, Dims* dims) {
  Dim rows{nullptr, params.output_size[0]}, columns{nullptr, params.output_size[1]};
  ShapeChecker check(OpOf(params));
  check.Require("grad", grad, {&dims->boxes, &rows, &columns, &dims->channels});
  return check.status();
}

Status RequireIndices(const Params& params, const char* argument, const ConstBuffer& numbers) {
  return DispatchIndex(OpOf(params), argument, numbers.dtype, [](auto) { return Status::Ok(); });
}

std::vector<Shape> ShapesOf(const std::vector<ConstBuffer>& buffers) {
  std::vector<Shape> shapes;
  for (const ConstBuffer& buffer : buffers) shapes.push_back(buffer.shape);
  return shapes;
}

// --- Forward ------------------------------------------------------------------------------------

template <typename T>
struct Maps {
  const T* data[kMaxLevels];
  int64_t height[kMaxLevels], width[kMaxLevels];
  int64_t channels;

  const T* Image(const int level, int64_t image) const {
    return data[level] + image * height[level] * width[level] * channels;
  }
};

template <typename T>
Maps<T> MapsOf(const std::vector<ConstBuffer>& features) {
  Maps<T> maps = {};
  for (size_t level = 0; level < features.size(); ++level) {
    maps.data[level] = features[level].As<T>();
    maps.height[level] = features[level].shape[1];
    maps.width[level] = features[level].shape[2];
  }
  maps.channels = features[0].shape[3];
  return maps;
}

// A bin's pixels of one chunk of channels, weighted. With kByRows first those of each row: the
// rounding errors of a sum of many grow with their number, of a sum of sums far less.
template <bool kByRows, int kVectors, typename T, typename Taps>
inline void SumBin(const T* image, int64_t row_size, int64_t channels, int count,
                   const Taps& y_taps, const Taps& x_taps, const Taps& x_ahead,
                   Vector<AccumulatorOf<T>> (&sums)[kVectors]) {
  using A = AccumulatorOf<T>;
  for (const auto& y : y_taps) {
    const T* row = image + y.pixel * row_size;
    Vector<A> of_row[kVectors] = {};
    auto& to = kByRows ? of_row : sums;
    const auto* ahead = x_ahead.first;
    for (const auto& x : x_taps) {
      if (ahead < x_ahead.last) Prefetch<kVectors>(row + ahead++->pixel * channels);
      const A weight = kByRows ? x.weight : y.weight * x.weight;
      const auto pixel = Chunk<T, kVectors>::Load(row + x.pixel * channels, count);
      for (int v = 0; v < kVectors; ++v) to[v] += pixel.vectors[v] * weight;
    }
    for (int v = 0; kByRows && v < kVectors; ++v) sums[v] += of_row[v] * y.weight;
  }
}

template <bool kStream, typename T>
void AlignBins(const Maps<T>& maps, const Plan<T, Tap<AccumulatorOf<T>>>& plan, int64_t k,
               int64_t p,
               T* output) {  // [bins of x, channels]
  using A = AccumulatorOf<T>;
  constexpr int64_t kFewTaps = 64;
  const auto& box = plan.box(k);
  const int64_t channels = maps.channels;
  const int64_t row_size = maps.width[box.level] * channels;
  const T* image = maps.Image(box.level, box.image);
  const auto y_taps = plan.y().Of(k, p);
  const Chunks<A> chunks{channels};
  for (int64_t q = 0; q < plan.x().bins; ++q) {
    const auto x_taps = plan.x().Of(k, q);
    // Boxes are larger than the second-level cache, and pieces of pixels are too short for the
    // hardware to foresee: each tap fetches its like of the next bin of the row. A hint, also
    // where that bin has other taps.
    const auto x_ahead = plan.x().Of(k, std::min(q + 1, plan.x().bins - 1));
    for (int64_t index = 0; index < chunks.count(); ++index) {
      const ChunkRange range = chunks[index];
      ForChunk<A>(range.count, [&](auto vectors) {
        constexpr int kVectors = decltype(vectors)::value;
        Vector<A> sums[kVectors] = {};
        const T* from = image + range.first;
        if (y_taps.size() * x_taps.size() > kFewTaps) {
          SumBin<true>(from, row_size, channels, range.count, y_taps, x_taps, x_ahead, sums);
        } else {
          SumBin<false>(from, row_size, channels, range.count, y_taps, x_taps, x_ahead, sums);
        }
        for (int v = 0; v < kVectors; ++v) sums[v] *= box.share;
        Put<kStream>(sums, range.count, output + q * channels + range.first);
      });
    }
  }
}

template <typename T>
Status Align(const Params& params, const Context& context, const std::vector<ConstBuffer>& features,
             const ConstBuffer& boxes, const ConstBuffer& box_indices, const ConstBuffer& levels,
             const Buffer& output) {
  using A = AccumulatorOf<T>;
  Plan<T, Tap<A>> plan;
  TFSEG_RETURN_IF_ERROR(plan.Make(params, context, ShapesOf(features), boxes, box_indices, levels));
  const Maps<T> maps = MapsOf<T>(features);
  const int64_t rows = params.output_size[0];
  const int64_t row_size = params.output_size[1] * maps.channels;
  if (output.shape.num_elements() == 0) return Status::Ok();
  int64_t num_used = 0;
  const int32_t* order = plan.InOrder(&num_used);
  const bool stream = WorthStreaming(output.data, output.shape.num_elements() * sizeof(T),
                                     maps.channels * static_cast<int64_t>(sizeof(T)));
  const auto align = stream ? AlignBins<true, T> : AlignBins<false, T>;
  // Taps of one item: those of a bin of y times those of all bins of x.
  const int64_t used = std::max<int64_t>(1, num_used);
  const int64_t taps = (1 + plan.y().starts[plan.num_boxes()] / (used * rows)) *
                       (1 + plan.x().starts[plan.num_boxes()] / used);
  ParallelFor(context.threads, num_used * rows, 1 + taps * maps.channels / 8,
              [&](int64_t begin, int64_t end) {
                for (int64_t item = begin; item < end; ++item) {
                  const int64_t k = order[item / rows];
                  const int64_t p = item % rows;
                  align(maps, plan, k, p, output.As<T>() + (k * rows + p) * row_size);
                }
                if (stream) StreamFence();
              });
  const int64_t bytes = rows * row_size * static_cast<int64_t>(sizeof(T));
  ParallelFor(context.threads, plan.num_boxes(), 1 + (num_used < plan.num_boxes() ? bytes / 16 : 0),
              [&](int64_t begin, int64_t end) {
                for (int64_t k = begin; k < end; ++k) {
                  if (plan.box(k).empty()) memset(output.As<T>() + k * rows * row_size, 0, bytes);
                }
              });
  return Status::Ok();
}

// --- Backward to the features -------------------------------------------------------------------

// A bin's part in one row of a map.
template <typename A>
struct RowEntry {
  int32_t box;
  int32_t bin;
  A weight;
};

// The entries of each row of each image of each level, in the order of the boxes.
template <typename A>
struct RowLists {
  int64_t num_rows = 0;
  int64_t first_row[kMaxLevels + 1] = {};
  int64_t* starts = nullptr;  // [num_rows + 1]
  RowEntry<A>* entries = nullptr;
};

template <typename T>
Status MakeRowLists(const Params& params, const Context& context, const std::vector<Buffer>& maps,
                    const Plan<T, Tap<AccumulatorOf<T>>>& plan, RowLists<AccumulatorOf<T>>* lists) {
  using A = AccumulatorOf<T>;
  for (int level = 0; level < params.num_levels; ++level) {
    lists->first_row[level] = lists->num_rows;
    lists->num_rows += maps[level].shape[0] * maps[level].shape[1];
  }
  lists->first_row[params.num_levels] = lists->num_rows;
  TFSEG_RETURN_IF_ERROR(plan.Allocate(params, context, lists->num_rows + 1, &lists->starts));
  std::fill_n(lists->starts, lists->num_rows + 1, 0);
  // Calls fn(row, entry) for each tap of each bin.
  const auto for_taps = [&](auto&& fn) {
    for (int64_t k = 0; k < plan.num_boxes(); ++k) {
      const Box<A>& box = plan.box(k);
      if (box.empty()) continue;
      const int64_t first = lists->first_row[box.level] + box.image * maps[box.level].shape[1];
      for (int64_t p = 0; p < plan.y().bins; ++p) {
        for (const auto& tap : plan.y().Of(k, p)) {
          fn(first + tap.pixel,
             RowEntry<A>{static_cast<int32_t>(k), static_cast<int32_t>(p), tap.weight * box.share});
        }
      }
    }
  };
  for_taps([&](int64_t row, const RowEntry<A>&) { ++lists->starts[row + 1]; });
  std::partial_sum(lists->starts, lists->starts + lists->num_rows + 1, lists->starts);
  TFSEG_RETURN_IF_ERROR(
      plan.Allocate(params, context, lists->starts[lists->num_rows], &lists->entries));
  // Each start runs to its row's end, which is the next one's start.
  for_taps(
      [&](int64_t row, const RowEntry<A>& entry) { lists->entries[lists->starts[row]++] = entry; });
  std::copy_backward(lists->starts, lists->starts + lists->num_rows,
                     lists->starts + lists->num_rows + 1);
  lists->starts[0] = 0;
  return Status::Ok();
}

// Pixels of a row whose sums are kept in the first-level cache until each is written once.
constexpr int kTileBytes = 24 << 10;

// One chunk of channels of one row: sums of all that its entries add.
template <bool kStream, int kVectors, typename T>
void SumRow(const Plan<T, Tap<AccumulatorOf<T>>>& plan, const RowEntry<AccumulatorOf<T>>* begin,
            const RowEntry<AccumulatorOf<T>>* end, const ChunkRange& chunk, int64_t channels,
            int64_t width,
            const T* grad,  // [boxes, bins of y, bins of x, channels]
            T* row) {       // [width, channels]
  using A = AccumulatorOf<T>;
  using Sums = Chunk<T, kVectors>;
  constexpr int kTile = kTileBytes / static_cast<int>(sizeof(Sums));
  Sums tile[kTile];
  const int64_t bins_x = plan.x().bins, bins_y = plan.y().bins;
  const int64_t num_tiles = (width + kTile - 1) / kTile;
  for (int64_t t = 0; t < num_tiles; ++t) {
    const auto left = static_cast<int32_t>(width * t / num_tiles);
    const auto right = static_cast<int32_t>(width * (t + 1) / num_tiles);
    memset(static_cast<void*>(tile), 0, sizeof(Sums) * (right - left));
    for (const auto* entry = begin; entry < end;) {
      const auto* next = entry + 1;
      while (next < end && next->box == entry->box) ++next;
      const T* of_box = grad + entry->box * bins_y * bins_x * channels + chunk.first;
      for (int64_t q = 0; q < bins_x; ++q) {
        const auto taps = plan.x().Of(entry->box, q);
        if (taps.empty() || taps.first->pixel >= right || taps.last[-1].pixel < left) continue;
        Vector<A> sums[kVectors] = {};
        for (const auto* e = entry; e < next; ++e) {
          const auto bin = Sums::Load(of_box + (e->bin * bins_x + q) * channels, chunk.count);
          for (int v = 0; v < kVectors; ++v) sums[v] += bin.vectors[v] * e->weight;
        }
        for (const auto& tap : taps) {
          if (tap.pixel < left || tap.pixel >= right) continue;
          Sums& pixel = tile[tap.pixel - left];
          for (int v = 0; v < kVectors; ++v) pixel.vectors[v] += sums[v] * tap.weight;
        }
      }
      entry = next;
    }
    for (int32_t column = left; column < right; ++column) {
      Put<kStream>(tile[column - left].vectors, chunk.count, row + column * channels + chunk.first);
    }
  }
}

template <typename T>
Status SumFeatures(const Params& params, const Context& context, const ConstBuffer& grad,
                   const ConstBuffer& boxes, const ConstBuffer& box_indices,
                   const ConstBuffer& levels, const std::vector<Buffer>& grad_features) {
  using A = AccumulatorOf<T>;
  std::vector<Shape> shapes;
  int64_t pixels = 0;
  for (const Buffer& map : grad_features) {
    shapes.push_back(map.shape);
    pixels += map.shape[0] * map.shape[1] * map.shape[2];
  }
  Plan<T, Tap<A>> plan;
  TFSEG_RETURN_IF_ERROR(plan.Make(params, context, shapes, boxes, box_indices, levels));
  const int64_t channels = grad.shape[3];
  if (pixels == 0 || channels == 0) return Status::Ok();
  RowLists<A> lists;
  TFSEG_RETURN_IF_ERROR(MakeRowLists(params, context, grad_features, plan, &lists));

  // All rows of one chunk of channels come after each other: the bins that one row reads, the next
  // one reads again.
  const Chunks<A> chunks{channels};
  const int64_t entries = lists.starts[lists.num_rows];
  const int64_t cost = (pixels + entries * 4 * plan.x().bins) / lists.num_rows * 4;
  ParallelFor(
      context.threads, chunks.count() * lists.num_rows, cost, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const ChunkRange chunk = chunks[item / lists.num_rows];
          const int64_t row = item % lists.num_rows;
          const int level =
              static_cast<int>(
                  std::upper_bound(lists.first_row, lists.first_row + params.num_levels, row) -
                  lists.first_row) -
              1;
          const Buffer& map = grad_features[level];
          const int64_t width = map.shape[2];
          T* to = map.As<T>() + (row - lists.first_row[level]) * width * channels;
          const bool stream = WorthStreaming(map.data, map.shape.num_elements() * sizeof(T),
                                             channels * static_cast<int64_t>(sizeof(T)));
          ForChunk<A>(chunk.count, [&](auto vectors) {
            constexpr int kVectors = decltype(vectors)::value;
            const auto sum = stream ? SumRow<true, kVectors, T> : SumRow<false, kVectors, T>;
            sum(plan, lists.entries + lists.starts[row], lists.entries + lists.starts[row + 1],
                chunk, channels, width, grad.As<T>(), to);
          });
        }
        StreamFence();
      });
  return Status::Ok();
}

// --- Backward to the boxes ----------------------------------------------------------------------

template <typename T>
AccumulatorOf<T> Dot(const T* a, const T* b, int64_t channels) {
  using A = AccumulatorOf<T>;
  // So many lanes whatever a register's width: every instruction level adds in the same order.
  constexpr int kDotLanes = 32;
  constexpr int kWidth = VectorOf<A>::kWidth;
  constexpr int kSums = kDotLanes / kWidth;
  Vector<A> sums[kSums] = {};
  int64_t c = 0;
  for (; c + kDotLanes <= channels; c += kDotLanes) {
    for (int v = 0; v < kSums; ++v) {
      sums[v] += LoadVectorAs<A>(a + c + v * kWidth) * LoadVectorAs<A>(b + c + v * kWidth);
    }
  }
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int v = 0; v < half; ++v) sums[v] += sums[v + half];
  }
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[0][lane] += sums[0][lane + half];
  }
  A dot = sums[0][0];
  for (; c < channels; ++c) dot += static_cast<A>(a[c]) * static_cast<A>(b[c]);
  return dot;
}

template <typename T>
Status SumBoxes(const Params& params, const Context& context, const ConstBuffer& grad,
                const std::vector<ConstBuffer>& features, const ConstBuffer& boxes,
                const ConstBuffer& box_indices, const ConstBuffer& levels,
                const Buffer& grad_boxes) {
  using A = AccumulatorOf<T>;
  Plan<T, SlopedTap<A>> plan;
  TFSEG_RETURN_IF_ERROR(plan.Make(params, context, ShapesOf(features), boxes, box_indices, levels));
  const Maps<T> maps = MapsOf<T>(features);
  const int64_t channels = maps.channels;
  const int64_t bins_y = params.output_size[0], bins_x = params.output_size[1];
  const int64_t cost = bins_y * bins_x * (channels + 20) * 4;
  std::fill_n(grad_boxes.As<A>(), 4 * plan.num_boxes(), A(0));
  int64_t num_used = 0;
  const int32_t* order = plan.InOrder(&num_used);
  ParallelFor(context.threads, num_used, cost, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t k = order[item];
      A sums[4] = {};  // y1, x1, y2, x2
      const Box<A>& box = plan.box(k);
      const int64_t row_size = maps.width[box.level] * channels;
      const T* image = maps.Image(box.level, box.image);
      for (int64_t p = 0; p < bins_y; ++p) {
        for (int64_t q = 0; q < bins_x; ++q) {
          const T* bin = grad.As<T>() + ((k * bins_y + p) * bins_x + q) * channels;
          for (const auto& y : plan.y().Of(k, p)) {
            // What has no part is left out: the pixel may be infinite.
            const auto add = [](A part, A value, A* sum) {
              if (part != A(0)) *sum += part * value;
            };
            A row = 0, row_slopes[2] = {};
            for (const auto& x : plan.x().Of(k, q)) {
              const T* pixel = image + y.pixel * row_size + x.pixel * channels;
              const A dot = Dot(bin, pixel, channels);
              add(x.weight, dot, &row);
              for (int n = 0; n < 2; ++n) add(x.slopes[n], dot, &row_slopes[n]);
            }
            for (int n = 0; n < 2; ++n) {
              add(y.slopes[n], row, &sums[2 * n]);
              add(y.weight, row_slopes[n], &sums[2 * n + 1]);
            }
          }
        }
      }
      const A scale = static_cast<A>(params.spatial_scales[box.level]) * box.share;
      for (int n = 0; n < 4; ++n) grad_boxes.As<A>()[4 * k + n] = sums[n] * scale;
    }
  });
  return Status::Ok();
}

// --- Checks -------------------------------------------------------------------------------------

// The dtypes of all that comes in; fn is called with the type of the features.
template <typename Fn>
Status Dispatch(const Params& params, const ConstBuffer& first, const char* name,
                const ConstBuffer& boxes, const ConstBuffer& box_indices, const ConstBuffer& levels,
                Fn&& fn) {
  return DispatchFloat(OpOf(params), name, first.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    TFSEG_RETURN_IF_ERROR(RequireDType(OpOf(params), "boxes", boxes.dtype, kAccumulatorDType<T>));
    TFSEG_RETURN_IF_ERROR(RequireIndices(params, "box_indices", box_indices));
    TFSEG_RETURN_IF_ERROR(RequireIndices(params, "levels", levels));
    return fn(value);
  });
}

}  // namespace

Status InferShape(const Params& params, const std::vector<Shape>& features, const Shape& boxes,
                  const Shape& box_indices, const Shape& levels, Shape* output) {
  Dims dims;
  TFSEG_RETURN_IF_ERROR(CheckFeatures(params, features, &dims));
  TFSEG_RETURN_IF_ERROR(CheckBoxes(params, boxes, box_indices, levels, &dims));
  *output = {dims.boxes.size, params.output_size[0], params.output_size[1], dims.channels.size};
  if (!output->countable()) {
    return Invalid(params, "'output_size' must fit into memory, got " +
                               Shape{params.output_size[0], params.output_size[1]}.ToString());
  }
  return Status::Ok();
}

Status InferFeaturesGradShapes(const Params& params, const Shape& grad, const Shape& boxes,
                               const Shape& box_indices, const Shape& levels,
                               const std::vector<int64_t>& sizes,
                               std::vector<Shape>* grad_features) {
  TFSEG_RETURN_IF_ERROR(CheckParams(params));
  Dims dims;
  TFSEG_RETURN_IF_ERROR(CheckGrad(params, grad, &dims));
  TFSEG_RETURN_IF_ERROR(CheckBoxes(params, boxes, box_indices, levels, &dims));
  const size_t wanted = 1 + 2 * static_cast<size_t>(params.num_levels);
  if (sizes.size() != wanted) {
    return Invalid(params, "'output_shape' must have " + std::to_string(wanted) + " numbers, got " +
                               std::to_string(sizes.size()));
  }
  grad_features->clear();
  for (int level = 0; level < params.num_levels; ++level) {
    const Shape shape{sizes[0], sizes[1 + 2 * level], sizes[2 + 2 * level], dims.channels.size};
    for (int axis = 0; axis < 3; ++axis) {
      if (shape[axis] != kUnknown && !(shape[axis] >= 0 && shape[axis] <= kMostPixels)) {
        return Invalid(params, "'output_shape' must lie in [0, 2147483647], got " +
                                   std::to_string(shape[axis]));
      }
    }
    if (!shape.countable()) {
      return Invalid(params, "'output_shape' must fit into memory, got " + shape.ToString());
    }
    grad_features->push_back(shape);
  }
  return Status::Ok();
}

Status InferBoxesGradShape(const Params& params, const Shape& grad,
                           const std::vector<Shape>& features, const Shape& boxes,
                           const Shape& box_indices, const Shape& levels, Shape* grad_boxes) {
  Dims dims;
  TFSEG_RETURN_IF_ERROR(CheckFeatures(params, features, &dims));
  TFSEG_RETURN_IF_ERROR(CheckBoxes(params, boxes, box_indices, levels, &dims));
  TFSEG_RETURN_IF_ERROR(CheckGrad(params, grad, &dims));
  *grad_boxes = {dims.boxes.size, 4};
  return Status::Ok();
}

Status Forward(const Params& params, const Context& context,
               const std::vector<ConstBuffer>& features, const ConstBuffer& boxes,
               const ConstBuffer& box_indices, const ConstBuffer& levels, const Buffer& output) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(
      InferShape(params, ShapesOf(features), boxes.shape, box_indices.shape, levels.shape, &shape));
  for (size_t level = 1; level < features.size(); ++level) {
    TFSEG_RETURN_IF_ERROR(RequireDType(OpOf(params), MapName(params, level), features[level].dtype,
                                       features[0].dtype));
  }
  HintHugePages(output.data, shape.num_elements() * SizeOf(output.dtype));
  return Dispatch(params, features[0], MapName(params, 0).c_str(), boxes, box_indices, levels,
                  [&](auto value) {
                    using T = typename decltype(value)::type;
                    return Align<T>(params, context, features, boxes, box_indices, levels, output);
                  });
}

Status BackwardToFeatures(const Params& params, const Context& context, const ConstBuffer& grad,
                          const ConstBuffer& boxes, const ConstBuffer& box_indices,
                          const ConstBuffer& levels, const std::vector<Buffer>& grad_features) {
  std::vector<int64_t> sizes = {grad_features.empty() ? 0 : grad_features[0].shape[0]};
  for (const Buffer& map : grad_features) {
    sizes.insert(sizes.end(), {map.shape[1], map.shape[2]});
    HintHugePages(map.data, map.shape.num_elements() * SizeOf(map.dtype));
  }
  std::vector<Shape> shapes;
  TFSEG_RETURN_IF_ERROR(InferFeaturesGradShapes(params, grad.shape, boxes.shape, box_indices.shape,
                                                levels.shape, sizes, &shapes));
  return Dispatch(params, grad, "grad", boxes, box_indices, levels, [&](auto value) {
    using T = typename decltype(value)::type;
    return SumFeatures<T>(params, context, grad, boxes, box_indices, levels, grad_features);
  });
}

Status BackwardToBoxes(const Params& params, const Context& context, const ConstBuffer& grad,
                       const std::vector<ConstBuffer>& features, const ConstBuffer& boxes,
                       const ConstBuffer& box_indices, const ConstBuffer& levels,
                       const Buffer& grad_boxes) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(InferBoxesGradShape(params, grad.shape, ShapesOf(features), boxes.shape,
                                            box_indices.shape, levels.shape, &shape));
  for (size_t level = 0; level < features.size(); ++level) {
    TFSEG_RETURN_IF_ERROR(
        RequireDType(OpOf(params), MapName(params, level), features[level].dtype, grad.dtype));
  }
  return Dispatch(params, grad, "grad", boxes, box_indices, levels, [&](auto value) {
    using T = typename decltype(value)::type;
    return SumBoxes<T>(params, context, grad, features, boxes, box_indices, levels, grad_boxes);
  });
}

}  // namespace tfseg::core::roi_align
