#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/gaussian_filter.h"
#include "cuda/lattice_filter.h"

namespace tfseg::cuda {
namespace {

namespace op = core::gaussian_filter;
using core::permutohedral_lattice::Geometry;
using core::permutohedral_lattice::Lattice;

constexpr char kOp[] = "gaussian_filter";

// --- Kernels ------------------------------------------------------------------------------------

// So many lanes sum the points of a vertex, each every 8th: some vertices have thousands, and in an
// order that depends on their number alone.
constexpr int kSplatLanes = 8;

// Where the points of a vertex stand in the list.
struct SplatRange {
  int64_t begin, end;
};
__device__ inline SplatRange SplatRangeOf(const LatticeImage& image, int64_t vertex) {
  if (vertex >= image.num_vertices) return {0, 0};
  const int64_t begin = image.splat_offsets[vertex], end = image.splat_offsets[vertex + 1];
  const bool legal = begin >= 0 && begin <= end && end <= image.points * image.corners;
  return legal ? SplatRange{begin, end} : SplatRange{0, 0};
}

// `lanes` is that of all packs, rounded up to whole warps.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    GaussianFilterSplatKernel(int64_t lanes, const __grid_constant__ LatticeImage image,
                              const __grid_constant__ Values values, Table<A> table) {
  constexpr int kCount = kVertexPack<A>;
  ForItems(lanes, [&](int64_t item) {
    const int64_t pack = item / kSplatLanes;
    const int64_t vertex = pack / table.packs(), c = pack % table.packs() * kCount;
    const int lane = static_cast<int>(item % kSplatLanes);
    const SplatRange range = SplatRangeOf(image, vertex);
    Pack<A, kCount> sums = {};
    for (int64_t k = range.begin + lane; k < range.end; k += kSplatLanes) {
      const int64_t point = image.splat_points[k];
      if (!(point >= 0 && point < image.points)) continue;
      const A weight = static_cast<A>(image.splat_weights[k]) * values.OfPoint<A>(point);
      for (int n = 0; n < kCount; ++n) {
        if (c + n < values.channels) sums.lanes[n] += weight * values.OfChannel<A>(point, c + n);
      }
    }
    // Lanes beyond the last vertex shuffle too.
    for (int n = 0; n < kCount; ++n) sums.lanes[n] = LanesSum(sums.lanes[n], kSplatLanes);
    if (lane == 0 && vertex < image.num_vertices) {
      StorePack<kCount>(sums, table.rows + vertex * table.stride + c);
    }
  });
}

// A thread blurs a pack of one vertex along one axis.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    GaussianFilterBlurKernel(int64_t packs, int64_t num_vertices,
                             const int32_t* neighbours,  // [bound, 2]
                             Table<A> table) {           // from its rows to its spare
  constexpr int kCount = kVertexPack<A>;
  ForItems(packs, [&](int64_t pack) {
    const int64_t vertex = pack / table.packs(), c = pack % table.packs() * kCount;
    Pack<A, kCount> sums = {};
    for (int side = 0; side < 2; ++side) {
      const int64_t neighbour = neighbours[2 * vertex + side];
      if (!(neighbour >= 0 && neighbour < num_vertices)) continue;
      const auto other = LoadPack<kCount>(table.rows + neighbour * table.stride + c);
      for (int n = 0; n < kCount; ++n) sums.lanes[n] += other.lanes[n];
    }
    const auto own = LoadPack<kCount>(table.rows + vertex * table.stride + c);
    for (int n = 0; n < kCount; ++n) sums.lanes[n] = own.lanes[n] + A(0.5) * sums.lanes[n];
    StorePack<kCount>(sums, table.spare + vertex * table.stride + c);
  });
}

// A thread slices a pack of one point.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    GaussianFilterSliceKernel(int64_t packs, const __grid_constant__ LatticeImage image,
                              Table<A> table, int64_t channels, Factor factor, core::DType dtype,
                              void* output) {  // [points, channels]
  constexpr int kCount = kVertexPack<A>;
  ForItems(packs, [&](int64_t pack) {
    const int64_t point = pack / table.packs(), c = pack % table.packs() * kCount;
    const auto sums = SlicePack(image, table.rows, table.stride, point, c);
    const A share = image.Scale<A>() * factor.At<A>(point);
    for (int n = 0; n < kCount && c + n < channels; ++n) {
      Store(sums.lanes[n] * share, output, dtype, point * channels + c + n);
    }
  });
}

// So many lanes slice one point and multiply. `lanes` is that of all points, rounded up to whole
// warps.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    GaussianFilterDotKernel(int64_t lanes, const __grid_constant__ LatticeImage image,
                            Table<A> table, const __grid_constant__ Values others, int per_point,
                            bool add,
                            A* dots) {  // [points]
  constexpr int kCount = kVertexPack<A>;
  ForItems(lanes, [&](int64_t item) {
    const int64_t point = item / per_point;
    const int lane = static_cast<int>(item % per_point);
    A dot = 0;
    for (int64_t pack = lane; point < image.points && pack < table.packs(); pack += per_point) {
      const int64_t c = pack * kCount;
      const auto sums = SlicePack(image, table.rows, table.stride, point, c);
      for (int n = 0; n < kCount && c + n < others.channels; ++n) {
        dot += sums.lanes[n] * others.OfChannel<A>(point, c + n);
      }
    }
    dot = LanesSum(dot, per_point);
    if (lane != 0 || point >= image.points) return;
    dot *= image.Scale<A>() * others.OfPoint<A>(point);
    dots[point] = add ? dots[point] + dot : dot;
  });
}

template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    GaussianFilterFeatureGradKernel(int64_t points, Feature feature,
                                    const A* of_products,   // [points]
                                    const A* of_values,     // [points]
                                    float* grad_feature) {  // that of the first point
  ForItems(points, [&](int64_t point) {
    grad_feature[point * feature.dimensions] =
        static_cast<float>(of_products[point] - feature.At<A>(point) * of_values[point]);
  });
}

// --- Launchers ----------------------------------------------------------------------------------

// Checks shapes and dtypes; calls fn(accumulator's type, lattice on the device).
template <typename Fn>
core::Status Dispatch(const Context& context, const core::ConstBuffer& values,
                      const Lattice& lattice, Fn&& fn) {
  core::Shape shape;
  Geometry geometry;
  TFSEG_RETURN_IF_ERROR(op::InferShape(values.shape, lattice.features.shape, &shape));
  TFSEG_RETURN_IF_ERROR(
      core::permutohedral_lattice::CheckLattice(kOp, "lattice", lattice, &geometry));
  return core::DispatchFloat(kOp, "values", values.dtype, [&](auto value) {
    std::vector<DeviceLattice> lattices;
    TFSEG_RETURN_IF_ERROR(ReadLattices(kOp, context, {lattice}, {geometry}, &lattices));
    return fn(core::AccumulatorOf<typename decltype(value)::type>(), lattices);
  });
}

// The part of image b of an array [batch, ...].
template <typename Data>
Data* PartOf(Data* data, core::DType dtype, int64_t b, int64_t elements) {
  using Byte = std::conditional_t<std::is_const_v<Data>, const char, char>;
  return static_cast<Byte*>(data) + b * elements * core::SizeOf(dtype);
}

}  // namespace

LatticeImage DeviceLattice::Image(int64_t b) const {
  const int64_t points = geometry.points, corners = geometry.corners(), bound = geometry.bound;
  const auto floats = [&](const core::ConstBuffer& member, int64_t elements) {
    return member.As<float>() + b * elements;
  };
  const auto indices = [&](const core::ConstBuffer& member, int64_t elements) {
    return member.As<int32_t>() + b * elements;
  };
  return {points,
          bound,
          num_vertices[b],
          static_cast<int>(corners),
          floats(members.features, points * geometry.dimensions),
          indices(members.vertices, points * corners),
          floats(members.weights, points * corners),
          indices(members.splat_points, points * corners),
          floats(members.splat_weights, points * corners),
          indices(members.splat_offsets, bound + 1),
          indices(members.neighbours, corners * bound * 2),
          floats(members.norms, points)};
}

core::Status ReadLattices(const char* op, const Context& context,
                          const std::vector<Lattice>& lattices,
                          const std::vector<Geometry>& geometries,
                          std::vector<DeviceLattice>* on_device) {
  on_device->clear();
  for (size_t k = 0; k < lattices.size(); ++k) {
    const auto batch = static_cast<size_t>(geometries[k].batch);
    on_device->push_back({lattices[k], geometries[k], std::vector<int32_t>(batch)});
    if (batch == 0) continue;
    TFSEG_RETURN_IF_ERROR(ToStatus(
        op, cudaMemcpyAsync(on_device->back().num_vertices.data(), lattices[k].num_vertices.data,
                            batch * sizeof(int32_t), cudaMemcpyDeviceToHost, context.stream)));
  }
  if (lattices.empty()) return core::Status::Ok();
  TFSEG_RETURN_IF_ERROR(ToStatus(op, cudaStreamSynchronize(context.stream)));
  for (DeviceLattice& lattice : *on_device) {
    for (int32_t& count : lattice.num_vertices) {
      if (!(count >= 0 && count <= lattice.geometry.bound)) count = 0;
    }
  }
  return core::Status::Ok();
}

template <typename A>
core::Status AllocateTable(const char* op, const Context& context,
                           const std::vector<DeviceLattice>& lattices, int64_t channels,
                           Table<A>* table) {
  int64_t most = 0;
  for (const DeviceLattice& lattice : lattices) {
    for (const int64_t count : lattice.num_vertices) most = std::max(most, count);
  }
  table->stride = (channels + kVertexPack<A> - 1) / kVertexPack<A> * kVertexPack<A>;
  TFSEG_RETURN_IF_ERROR(Allocate(op, context, most * table->stride, &table->rows));
  return Allocate(op, context, most * table->stride, &table->spare);
}

template <typename A>
core::Status Blur(const char* op, const Context& context, const LatticeImage& image,
                  const Values& values, bool reverse, Table<A>* table) {
  // Fewer channels than the table was made for make narrower rows.
  table->stride = (values.channels + kVertexPack<A> - 1) / kVertexPack<A> * kVertexPack<A>;
  const int64_t packs = image.num_vertices * table->packs();
  TFSEG_RETURN_IF_ERROR(Launch(op, GaussianFilterSplatKernel<A>, context,
                               WholeWarps(packs * kSplatLanes), image, values, *table));
  for (int n = 0; n < image.corners; ++n) {
    const int64_t axis = reverse ? image.corners - 1 - n : n;
    TFSEG_RETURN_IF_ERROR(Launch(op, GaussianFilterBlurKernel<A>, context, packs,
                                 image.num_vertices, image.neighbours + axis * image.bound * 2,
                                 *table));
    std::swap(table->rows, table->spare);
  }
  return core::Status::Ok();
}

template <typename A>
core::Status Slice(const char* op, const Context& context, const LatticeImage& image,
                   const Table<A>& table, int64_t channels, const Factor& factor, core::DType dtype,
                   void* output) {
  return Launch(op, GaussianFilterSliceKernel<A>, context, image.points * table.packs(), image,
                table, channels, factor, dtype, output);
}

template <typename A>
core::Status FilterAndDot(const char* op, const Context& context, const LatticeImage& image,
                          const Values& values, bool reverse, const Values& others, bool add,
                          Table<A>* table, A* dots) {
  TFSEG_RETURN_IF_ERROR(Blur(op, context, image, values, reverse, table));
  const int lanes = LanesFor(table->packs());
  return Launch(op, GaussianFilterDotKernel<A>, context, WholeWarps(image.points * lanes), image,
                *table, others, lanes, add, dots);
}

template <typename A>
core::Status PairsFeaturesGrad(const char* op, const Context& context, const LatticeImage& image,
                               const std::vector<FilteredPair>& pairs, bool reverse,
                               Table<A>* table, A* scratch, float* grad_features) {
  const int64_t dimensions = image.corners - 1;
  A* const of_products = scratch;
  A* const of_values = scratch + image.points;
  // The sum of both directions of all pairs: of values times a feature, or of values alone.
  const auto sum = [&](const Feature& feature, A* dots) {
    bool add = false;
    for (const FilteredPair& pair : pairs) {
      Values values = pair.values, grad = pair.grad;
      values.feature = grad.feature = feature;
      TFSEG_RETURN_IF_ERROR(
          FilterAndDot(op, context, image, values, reverse, pair.grad, add, table, dots));
      TFSEG_RETURN_IF_ERROR(
          FilterAndDot(op, context, image, grad, !reverse, pair.values, true, table, dots));
      add = true;
    }
    return core::Status::Ok();
  };
  TFSEG_RETURN_IF_ERROR(sum({}, of_values));
  for (int64_t axis = 0; axis < dimensions; ++axis) {
    const Feature feature = {image.features + axis, dimensions, image.points / 2};
    TFSEG_RETURN_IF_ERROR(sum(feature, of_products));
    TFSEG_RETURN_IF_ERROR(Launch(op, GaussianFilterFeatureGradKernel<A>, context, image.points,
                                 feature, of_products, of_values, grad_features + axis));
  }
  return core::Status::Ok();
}

#define TFSEG_INSTANTIATE(A)                                                                      \
  template core::Status AllocateTable<A>(const char*, const Context&,                             \
                                         const std::vector<DeviceLattice>&, int64_t, Table<A>*);  \
  template core::Status Blur<A>(const char*, const Context&, const LatticeImage&, const Values&,  \
                                bool, Table<A>*);                                                 \
  template core::Status Slice<A>(const char*, const Context&, const LatticeImage&,                \
                                 const Table<A>&, int64_t, const Factor&, core::DType, void*);    \
  template core::Status FilterAndDot<A>(const char*, const Context&, const LatticeImage&,         \
                                        const Values&, bool, const Values&, bool, Table<A>*, A*); \
  template core::Status PairsFeaturesGrad<A>(const char*, const Context&, const LatticeImage&,    \
                                             const std::vector<FilteredPair>&, bool, Table<A>*,   \
                                             A*, float*);
TFSEG_INSTANTIATE(float)
TFSEG_INSTANTIATE(double)
#undef TFSEG_INSTANTIATE

core::Status Forward(const op::Params& params, const Context& context,
                     const core::ConstBuffer& values, const Lattice& lattice,
                     const core::Buffer& output) {
  return Dispatch(context, values, lattice, [&](auto zero, const auto& lattices) {
    using A = decltype(zero);
    const Geometry& g = lattices[0].geometry;
    const int64_t channels = values.shape[2];
    Table<A> table;
    TFSEG_RETURN_IF_ERROR(AllocateTable(kOp, context, lattices, channels, &table));
    for (int64_t b = 0; b < g.batch; ++b) {
      const LatticeImage image = lattices[0].Image(b);
      const Values in = {PartOf(values.data, values.dtype, b, g.points * channels), values.dtype,
                         channels};
      TFSEG_RETURN_IF_ERROR(Blur(kOp, context, image, in, params.reverse, &table));
      TFSEG_RETURN_IF_ERROR(Slice(kOp, context, image, table, channels, {}, values.dtype,
                                  PartOf(output.data, values.dtype, b, g.points * channels)));
    }
    return core::Status::Ok();
  });
}

core::Status FeaturesGrad(const op::Params& params, const Context& context,
                          const core::ConstBuffer& values, const Lattice& lattice,
                          const core::ConstBuffer& grad, const core::Buffer& grad_features) {
  core::Dim batch{"batch"}, points{"points"}, channels{"channels"};
  core::ShapeChecker check(kOp);
  check.Require("values", values.shape, {&batch, &points, &channels});
  check.Require("grad", grad.shape, {&batch, &points, &channels});
  TFSEG_RETURN_IF_ERROR(check.status());
  TFSEG_RETURN_IF_ERROR(core::RequireDType(kOp, "grad", grad.dtype, values.dtype));
  return Dispatch(context, values, lattice, [&](auto zero, const auto& lattices) {
    using A = decltype(zero);
    const Geometry& g = lattices[0].geometry;
    Table<A> table;
    A* scratch;
    TFSEG_RETURN_IF_ERROR(AllocateTable(kOp, context, lattices, channels.size, &table));
    TFSEG_RETURN_IF_ERROR(Allocate(kOp, context, 2 * g.points, &scratch));
    for (int64_t b = 0; b < g.batch; ++b) {
      const auto part = [&](const core::ConstBuffer& buffer) {
        const int64_t elements = g.points * channels.size;
        return Values{PartOf(buffer.data, buffer.dtype, b, elements), buffer.dtype, channels.size};
      };
      TFSEG_RETURN_IF_ERROR(PairsFeaturesGrad(
          kOp, context, lattices[0].Image(b), {{part(values), part(grad)}}, params.reverse, &table,
          scratch, grad_features.As<float>() + b * g.points * g.dimensions));
    }
    return core::Status::Ok();
  });
}

}  // namespace tfseg::cuda
