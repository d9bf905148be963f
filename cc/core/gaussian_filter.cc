#include "core/gaussian_filter.h"

#include <algorithm>
#include <string>

#include "core/lattice_features_grad.h"
#include "core/lattice_filter.h"

namespace tfseg::core::gaussian_filter {
namespace {

using lattice_filter::Columns;
using lattice_filter::Faults;
using lattice_filter::Image;
using lattice_filter::Lattice;
using lattice_filter::Registers;
using lattice_filter::Rows;
using lattice_filter::RowsOf;

constexpr char kOp[] = "gaussian_filter";

Status OutOfMemory(int64_t channels) {
  return Status::ResourceExhausted(std::string(kOp) + ": no memory for vertices of " +
                                   std::to_string(channels) + " channels");
}

// Channels [column, column + units) of one image, of which `table` and `spare` have no others.
template <typename T, int kUnits>
void FilterChunk(const Params& params, const Context& context, const Image& image,
                 const Rows<T>& values, int64_t column, const AccumulatorOf<T>* diagonal,
                 AccumulatorOf<T>* table, AccumulatorOf<T>* spare, T* output) {
  using A = AccumulatorOf<T>;
  using R = Registers<A, kUnits>;
  const int64_t channels = values.channels;
  const int64_t count = std::min<int64_t>(R::kNumbers, channels - column);
  const Columns<A> columns{count};
  lattice_filter::Splat<T>(context, values.Part(column, count), {{&image, nullptr, table}});
  lattice_filter::BlurAndMix<A>(context, image, columns, params.reverse, {diagonal, nullptr},
                                &table, &spare);
  const lattice_filter::Table<A> blurred{&image, nullptr, table};
  const int64_t cost = image.corners * kUnits + 4, stride = columns.stride();
  ParallelFor(context.threads, image.points, cost, [&](int64_t begin, int64_t end) {
    // What a whole chunk writes too much is the beginning of the next point, which comes after it.
    const int64_t last_whole = count == channels ? end * channels - R::kNumbers : -1;
    for (int64_t point = begin; point < end; ++point) {
      R sums{};
      lattice_filter::SliceOnto<A, kUnits>(blurred, point, 0, stride, &sums);
      const int64_t at = point * channels + column;
      lattice_filter::StoreChunk<T, kUnits>(sums, at <= last_whole ? R::kNumbers : count,
                                            output + at);
    }
  });
}

template <typename T>
Status Filter(const Params& params, const Context& context, const ConstBuffer& values,
              const Lattice& lattice, const lattice_filter::Geometry& g, const Buffer& output,
              Faults* faults) {
  using A = AccumulatorOf<T>;
  const int64_t channels = values.shape[2];
  const Columns<A> columns{channels};
  const int64_t width =
      std::min<int64_t>(lattice_filter::kChunkUnits, columns.units()) * lattice_filter::kUnit<A>;
  const int64_t table_size = (lattice_filter::MostVertices(lattice, g) + 1) * width;
  const int64_t bytes = (2 * table_size + width) * static_cast<int64_t>(sizeof(A));
  auto* table = static_cast<A*>(context.workspace.Allocate(bytes));
  if (table == nullptr) return OutOfMemory(width);
  HintHugePages(table, bytes);
  A* const diagonal = table + 2 * table_size;
  std::fill(diagonal, diagonal + width, lattice_filter::ScaleOf<A>(g.dimensions));
  for (int64_t b = 0; b < g.batch; ++b) {
    const Image image(lattice, g, 0, b, faults);
    columns.ForChunks([&](int64_t column, auto units) {
      if (faults->any()) return;
      FilterChunk<T, units()>(params, context, image, RowsOf<T>(values, b), column, diagonal, table,
                              table + table_size, output.As<T>() + b * g.points * channels);
    });
    if (faults->any()) break;
  }
  return Status::Ok();
}

template <typename T>
Status DifferentiateFeatures(const Params& params, const Context& context,
                             const ConstBuffer& values, const Lattice& lattice,
                             const lattice_filter::Geometry& g, const ConstBuffer& grad,
                             const Buffer& grad_features, Faults* faults) {
  using A = AccumulatorOf<T>;
  const int64_t channels = values.shape[2];
  lattice_filter::FeaturesScratch<A> scratch;
  if (!scratch.Allocate(context, g.points, g.dimensions, lattice_filter::MostVertices(lattice, g),
                        channels)) {
    return OutOfMemory(channels);
  }
  const int64_t stride = Columns<A>{channels}.stride();
  auto* diagonal =
      static_cast<A*>(context.workspace.Allocate(stride * static_cast<int64_t>(sizeof(A))));
  if (diagonal == nullptr) return OutOfMemory(channels);
  std::fill(diagonal, diagonal + stride, lattice_filter::ScaleOf<A>(g.dimensions));
  for (int64_t b = 0; b < g.batch && !faults->any(); ++b) {
    const Image image(lattice, g, 0, b, faults);
    const lattice_filter::Loss<T, T> loss{
        RowsOf<T>(grad, b),  nullptr,       RowsOf<T>(values, b), nullptr, {diagonal, nullptr},
        {diagonal, nullptr}, params.reverse};
    lattice_filter::FeaturesGradOf(context, image, loss, &scratch);
    float* to = grad_features.As<float>() + b * g.points * g.dimensions;
    for (int64_t k = 0; k < g.points * g.dimensions; ++k) {
      to[k] = static_cast<float>(scratch.sums[k]);
    }
  }
  return Status::Ok();
}

// Checks, then calls fn(TypeTag<T>(), geometry, faults) unless there is nothing to compute.
template <typename Fn>
Status Run(const ConstBuffer& values, const Lattice& lattice, Fn&& fn) {
  Shape output;
  TFSEG_RETURN_IF_ERROR(InferShape(values.shape, lattice.features.shape, &output));
  lattice_filter::Geometry g;
  TFSEG_RETURN_IF_ERROR(permutohedral_lattice::CheckLattice(kOp, "lattice", lattice, &g));
  Faults faults;
  TFSEG_RETURN_IF_ERROR(DispatchFloat(kOp, "values", values.dtype, [&](auto value) {
    return values.shape.num_elements() == 0 ? Status::Ok() : fn(value, g, &faults);
  }));
  return faults.ToStatus(kOp, &lattice, false);
}

}  // namespace

Status InferShape(const Shape& values, const Shape& features, Shape* output) {
  Dim batch{"batch"}, points{"points"}, channels{"channels"}, dimensions{"dimensions"};
  ShapeChecker check(kOp);
  check.Require("values", values, {&batch, &points, &channels});
  check.Require("features", features, {&batch, &points, &dimensions});
  *output = {batch.size, points.size, channels.size};
  return check.status();
}

Status Forward(const Params& params, const Context& context, const ConstBuffer& values,
               const Lattice& lattice, const Buffer& output) {
  HintHugePages(output.data, output.shape.num_elements() * SizeOf(output.dtype));
  return Run(values, lattice, [&](auto value, const lattice_filter::Geometry& g, Faults* faults) {
    using T = typename decltype(value)::type;
    return Filter<T>(params, context, values, lattice, g, output, faults);
  });
}

Status FeaturesGrad(const Params& params, const Context& context, const ConstBuffer& values,
                    const Lattice& lattice, const ConstBuffer& grad, const Buffer& grad_features) {
  Dim batch{"batch"}, points{"points"}, channels{"channels"};
  ShapeChecker check(kOp);
  check.Require("values", values.shape, {&batch, &points, &channels});
  check.Require("grad", grad.shape, {&batch, &points, &channels});
  TFSEG_RETURN_IF_ERROR(check.status());
  TFSEG_RETURN_IF_ERROR(RequireDType(kOp, "grad", grad.dtype, values.dtype));
  float* to = grad_features.As<float>();
  std::fill(to, to + grad_features.shape.num_elements(), 0.0f);
  return Run(values, lattice, [&](auto value, const lattice_filter::Geometry& g, Faults* faults) {
    using T = typename decltype(value)::type;
    return DifferentiateFeatures<T>(params, context, values, lattice, g, grad, grad_features,
                                    faults);
  });
}

}  // namespace tfseg::core::gaussian_filter
