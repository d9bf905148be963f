// What the launchers that filter on permutohedral lattices share. Kernels take one image at a time.
// An index that a lattice holds but that does not exist contributes nothing: on a device there is
// no error.
#ifndef TFSEG_CUDA_LATTICE_FILTER_H_
#define TFSEG_CUDA_LATTICE_FILTER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/permutohedral_lattice.h"
#include "cuda/launch.h"

namespace tfseg::cuda {

// --- A lattice, on the host and in kernels ------------------------------------------------------

// One image's part of the members.
struct LatticeImage {
  int64_t points, bound;
  int64_t num_vertices;  // in [0, bound]
  int corners;
  const float* features;         // [points, corners - 1]
  const int32_t* vertices;       // [points, corners]
  const float* weights;          // [points, corners]
  const int32_t* splat_points;   // [points * corners]
  const float* splat_weights;    // [points * corners]
  const int32_t* splat_offsets;  // [bound + 1]
  const int32_t* neighbours;     // [corners, bound, 2]
  const float* norms;            // [points]

  // The end of the filter: 1 / (1 + 2^-dimensions).
  template <typename A>
  __device__ A Scale() const {
    const A two = static_cast<A>(1 << (corners - 1));
    return two / (two + A(1));
  }
};

struct DeviceLattice {
  core::permutohedral_lattice::Lattice members;
  core::permutohedral_lattice::Geometry geometry;
  std::vector<int32_t> num_vertices;  // of each image; 0 where that is not in [0, bound]

  LatticeImage Image(int64_t b) const;
};

// Tables are made for just as many vertices as there are, and only the device knows: waits for the
// stream, once for all lattices. They have been checked.
core::Status ReadLattices(const char* op, const Context& context,
                          const std::vector<core::permutohedral_lattice::Lattice>& lattices,
                          const std::vector<core::permutohedral_lattice::Geometry>& geometries,
                          std::vector<DeviceLattice>* on_device);

template <typename Value>
core::Status Allocate(const char* op, const Context& context, int64_t count, Value** array) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(Value));
  *array = static_cast<Value*>(context.workspace.Allocate(bytes));
  if (*array != nullptr) return core::Status::Ok();
  return core::Status::ResourceExhausted(std::string(op) + ": no memory for " +
                                         std::to_string(bytes) + " bytes of workspace");
}

// --- Values at points ---------------------------------------------------------------------------

// An element of an array whose dtype all threads branch on alike.
template <typename A>
__device__ inline A Load(const void* data, core::DType dtype, int64_t k) {
  switch (dtype) {
    case core::DType::kFloat16:
      return static_cast<A>(static_cast<float>(static_cast<const core::Half*>(data)[k]));
    case core::DType::kBFloat16:
      return static_cast<A>(static_cast<float>(static_cast<const core::BFloat16*>(data)[k]));
    case core::DType::kFloat32:
      return static_cast<A>(static_cast<const float*>(data)[k]);
    default:
      return static_cast<A>(static_cast<const double*>(data)[k]);
  }
}

template <typename A>
__device__ inline void Store(A value, void* data, core::DType dtype, int64_t k) {
  switch (dtype) {
    case core::DType::kFloat16:
      static_cast<core::Half*>(data)[k] = core::Half(static_cast<float>(value));
      break;
    case core::DType::kBFloat16:
      static_cast<core::BFloat16*>(data)[k] = core::BFloat16(static_cast<float>(value));
      break;
    case core::DType::kFloat32:
      static_cast<float*>(data)[k] = static_cast<float>(value);
      break;
    default:
      static_cast<double*>(data)[k] = static_cast<double>(value);
  }
}

// (norm + 1e-20)^-exponent at each point; the exponent is 0, 1/2 or 1.
struct Factor {
  const float* norms = nullptr;  // [points]
  float exponent = 0;

  template <typename A>
  __device__ A At(int64_t point) const {
    if (exponent == 0.0f) return A(1);
    const A norm = static_cast<A>(norms[point]) + A(1e-20);
    return A(1) / (exponent == 1.0f ? norm : std::sqrt(norm));
  }
};

// One feature of the points of an image, from some point in its middle: differences lose no digits
// to a common part.
struct Feature {
  const float* data = nullptr;  // that of the first point
  int64_t dimensions = 0;       // from there to the next point's
  int64_t origin = 0;           // a point

  template <typename A>
  __device__ A At(int64_t point) const {
    return static_cast<A>(data[point * dimensions]) - static_cast<A>(data[origin * dimensions]);
  }
};

// Numbers times a factor, and perhaps times a feature.
struct Values {
  const void* data;  // [points, channels]; nullptr: ones
  core::DType dtype;
  int64_t channels;
  Factor factor = {};
  Feature feature = {};

  template <typename A>
  __device__ A OfPoint(int64_t point) const {
    const A share = factor.At<A>(point);
    return feature.data == nullptr ? share : share * feature.At<A>(point);
  }
  template <typename A>
  __device__ A OfChannel(int64_t point, int64_t c) const {
    return data == nullptr ? A(1) : Load<A>(data, dtype, point * channels + c);
  }
};

// --- The filter ---------------------------------------------------------------------------------

// A thread moves so many channels of a vertex at once: rows of a table are padded to them.
template <typename A>
inline constexpr int kVertexPack = kFullPack<A>;

// Values of vertices, and room for as many.
template <typename A>
struct Table {
  A* rows;  // [vertices, stride]
  A* spare;
  int64_t stride;

  TFSEG_HOST_DEVICE int64_t packs() const { return stride / kVertexPack<A>; }
};

// For any image of the lattices.
template <typename A>
core::Status AllocateTable(const char* op, const Context& context,
                           const std::vector<DeviceLattice>& lattices, int64_t channels,
                           Table<A>* table);

// Leaves in the table's rows what the values are after splat and blur.
template <typename A>
core::Status Blur(const char* op, const Context& context, const LatticeImage& image,
                  const Values& values, bool reverse, Table<A>* table);

// And what points read there, times a factor.
template <typename A>
core::Status Slice(const char* op, const Context& context, const LatticeImage& image,
                   const Table<A>& table, int64_t channels, const Factor& factor, core::DType dtype,
                   void* output);  // [points, channels]

// dots_i (+)= sum_c others_ic [filter(values)]_ic
template <typename A>
core::Status FilterAndDot(const char* op, const Context& context, const LatticeImage& image,
                          const Values& values, bool reverse, const Values& others, bool add,
                          Table<A>* table, A* dots);  // [points]

// The gradient of the sum of <grad, filter(values)> over pairs to the features, as
// core/gaussian_filter.h has it.
struct FilteredPair {
  Values values, grad;
};
template <typename A>
core::Status PairsFeaturesGrad(const char* op, const Context& context, const LatticeImage& image,
                               const std::vector<FilteredPair>& pairs, bool reverse,
                               Table<A>* table,
                               A* scratch,             // [2, points]
                               float* grad_features);  // [points, dimensions]

// --- For kernels --------------------------------------------------------------------------------

inline constexpr int kWarpLanes = 32;

// Lanes of a warp that take the packs of one point together.
inline int LanesFor(int64_t packs) {
  int lanes = 1;
  while (lanes < kWarpLanes && lanes < packs) lanes *= 2;
  return lanes;
}

inline int64_t WholeWarps(int64_t lanes) {
  return (lanes + kWarpLanes - 1) / kWarpLanes * kWarpLanes;
}

// The sum over so many lanes, a power of two; each of them gets the same bits. All lanes of a warp
// must call.
template <typename A>
__device__ inline A LanesSum(A value, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, apart);
  }
  return value;
}

template <typename A>
__device__ inline A LanesMax(A value, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) {
    const A other = __shfl_xor_sync(0xffffffffu, value, apart);
    value = other > value ? other : value;
  }
  return value;
}

// What a point reads of channels from c on, without the scale.
template <typename A>
__device__ inline Pack<A, kVertexPack<A>> SlicePack(const LatticeImage& image, const A* rows,
                                                    int64_t stride, int64_t point, int64_t c) {
  constexpr int kCount = kVertexPack<A>;
  Pack<A, kCount> sums = {};
  for (int64_t k = point * image.corners; k < (point + 1) * image.corners; ++k) {
    const int64_t vertex = image.vertices[k];
    if (!(vertex >= 0 && vertex < image.num_vertices)) continue;
    const A weight = static_cast<A>(image.weights[k]);
    const Pack<A, kCount> pack = LoadPack<kCount>(rows + vertex * stride + c);
    for (int n = 0; n < kCount; ++n) sums.lanes[n] += weight * pack.lanes[n];
  }
  return sums;
}

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_LATTICE_FILTER_H_
