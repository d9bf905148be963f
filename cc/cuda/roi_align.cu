#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/launch.h"
#include "cuda/roi_align.h"

namespace tfseg::cuda {
namespace {

namespace op = core::roi_align;

// --- Boxes and maps, as kernels get them --------------------------------------------------------
//
// By value, as __grid_constant__: a level picked from a copy of their arrays would lie in memory.

struct Indices {
  const void* data;  // [boxes], int32 or int64
  bool wide;

  __device__ int64_t operator[](int64_t k) const {
    return wide ? static_cast<const int64_t*>(data)[k] : static_cast<const int32_t*>(data)[k];
  }
};

template <typename A>
struct Boxes {
  const A* corners;  // [boxes, 4]
  Indices images, levels;
};

template <typename T>
struct Maps {
  T* data[op::kMaxLevels];  // each [batch, height, width, channels]
  int64_t batch, channels;
  int64_t heights[op::kMaxLevels], widths[op::kMaxLevels];
};

// Box k on its map; false if it has no such map, or no points there.
template <typename T, typename A>
__device__ inline bool FindBox(const op::Params& params, const Maps<T>& maps, const Boxes<A>& boxes,
                               int64_t k, op::Box<A>* box) {
  const int64_t image = boxes.images[k], level = boxes.levels[k];
  if (!(image >= 0 && image < maps.batch && level >= 0 && level < params.num_levels)) return false;
  *box = op::BoxOf(params, boxes.corners + 4 * k, image, static_cast<int>(level),
                   maps.heights[level], maps.widths[level]);
  return !box->empty();
}

template <typename T, typename A>
__device__ inline T* ImageOf(const Maps<T>& maps, const op::Box<A>& box) {
  return maps.data[box.level] + box.image * box.y.extent * box.x.extent * maps.channels;
}

struct Bin {
  int64_t box, p, q;
};
__device__ inline Bin BinAt(const op::Params& params, int64_t bin) {
  const int64_t row = bin / params.output_size[1];
  return {row / params.output_size[0], row % params.output_size[0], bin % params.output_size[1]};
}

// Calls fn(i, y, j, x) for the points of a bin that lie inside the map.
template <typename A, typename Fn>
__device__ inline void ForPoints(const op::Box<A>& box, const Bin& bin, Fn&& fn) {
  const op::PointRange rows = PointsInside(box.y, bin.p), columns = PointsInside(box.x, bin.q);
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const op::Sample<A> y = op::SampleAt(box.y.Position(bin.p, i), box.y.extent);
    if (!y.inside) continue;
    for (int64_t j = columns.begin; j < columns.end; ++j) {
      const op::Sample<A> x = op::SampleAt(box.x.Position(bin.q, j), box.x.extent);
      if (x.inside) fn(i, y, j, x);
    }
  }
}

// --- Forward ------------------------------------------------------------------------------------

template <int kCount, typename T, typename A>
__device__ inline void AddPack(const T* from, A weight, A (&sums)[kCount]) {
  const Pack<T, kCount> pack = LoadPack<kCount>(from);
  for (int lane = 0; lane < kCount; ++lane) sums[lane] += weight * static_cast<A>(pack.lanes[lane]);
}

// A thread averages the points of kCount channels of one bin.
template <int kCount, typename T, typename A>
__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignKernel(int64_t packs, const __grid_constant__ op::Params params,
                   const __grid_constant__ Maps<const T> maps, Boxes<A> boxes,
                   T* output) {  // [boxes, bins of y, bins of x, channels]
  const int64_t packs_per_bin = maps.channels / kCount;
  ForItems(packs, [&](int64_t pack) {
    const Bin bin = BinAt(params, pack / packs_per_bin);
    A sums[kCount] = {};
    A share = 0;
    op::Box<A> box;
    if (FindBox(params, maps, boxes, bin.box, &box)) {
      share = box.share;
      const T* image = ImageOf(maps, box) + pack % packs_per_bin * kCount;
      const int64_t right = maps.channels, down = box.x.extent * right;
      ForPoints(box, bin, [&](int64_t, const op::Sample<A>& y, int64_t, const op::Sample<A>& x) {
        // Pixels of weight zero are not read: they may hold NaN, or not be there.
        const T* at = image + y.low * down + x.low * right;
        const A weights_y[2] = {A(1) - y.fraction, y.fraction};
        const A weights_x[2] = {A(1) - x.fraction, x.fraction};
        for (int n = 0; n < 2; ++n, at += down) {
          if (weights_y[n] == A(0)) break;
          AddPack(at, weights_y[n] * weights_x[0], sums);
          if (weights_x[1] != A(0)) AddPack(at + right, weights_y[n] * weights_x[1], sums);
        }
      });
    }
    Pack<T, kCount> means;
    for (int lane = 0; lane < kCount; ++lane) {
      means.lanes[lane] = static_cast<T>(sums[lane] * share);
    }
    StorePack<kCount>(means, output + pack * kCount);
  });
}

// --- Backward to the features -------------------------------------------------------------------
//
// Each pixel is summed by the thread that writes it, over the boxes that read it, in the order of
// their numbers. The boxes are first sorted by map; each lane of a warp then looks at another box
// of the map, and all of them add those that may read any of the warp's pixels.

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The pixels that a box reads lie in [top, bottom] and [left, right]. (Sides and numbers of boxes
// fit into 32 bits.)
struct alignas(16) Footprint {
  int64_t map;  // level * batch + image; after all others where the box reads nothing
  int32_t box;
  int32_t top, bottom, left, right;
};

// False if no point lies inside the map.
template <typename A>
__device__ inline bool FindPixels(const op::Axis<A>& axis, int32_t* first, int32_t* last) {
  // Positions never turn back, neither with the bin nor with the point.
  const A begin = axis.Position(0, 0), end = axis.Position(axis.bins - 1, axis.points - 1);
  const A low = begin < end ? begin : end, high = begin < end ? end : begin;
  const A border = static_cast<A>(axis.extent);
  if (low > border || high < A(-1)) return false;
  *first = static_cast<int32_t>(op::SampleAt(low < A(-1) ? A(-1) : low, axis.extent).low);
  const op::Sample<A> sample = op::SampleAt(high > border ? border : high, axis.extent);
  *last = static_cast<int32_t>(sample.low + (sample.fraction != A(0) ? 1 : 0));
  return true;
}

template <typename T, typename A>
__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignFootprintsKernel(int64_t num_boxes, const __grid_constant__ op::Params params,
                             const __grid_constant__ Maps<T> maps, Boxes<A> boxes,
                             Footprint* footprints) {  // [boxes]
  ForItems(num_boxes, [&](int64_t k) {
    op::Box<A> box;
    Footprint f = {};
    f.map = params.num_levels * maps.batch;
    f.box = static_cast<int32_t>(k);
    if (FindBox(params, maps, boxes, k, &box) && FindPixels(box.y, &f.top, &f.bottom) &&
        FindPixels(box.x, &f.left, &f.right)) {
      f.map = box.level * maps.batch + box.image;
    }
    footprints[k] = f;
  });
}

__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignSortKernel(int64_t num_boxes,
                       const Footprint* footprints,  // [boxes]
                       Footprint* sorted) {          // [boxes], by map, then by box
  ForItems(num_boxes, [&](int64_t k) {
    const int64_t map = footprints[k].map;
    int64_t before = 0;
    for (int64_t other = 0; other < num_boxes; ++other) {
      const int64_t other_map = footprints[other].map;
      before += other_map < map || (other_map == map && other < k);
    }
    sorted[before] = footprints[k];
  });
}

// The first of [0, count) for which a test holds that from there on always holds; else `count`.
template <typename Test>
__device__ inline int64_t FirstWhere(int64_t count, Test&& test) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (test(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The positions that a pixel may be read from, on the way that the points of an axis take.
template <typename A>
struct Reach {
  A low, high;
  bool falling;

  __device__ Reach(const op::Axis<A>& axis, int64_t pixel)
      : low(static_cast<A>(pixel - 1)), high(static_cast<A>(pixel + 1)), falling(axis.bin < A(0)) {}
  __device__ bool NotBefore(A position) const {
    return falling ? position <= high : position >= low;
  }
  __device__ bool Beyond(A position) const { return falling ? position < low : position > high; }
};

// What bin p reads of a pixel, added up over its points.
template <typename A>
__device__ inline A WeightAt(const op::Axis<A>& axis, int64_t p, int64_t pixel) {
  const Reach<A> reach(axis, pixel);
  constexpr int64_t kFew = 4;
  int64_t i = 0;
  if (axis.points > kFew) {
    i = FirstWhere(axis.points,
                   [&](int64_t point) { return reach.NotBefore(axis.Position(p, point)); });
  }
  A weight = 0;
  for (; i < axis.points; ++i) {
    const A position = axis.Position(p, i);
    if (reach.Beyond(position)) break;
    const op::Sample<A> sample = op::SampleAt(position, axis.extent);
    if (!sample.inside) continue;
    if (sample.low == pixel) weight += A(1) - sample.fraction;
    if (sample.low + 1 == pixel) weight += sample.fraction;
  }
  return weight;
}

// The bins [begin, end) outside of which none reads the pixel.
struct BinRange {
  int64_t begin, end;
};
template <typename A>
__device__ inline BinRange BinsAt(const op::Axis<A>& axis, int64_t pixel) {
  const Reach<A> reach(axis, pixel);
  return {FirstWhere(axis.bins,
                     [&](int64_t p) { return reach.NotBefore(axis.Position(p, axis.points - 1)); }),
          FirstWhere(axis.bins, [&](int64_t p) { return reach.Beyond(axis.Position(p, 0)); })};
}

// Adds what one box gives to kCount channels of a pixel.
template <int kCount, typename T, typename A>
__device__ inline void AddBox(const op::Box<A>& box, int64_t row, int64_t column, int64_t channels,
                              const T* grad,  // [bins of y, bins of x, channels]
                              A (&sums)[kCount]) {
  constexpr int kColumns = 4;
  const BinRange rows = BinsAt(box.y, row), columns = BinsAt(box.x, column);
  for (int64_t begin = columns.begin; begin < columns.end; begin += kColumns) {
    A column_weights[kColumns];
    for (int n = 0; n < kColumns; ++n) {
      const int64_t q = begin + n;
      column_weights[n] = q < columns.end ? WeightAt(box.x, q, column) * box.share : A(0);
    }
    for (int64_t p = rows.begin; p < rows.end; ++p) {
      const A row_weight = WeightAt(box.y, p, row);
      if (row_weight == A(0)) continue;
      const T* from = grad + (p * box.x.bins + begin) * channels;
      for (int n = 0; n < kColumns; ++n) {
        const A column_weight = column_weights[n];
        if (column_weight != A(0)) AddPack(from + n * channels, row_weight * column_weight, sums);
      }
    }
  }
}

// A thread sums kCount channels of one pixel of one level. `lanes` is the number of packs, rounded
// up to whole warps.
template <int kCount, typename T, typename A>
__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignFeaturesGradKernel(int64_t lanes, const __grid_constant__ op::Params params,
                               const __grid_constant__ Maps<T> maps, int level, int64_t num_boxes,
                               const T* grad,     // [boxes, bins of y, bins of x, channels]
                               const A* corners,  // [boxes, 4]
                               const Footprint* sorted) {  // [boxes]
  const auto height = static_cast<int32_t>(maps.heights[level]);
  const auto width = static_cast<int32_t>(maps.widths[level]);
  const int64_t packs_per_pixel = maps.channels / kCount;
  const int64_t packs = maps.batch * height * width * packs_per_pixel;
  const int64_t grad_per_box = params.output_size[0] * params.output_size[1] * maps.channels;
  ForItems(lanes, [&](int64_t item) {
    // Lanes beyond the last pack look for boxes too.
    const int64_t pack = item < packs ? item : packs - 1;
    const int64_t channel = pack % packs_per_pixel * kCount;
    const int64_t pixel = pack / packs_per_pixel;
    const int64_t image = pixel / width / height;
    const int64_t map = level * maps.batch + image;
    const auto row = static_cast<int32_t>(pixel / width % height);
    const auto column = static_cast<int32_t>(pixel % width);
    // The warp's pixels follow each other.
    const int64_t first_map = __shfl_sync(kAllLanes, map, 0);
    const int64_t last_map = __shfl_sync(kAllLanes, map, kWarp - 1);
    int32_t top = __shfl_sync(kAllLanes, row, 0);
    int32_t bottom = __shfl_sync(kAllLanes, row, kWarp - 1);
    int32_t left = __shfl_sync(kAllLanes, column, 0);
    int32_t right = __shfl_sync(kAllLanes, column, kWarp - 1);
    if (first_map != last_map || top != bottom) left = 0, right = width - 1;
    if (first_map != last_map) top = 0, bottom = height - 1;

    A sums[kCount] = {};
    const int lane = static_cast<int>(item % kWarp);
    bool more = true;
    int64_t n =
        FirstWhere(num_boxes, [&](int64_t other) { return sorted[other].map >= first_map; });
    for (; __all_sync(kAllLanes, more); n += kWarp) {
      bool near = false;
      more = n + lane < num_boxes;
      if (more) {
        const Footprint f = sorted[n + lane];
        more = f.map <= last_map;
        near = more && f.top <= bottom && f.bottom >= top && f.left <= right && f.right >= left;
      }
      for (unsigned found = __ballot_sync(kAllLanes, near); found != 0; found &= found - 1) {
        const Footprint f = sorted[n + __ffs(static_cast<int>(found)) - 1];
        if (f.map != map || row < f.top || row > f.bottom || column < f.left || column > f.right) {
          continue;
        }
        const op::Box<A> box =
            op::BoxOf(params, corners + int64_t{4} * f.box, image, level, height, width);
        AddBox(box, row, column, maps.channels, grad + f.box * grad_per_box + channel, sums);
      }
    }
    if (item >= packs) return;
    Pack<T, kCount> result;
    for (int k = 0; k < kCount; ++k) result.lanes[k] = static_cast<T>(sums[k]);
    StorePack<kCount>(result, maps.data[level] + pack * kCount);
  });
}

// --- Backward to the boxes ----------------------------------------------------------------------
//
// A warp for each bin, then one for each box, adds in an order that depends on sizes alone.

// The sum over the lanes of a warp, all of which must call.
template <typename A>
__device__ inline A WarpSum(A value) {
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, apart);
  }
  return value;
}

template <int kCount, typename T, typename A>
__device__ inline A DotPack(const Pack<T, kCount>& pack, const T* from) {
  const Pack<T, kCount> other = LoadPack<kCount>(from);
  A dot = 0;
  for (int lane = 0; lane < kCount; ++lane) {
    dot += static_cast<A>(pack.lanes[lane]) * static_cast<A>(other.lanes[lane]);
  }
  return dot;
}

// What dot(grad, sample) grows by where a point moves by one pixel along y, and along x.
template <typename A>
struct Slopes {
  A y, x;
};
template <int kCount, typename T, typename A>
__device__ inline Slopes<A> SlopesAt(const op::Sample<A>& y, const op::Sample<A>& x, int lane,
                                     int64_t width, int64_t channels,
                                     const T* grad,     // [channels]
                                     const T* image) {  // [height, width, channels]
  if (!y.moves && !x.moves) return {A(0), A(0)};
  const bool down = y.fraction != A(0), right = x.fraction != A(0);
  const bool across = (y.moves && right) || (x.moves && down);
  const T* here = image + (y.low * width + x.low) * channels;
  A dots[2][2] = {};
  for (int64_t channel = lane * kCount; channel < channels; channel += kWarp * kCount) {
    const Pack<T, kCount> pack = LoadPack<kCount>(grad + channel);
    const T* at = here + channel;
    const T* below = at + width * channels;
    dots[0][0] += DotPack<kCount, T, A>(pack, at);
    if (x.moves) dots[0][1] += DotPack<kCount, T, A>(pack, at + channels);
    if (y.moves) dots[1][0] += DotPack<kCount, T, A>(pack, below);
    if (across) dots[1][1] += DotPack<kCount, T, A>(pack, below + channels);
  }
  // Products of weight zero are left out: the pixels may hold NaN, or not have been read.
  Slopes<A> slopes = {A(0), A(0)};
  if (y.moves) slopes.y = (dots[1][0] - dots[0][0]) * (A(1) - x.fraction);
  if (y.moves && right) slopes.y += (dots[1][1] - dots[0][1]) * x.fraction;
  if (x.moves) slopes.x = (dots[0][1] - dots[0][0]) * (A(1) - y.fraction);
  if (x.moves && down) slopes.x += (dots[1][1] - dots[1][0]) * y.fraction;
  return slopes;
}

// A warp takes one bin, its lanes the channels.
template <int kCount, typename T, typename A>
__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignBinsGradKernel(int64_t lanes, const __grid_constant__ op::Params params,
                           const __grid_constant__ Maps<const T> maps, Boxes<A> boxes,
                           const T* grad,  // [boxes, bins of y, bins of x, channels]
                           A* partials) {  // [boxes, bins of y, bins of x, 4]
  ForItems(lanes, [&](int64_t item) {
    const int lane = static_cast<int>(item % kWarp);
    const Bin bin = BinAt(params, item / kWarp);
    const T* upstream = grad + item / kWarp * maps.channels;
    A corners[4] = {};
    op::Box<A> box;
    if (FindBox(params, maps, boxes, bin.box, &box)) {
      const T* image = ImageOf(maps, box);
      ForPoints(box, bin,
                [&](int64_t i, const op::Sample<A>& y, int64_t j, const op::Sample<A>& x) {
                  const Slopes<A> slopes =
                      SlopesAt<kCount>(y, x, lane, box.x.extent, maps.channels, upstream, image);
                  const A share_y = box.y.Share(bin.p, i), share_x = box.x.Share(bin.q, j);
                  corners[0] += slopes.y * (A(1) - share_y);
                  corners[1] += slopes.x * (A(1) - share_x);
                  corners[2] += slopes.y * share_y;
                  corners[3] += slopes.x * share_x;
                });
      const A scale = box.share * static_cast<A>(params.spatial_scales[box.level]);
      for (int n = 0; n < 4; ++n) corners[n] *= scale;
    }
    for (int n = 0; n < 4; ++n) {
      const A sum = WarpSum(corners[n]);
      if (lane == 0) partials[item / kWarp * 4 + n] = sum;
    }
  });
}

// A warp takes one box.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    RoiAlignBoxesGradKernel(int64_t lanes, int64_t bins_per_box,
                            const A* partials,  // [boxes, bins, 4]
                            A* grad_boxes) {    // [boxes, 4]
  ForItems(lanes, [&](int64_t item) {
    const int lane = static_cast<int>(item % kWarp);
    const int64_t k = item / kWarp;
    A corners[4] = {};
    for (int64_t bin = lane; bin < bins_per_box; bin += kWarp) {
      const A* from = partials + 4 * (k * bins_per_box + bin);
      for (int n = 0; n < 4; ++n) corners[n] += from[n];
    }
    for (int n = 0; n < 4; ++n) {
      const A sum = WarpSum(corners[n]);
      if (lane == 0) grad_boxes[4 * k + n] = sum;
    }
  });
}

// --- Launchers ----------------------------------------------------------------------------------

template <typename Map>
std::vector<core::Shape> ShapesOf(const std::vector<Map>& maps) {
  std::vector<core::Shape> shapes;
  for (const Map& map : maps) shapes.push_back(map.shape);
  return shapes;
}

template <typename T, typename Map>
Maps<T> MapsOf(const std::vector<Map>& buffers) {
  Maps<T> maps = {};
  maps.batch = buffers[0].shape[0];
  maps.channels = buffers[0].shape[3];
  for (size_t level = 0; level < buffers.size(); ++level) {
    maps.data[level] = buffers[level].template As<T>();
    maps.heights[level] = buffers[level].shape[1];
    maps.widths[level] = buffers[level].shape[2];
  }
  return maps;
}

core::Status RequireFeatures(const op::Params& params,
                             const std::vector<core::ConstBuffer>& features, core::DType wanted) {
  for (size_t level = 0; level < features.size(); ++level) {
    const std::string place = features.size() > 1 ? "[" + std::to_string(level) + "]" : "";
    TFSEG_RETURN_IF_ERROR(
        RequireDType(OpOf(params), "features" + place, features[level].dtype, wanted));
  }
  return core::Status::Ok();
}

// Checks the other dtypes; calls fn with the type of `first` and with the boxes.
template <typename Buffer, typename Fn>
core::Status Dispatch(const op::Params& params, const char* argument, const Buffer& first,
                      const core::ConstBuffer& boxes, const core::ConstBuffer& box_indices,
                      const core::ConstBuffer& levels, Fn&& fn) {
  const auto index = [&](const char* name, const core::ConstBuffer& buffer, Indices* indices) {
    *indices = {buffer.data, buffer.dtype == core::DType::kInt64};
    return core::DispatchIndex(OpOf(params), name, buffer.dtype,
                               [](auto) { return core::Status::Ok(); });
  };
  return core::DispatchFloat(OpOf(params), argument, first.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    using A = core::AccumulatorOf<T>;
    TFSEG_RETURN_IF_ERROR(
        RequireDType(OpOf(params), "boxes", boxes.dtype, core::kAccumulatorDType<T>));
    Boxes<A> on_device = {boxes.As<A>(), {}, {}};
    TFSEG_RETURN_IF_ERROR(index("box_indices", box_indices, &on_device.images));
    TFSEG_RETURN_IF_ERROR(index("levels", levels, &on_device.levels));
    return fn(value, on_device);
  });
}

// Calls fn with the number of channels that a thread takes at once from maps and bins.
template <typename T, typename Map, typename Fn>
core::Status WithPacks(const Maps<Map>& maps, const T* bins, Fn&& fn) {
  constexpr int kCount = kFullPack<T>;
  bool fits = FitsPacks<kCount>(maps.channels, bins);
  for (const T* map : maps.data) fits = fits && FitsPacks<kCount>(maps.channels, map);
  return fits ? fn(std::integral_constant<int, kCount>()) : fn(std::integral_constant<int, 1>());
}

template <typename Value>
core::Status Allocate(const op::Params& params, const Context& context, int64_t count,
                      Value** array) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(Value));
  *array = static_cast<Value*>(context.workspace.Allocate(bytes));
  if (*array != nullptr) return core::Status::Ok();
  return core::Status::ResourceExhausted(std::string(OpOf(params)) + ": no memory for " +
                                         std::to_string(bytes) + " bytes of workspace");
}

// The boxes by map, then by number; nullptr for no boxes.
template <typename T, typename A>
core::Status SortBoxes(const op::Params& params, const Context& context, const Maps<T>& maps,
                       const Boxes<A>& boxes, int64_t num_boxes, Footprint** sorted) {
  *sorted = nullptr;
  if (num_boxes == 0) return core::Status::Ok();
  Footprint* footprints = nullptr;
  TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes, &footprints));
  TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes, sorted));
  TFSEG_RETURN_IF_ERROR(Launch(OpOf(params), RoiAlignFootprintsKernel<T, A>, context, num_boxes,
                               params, maps, boxes, footprints));
  return Launch(OpOf(params), RoiAlignSortKernel, context, num_boxes, footprints, *sorted);
}

}  // namespace

core::Status Forward(const op::Params& params, const Context& context,
                     const std::vector<core::ConstBuffer>& features, const core::ConstBuffer& boxes,
                     const core::ConstBuffer& box_indices, const core::ConstBuffer& levels,
                     const core::Buffer& output) {
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(op::InferShape(params, ShapesOf(features), boxes.shape, box_indices.shape,
                                       levels.shape, &shape));
  TFSEG_RETURN_IF_ERROR(RequireFeatures(params, features, features[0].dtype));
  const auto align = [&](auto value, const auto& on_device) {
    using T = typename decltype(value)::type;
    using A = core::AccumulatorOf<T>;
    const auto maps = MapsOf<const T>(features);
    return WithPacks(maps, output.As<T>(), [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      return Launch(OpOf(params), RoiAlignKernel<kCount, T, A>, context,
                    shape.num_elements() / kCount, params, maps, on_device, output.As<T>());
    });
  };
  const char* first = features.size() > 1 ? "features[0]" : "features";
  return Dispatch(params, first, features[0], boxes, box_indices, levels, align);
}

core::Status BackwardToFeatures(const op::Params& params, const Context& context,
                                const core::ConstBuffer& grad, const core::ConstBuffer& boxes,
                                const core::ConstBuffer& box_indices,
                                const core::ConstBuffer& levels,
                                const std::vector<core::Buffer>& grad_features) {
  std::vector<int64_t> sizes = {grad_features.empty() ? 0 : grad_features[0].shape[0]};
  for (const core::Buffer& map : grad_features) {
    sizes.insert(sizes.end(), {map.shape[1], map.shape[2]});
  }
  std::vector<core::Shape> shapes;
  TFSEG_RETURN_IF_ERROR(op::InferFeaturesGradShapes(
      params, grad.shape, boxes.shape, box_indices.shape, levels.shape, sizes, &shapes));
  const auto sum = [&](auto value, const auto& on_device) {
    using T = typename decltype(value)::type;
    using A = core::AccumulatorOf<T>;
    const auto maps = MapsOf<T>(grad_features);
    Footprint* sorted;
    TFSEG_RETURN_IF_ERROR(SortBoxes(params, context, maps, on_device, boxes.shape[0], &sorted));
    return WithPacks(maps, grad.As<T>(), [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      for (int level = 0; level < params.num_levels; ++level) {
        const int64_t packs = shapes[level].num_elements() / kCount;
        TFSEG_RETURN_IF_ERROR(Launch(OpOf(params), RoiAlignFeaturesGradKernel<kCount, T, A>,
                                     context, (packs + kWarp - 1) / kWarp * kWarp, params, maps,
                                     level, boxes.shape[0], grad.As<T>(), on_device.corners,
                                     sorted));
      }
      return core::Status::Ok();
    });
  };
  return Dispatch(params, "grad", grad, boxes, box_indices, levels, sum);
}

core::Status BackwardToBoxes(const op::Params& params, const Context& context,
                             const core::ConstBuffer& grad,
                             const std::vector<core::ConstBuffer>& features,
                             const core::ConstBuffer& boxes, const core::ConstBuffer& box_indices,
                             const core::ConstBuffer& levels, const core::Buffer& grad_boxes) {
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(op::InferBoxesGradShape(params, grad.shape, ShapesOf(features), boxes.shape,
                                                box_indices.shape, levels.shape, &shape));
  TFSEG_RETURN_IF_ERROR(RequireFeatures(params, features, grad.dtype));
  const int64_t num_boxes = shape[0];
  const int64_t bins_per_box = params.output_size[0] * params.output_size[1];
  const auto sum = [&](auto value, const auto& on_device) {
    using T = typename decltype(value)::type;
    using A = core::AccumulatorOf<T>;
    if (num_boxes == 0) return core::Status::Ok();
    const auto maps = MapsOf<const T>(features);
    A* partials;
    TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes * bins_per_box * 4, &partials));
    TFSEG_RETURN_IF_ERROR(WithPacks(maps, grad.As<T>(), [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      return Launch(OpOf(params), RoiAlignBinsGradKernel<kCount, T, A>, context,
                    num_boxes * bins_per_box * kWarp, params, maps, on_device, grad.As<T>(),
                    partials);
    }));
    return Launch(OpOf(params), RoiAlignBoxesGradKernel<A>, context, num_boxes * kWarp,
                  bins_per_box, partials, grad_boxes.As<A>());
  };
  return Dispatch(params, "grad", grad, boxes, box_indices, levels, sum);
}

}  // namespace tfseg::cuda
