// The gradient of a filter to the features of its lattice, for one image: what the ops that filter
// have in common.
#ifndef TFSEG_CORE_LATTICE_FEATURES_GRAD_H_
#define TFSEG_CORE_LATTICE_FEATURES_GRAD_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/lattice_filter.h"

namespace tfseg::core::lattice_filter {

// The loss  sum over points of  a_i <u_i, mix [K (b v)]_i>. With a or b nullptr they are 1.
template <typename TU, typename TV>
struct Loss {
  using A = AccumulatorOf<TV>;
  Rows<TU> u;
  const A* a;  // [points]
  Rows<TV> v;
  const A* b;                   // [points]
  Mixing<A> mixing, transpose;  // with the filter's scale
  bool reverse;                 // K is blurred in reverse order
};

// Scratch memory of FeaturesGradOf and NormsFeaturesGradOf, for one image.
template <typename A>
struct FeaturesScratch {
  A* sums;       // [points, dimensions]: the result
  A* scale;      // [points]
  A* totals[2];  // [points]: a_i <u_i, mix [K (b v)]_i> and b_i <v_i, mix^T [K^T (a u)]_i>
  A* position;   // [points, dimensions + 1]: 1, then the features from the middle of their box
  A* counts;     // [max(stride, stride of dimensions + 1)]: 1 for columns that are channels
  A* tables[2];  // [vertices + 1, max(stride, stride of dimensions + 1)]

  static int64_t Stride(int64_t channels, int64_t dimensions) {
    return Columns<A>{std::max(channels, dimensions + 1)}.stride();
  }
  bool Allocate(const Context& context, int64_t points, int64_t dimensions, int64_t most_vertices,
                int64_t channels) {
    const int64_t stride = Stride(channels, dimensions), rows = most_vertices + 1;
    const int64_t of_points = points * (2 * dimensions + 4) + kUnit<A>;
    auto* memory = static_cast<A*>(context.workspace.Allocate(
        (stride * (1 + 2 * rows) + of_points) * static_cast<int64_t>(sizeof(A))));
    if (memory == nullptr) return false;
    for (A*& table : tables) {
      table = memory;
      memory += stride * rows;
    }
    counts = memory;
    sums = counts + stride;
    scale = sums + points * dimensions;
    totals[0] = scale + points;
    totals[1] = totals[0] + points;
    position = totals[1] + points;
    return true;
  }
};

// Differences of features lose no digits to their common part.
template <typename A>
void CentreFeatures(const Image& image, A* position) {
  const int64_t dimensions = image.corners - 1;
  for (int64_t axis = 0; axis < dimensions; ++axis) {
    float low = image.points > 0 ? image.features[axis] : 0.0f;
    float high = low;
    for (int64_t point = 0; point < image.points; ++point) {
      const float feature = image.features[point * dimensions + axis];
      low = std::min(low, feature);
      high = std::max(high, feature);
    }
    const A middle = (A(low) + A(high)) / 2;
    for (int64_t point = 0; point < image.points; ++point) {
      position[point * (dimensions + 1) + axis + 1] =
          A(image.features[point * dimensions + axis]) - middle;
    }
  }
  for (int64_t point = 0; point < image.points; ++point) position[point * (dimensions + 1)] = 1;
}

// Of each point in [begin, end): <row, what it reads in the table>. `sink(point, product)` takes
// it.
template <typename T, typename Sink>
void DotSliced(const Table<AccumulatorOf<T>>& table, const Rows<T>& rows,
               const AccumulatorOf<T>* counts, int64_t begin, int64_t end, Sink&& sink) {
  using A = AccumulatorOf<T>;
  using R = Registers<A, 1>;
  const Columns<A> columns{rows.channels};
  for (int64_t point = begin; point < end; ++point) {
    R sums{};
    columns.ForChunks([&](int64_t column, auto units) {
      constexpr int kUnits = units();
      using Wide = Registers<A, kUnits>;
      const auto row = LoadChunk<A, kUnits>(rows, point, column, rows.Wide(column, Wide::kNumbers));
      Wide sliced{};
      SliceOnto<A, kUnits>(table, point, column, columns.stride(), &sliced);
      for (int k = 0; k < Wide::kCount; ++k) {
        const auto is_channel = LoadVector(counts + column + k * R::kWidth) != A(0);
        sums.v[k % kRegisters] += is_channel ? row.v[k] * sliced.v[k] : Vector<A>{};
      }
    });
    sink(point, Fold<A>(sums.v, [](const auto& a, const auto& b) { return a + b; }));
  }
}

// Writes the gradient to scratch.sums, and the totals. The channels of one filter at a time, so
// that memory does not grow with the dimensions: d + 1 filters in each direction.
template <typename TU, typename TV>
void FeaturesGradOf(const Context& context, const Image& image, const Loss<TU, TV>& loss,
                    FeaturesScratch<AccumulatorOf<TV>>* scratch) {
  using A = AccumulatorOf<TV>;
  const int64_t dimensions = image.corners - 1, points = image.points;
  const Columns<A> columns{loss.v.channels};
  const int64_t cost = image.corners * columns.units() + 4;
  CentreFeatures(image, scratch->position);
  std::fill(scratch->sums, scratch->sums + points * dimensions, A(0));
  for (int64_t k = 0; k < columns.stride(); ++k) scratch->counts[k] = A(k < columns.channels);
  const auto filter = [&](const auto& from, const A* from_scale, const auto& to, const A* to_scale,
                          const Mixing<A>& mixing, bool reverse, A* totals) {
    for (int64_t n = 0; n <= dimensions; ++n) {
      // n = 0: the values themselves; then times the feature of each axis.
      for (int64_t point = 0; point < points; ++point) {
        const A position = scratch->position[point * (dimensions + 1) + n];
        scratch->scale[point] = from_scale == nullptr ? position : from_scale[point] * position;
      }
      Splat(context, from, {{&image, scratch->scale, scratch->tables[0]}});
      BlurAndMix(context, image, columns, reverse, mixing, &scratch->tables[0],
                 &scratch->tables[1]);
      ParallelFor(context.threads, points, cost, [&](int64_t begin, int64_t end) {
        const Table<A> table{&image, to_scale, scratch->tables[0]};
        DotSliced(table, to, scratch->counts, begin, end, [&](int64_t point, A product) {
          A* sums = scratch->sums + point * dimensions;
          if (n > 0) {
            sums[n - 1] += product;
            return;
          }
          totals[point] = product;
          const A* position = scratch->position + point * (dimensions + 1) + 1;
          for (int64_t axis = 0; axis < dimensions; ++axis) {
            sums[axis] -= position[axis] * product;
          }
        });
      });
    }
  };
  filter(loss.v, loss.b, loss.u, loss.a, loss.mixing, loss.reverse, scratch->totals[0]);
  filter(loss.u, loss.a, loss.v, loss.b, loss.transpose, !loss.reverse, scratch->totals[1]);
}

// Adds the gradient of the loss  sum over points of  z_i [K 1]_i  to scratch.sums. The positions
// are there. `diagonal`: the filter's scale for all columns.
template <typename A>
void AddNormsFeaturesGradOf(const Context& context, const Image& image, const A* z,
                            const A* diagonal, FeaturesScratch<A>* scratch) {
  const int64_t dimensions = image.corners - 1;
  const Columns<A> columns{dimensions + 1};
  const Rows<A> rows{scratch->position, image.points, dimensions + 1, dimensions + 1,
                     image.points * (dimensions + 1) + kUnit<A>};
  const int64_t cost = image.corners * columns.units() + 4 * dimensions;
  for (const bool reverse : {false, true}) {
    Splat(context, rows, {{&image, reverse ? z : nullptr, scratch->tables[0]}});
    BlurAndMix(context, image, columns, reverse, Mixing<A>{diagonal, nullptr}, &scratch->tables[0],
               &scratch->tables[1]);
    const Table<A> table{&image, reverse ? nullptr : z, scratch->tables[0]};
    ParallelFor(context.threads, image.points, cost, [&](int64_t begin, int64_t end) {
      columns.ForChunks([&](int64_t column, auto units) {
        constexpr int kUnits = units();
        using R = Registers<A, kUnits>;
        static_assert(R::kNumbers <= 64, "as many as a chunk has");
        for (int64_t point = begin; point < end; ++point) {
          R sliced{};
          SliceOnto<A, kUnits>(table, point, column, columns.stride(), &sliced);
          A lanes[R::kNumbers];
          StoreChunk<A, kUnits>(sliced, R::kNumbers, lanes);
          A* sums = scratch->sums + point * dimensions;
          const A* position = scratch->position + point * (dimensions + 1) + 1;
          // At most 9 columns: one chunk, whose first is that of ones.
          for (int64_t axis = 0; axis < dimensions; ++axis) {
            sums[axis] += lanes[axis + 1] - position[axis] * lanes[0];
          }
        }
      });
    });
  }
}

}  // namespace tfseg::core::lattice_filter

#endif  // TFSEG_CORE_LATTICE_FEATURES_GRAD_H_
