// What the tests of the filters share: drawn lattices, which are none of any points but have all
// that a filter follows, and the filter by plain loops in double precision.
#ifndef TFSEG_TESTS_CUDA_LATTICE_TEST_H_
#define TFSEG_TESTS_CUDA_LATTICE_TEST_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/permutohedral_lattice.h"
#include "cuda/launch_test.h"

namespace tfseg::test {

using core::permutohedral_lattice::Geometry;
using core::permutohedral_lattice::Lattice;

// ThreadSanitizer sees races whatever the size, and takes its time.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kSmall = true;
#else
inline constexpr bool kSmall = false;
#endif

inline core::DType AccumulatorOf(core::DType dtype) {
  return dtype == core::DType::kFloat64 ? core::DType::kFloat64 : core::DType::kFloat32;
}

inline double Get(Array& array, int64_t k) {
  double number = 0;
  WithFloat(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    number = static_cast<double>(static_cast<core::AccumulatorOf<T>>(array.As<T>()[k]));
  });
  return number;
}
inline void Set(Array& array, int64_t k, double number) {
  WithFloat(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    array.As<T>()[k] = static_cast<T>(static_cast<core::AccumulatorOf<T>>(number));
  });
}

inline bool SameBits(Array& a, Array& b) {
  const auto bytes = static_cast<size_t>(a.size() * core::SizeOf(a.dtype()));
  return a.dtype() == b.dtype() && a.size() == b.size() &&
         (bytes == 0 || std::memcmp(a.In().data, b.In().data, bytes) == 0);
}

inline std::vector<double> NumbersOf(Array& array) {
  std::vector<double> numbers(static_cast<size_t>(array.size()));
  for (size_t k = 0; k < numbers.size(); ++k) numbers[k] = Get(array, static_cast<int64_t>(k));
  return numbers;
}

// Numbers that differ by no more than the rounding of sums in the accumulator of `dtype`, the
// largest part of which is `magnitude`, and that of their own dtype can explain.
inline bool Near(Array& actual, const std::vector<double>& wanted, core::DType dtype,
                 double magnitude = 0) {
  if (static_cast<size_t>(actual.size()) != wanted.size()) return false;
  const double sums = dtype == core::DType::kFloat64 ? 1e-12 : 2e-5;
  const double rounding = actual.dtype() == core::DType::kFloat16    ? 1e-3
                          : actual.dtype() == core::DType::kBFloat16 ? 8e-3
                          : actual.dtype() == core::DType::kFloat32  ? 1e-6
                                                                     : 0;
  for (const double number : wanted) {
    if (std::isfinite(number)) magnitude = std::max(magnitude, std::fabs(number));
  }
  bool near = true;
  for (int64_t k = 0; k < actual.size(); ++k) {
    const double x = Get(actual, k), y = wanted[static_cast<size_t>(k)];
    near =
        near && (x == y || (x != x && y != y) ||
                 std::fabs(x - y) <= rounding * std::fabs(y) + sums * magnitude + 1e-7 * rounding);
  }
  return near;
}

// All members of a lattice.
struct Members {
  Geometry g;
  Array features, vertices, weights, splat_points, splat_weights, splat_offsets, neighbours, norms,
      num_vertices;

  explicit Members(const Geometry& g)
      : g(g),
        features(core::DType::kFloat32, {g.batch, g.points, g.dimensions}),
        vertices(core::DType::kInt32, {g.batch, g.points, g.corners()}),
        weights(core::DType::kFloat32, vertices.shape()),
        splat_points(core::DType::kInt32, {g.batch, g.points * g.corners()}),
        splat_weights(core::DType::kFloat32, splat_points.shape()),
        splat_offsets(core::DType::kInt32, {g.batch, g.bound + 1}),
        neighbours(core::DType::kInt32, {g.batch, g.corners(), g.bound, 2}),
        norms(core::DType::kFloat32, {g.batch, g.points}),
        num_vertices(core::DType::kInt32, {g.batch}) {}

  Lattice In() const {
    return {features.In(),     vertices.In(),      weights.In(),
            splat_points.In(), splat_weights.In(), splat_offsets.In(),
            neighbours.In(),   norms.In(),         num_vertices.In()};
  }
  core::permutohedral_lattice::Members<core::Buffer> Out() {
    return {features.Out(),     vertices.Out(),      weights.Out(),
            splat_points.Out(), splat_weights.Out(), splat_offsets.Out(),
            neighbours.Out(),   norms.Out(),         num_vertices.Out()};
  }
};

// --- Drawn lattices -----------------------------------------------------------------------------

inline void DrawImage(Draw& draw, int64_t b, Members* m) {
  const int64_t corners = m->g.corners(), bound = m->g.bound, entries = m->g.points * corners;
  const int64_t count = bound == 0 ? 0 : draw.Number(entries > 0 ? 1 : 0, bound);
  m->num_vertices.As<int32_t>()[b] = static_cast<int32_t>(count);
  std::vector<std::vector<int64_t>> entries_of(static_cast<size_t>(count));
  for (int64_t k = b * entries; k < (b + 1) * entries; ++k) {
    Set(m->weights, k, static_cast<double>(draw.Number(0, 64)) / 64);
    m->vertices.As<int32_t>()[k] = -1;
    if (count == 0) continue;
    // Some vertices have most of the points.
    const int64_t vertex = draw.Number(0, draw.Coin(3) ? count - 1 : (count - 1) / 4);
    m->vertices.As<int32_t>()[k] = static_cast<int32_t>(vertex);
    entries_of[static_cast<size_t>(vertex)].push_back(k);
  }
  int64_t next = b * entries;
  for (int64_t vertex = 0; vertex <= bound; ++vertex) {
    m->splat_offsets.As<int32_t>()[b * (bound + 1) + vertex] =
        static_cast<int32_t>(next - b * entries);
    if (vertex >= count) continue;
    for (const int64_t k : entries_of[static_cast<size_t>(vertex)]) {
      m->splat_points.As<int32_t>()[next] = static_cast<int32_t>((k - b * entries) / corners);
      Set(m->splat_weights, next++, Get(m->weights, k));
    }
  }
  // Of vertices that are not there, whatever was in memory stays.
  for (int64_t axis = 0; axis < corners; ++axis) {
    for (int64_t k = 0; k < 2 * count; ++k) {
      m->neighbours.As<int32_t>()[(b * corners + axis) * bound * 2 + k] =
          static_cast<int32_t>(draw.Coin() ? -1 : draw.Number(0, count - 1));
    }
  }
}

inline void DrawLattice(Draw& draw, Members* m) {
  for (int64_t k = 0; k < m->features.size(); ++k) {
    Set(m->features, k, 100 + static_cast<double>(draw.Number(-4096, 4096)) / 1024);
  }
  for (int64_t k = 0; k < m->norms.size(); ++k) {
    Set(m->norms, k, draw.Coin(20) ? 0.0 : static_cast<double>(draw.Number(16, 256)) / 64);
  }
  for (int64_t b = 0; b < m->g.batch; ++b) DrawImage(draw, b, m);
}

// Of few points.
inline Geometry DrawGeometry(Draw& draw) {
  const int64_t points = draw.Number(1, kSmall ? 6 : 20);
  const int64_t dimensions = draw.Number(1, draw.Coin(4) && !kSmall ? 8 : 3);
  const int64_t most = std::min<int64_t>(points * (dimensions + 1), kSmall ? 12 : 40);
  return {draw.Number(1, 2), points, dimensions, draw.Number(1, most)};
}

// Makes some of the indices name what is not there.
inline void Corrupt(Draw& draw, Members* m) {
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  const auto corrupt = [&](Array& array, int64_t size, bool negative) {
    for (int64_t k = 0; k < array.size(); ++k) {
      const int32_t wrong[] = {static_cast<int32_t>(size), kMost, negative ? -1 : kMost,
                               negative ? -kMost - 1 : -2};
      if (draw.Coin(6)) array.As<int32_t>()[k] = wrong[draw.Number(0, 3)];
    }
  };
  corrupt(m->vertices, m->g.bound, true);
  corrupt(m->neighbours, m->g.bound, false);
  corrupt(m->splat_points, m->g.points, true);
  corrupt(m->splat_offsets, m->g.points * m->g.corners() + 1, true);
  if (draw.Coin(3)) corrupt(m->num_vertices, m->g.bound + 1, true);
}

// --- The filter, by plain loops -----------------------------------------------------------------

// What point i gets of point j in image b: [points, points]. What does not exist gives nothing.
inline std::vector<double> FilterMatrix(Members& m, int64_t b, bool reverse) {
  const int64_t n = m.g.points, corners = m.g.corners(), bound = m.g.bound, entries = n * corners;
  const auto at = [](Array& array, int64_t k) { return int64_t{array.As<int32_t>()[k]}; };
  const auto row = [&](std::vector<double>& table, int64_t vertex) { return &table[vertex * n]; };
  int64_t count = at(m.num_vertices, b);
  if (count < 0 || count > bound) count = 0;
  std::vector<double> table(static_cast<size_t>(count * n) + 1);
  for (int64_t vertex = 0; vertex < count; ++vertex) {
    const int64_t begin = at(m.splat_offsets, b * (bound + 1) + vertex);
    const int64_t end = at(m.splat_offsets, b * (bound + 1) + vertex + 1);
    if (begin < 0 || begin > end || end > entries) continue;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t point = at(m.splat_points, b * entries + k);
      if (point < 0 || point >= n) continue;
      row(table, vertex)[point] += Get(m.splat_weights, b * entries + k);
    }
  }
  for (int64_t step = 0; step < corners; ++step) {
    const int64_t axis = reverse ? corners - 1 - step : step;
    std::vector<double> blurred = table;
    for (int64_t k = 0; k < 2 * count; ++k) {
      const int64_t other = at(m.neighbours, (b * corners + axis) * bound * 2 + k);
      if (other < 0 || other >= count) continue;
      for (int64_t j = 0; j < n; ++j) row(blurred, k / 2)[j] += 0.5 * row(table, other)[j];
    }
    table = std::move(blurred);
  }
  std::vector<double> matrix(static_cast<size_t>(n * n));
  for (int64_t k = 0; k < entries; ++k) {
    const int64_t vertex = at(m.vertices, b * entries + k);
    if (vertex < 0 || vertex >= count) continue;
    const double weight =
        Get(m.weights, b * entries + k) / (1 + std::ldexp(1, -static_cast<int>(m.g.dimensions)));
    for (int64_t j = 0; j < n; ++j) matrix[k / corners * n + j] += weight * row(table, vertex)[j];
  }
  return matrix;
}

// matrix times [points, channels]
inline std::vector<double> Apply(const std::vector<double>& matrix, int64_t points,
                                 const std::vector<double>& values) {
  const int64_t channels = points == 0 ? 0 : static_cast<int64_t>(values.size()) / points;
  std::vector<double> result(values.size());
  for (int64_t i = 0; i < points; ++i) {
    for (int64_t j = 0; j < points; ++j) {
      for (int64_t c = 0; c < channels; ++c) {
        result[i * channels + c] += matrix[i * points + j] * values[j * channels + c];
      }
    }
  }
  return result;
}

// Adds the gradient of <grad, filter(values)> to the features of image b, as
// core/gaussian_filter.h has it. Returns the size of what it adds up.
inline double AddFeaturesGrad(Members& m, int64_t b, const std::vector<double>& filter,
                              const std::vector<double>& transpose,
                              const std::vector<double>& values, const std::vector<double>& grad,
                              double* to) {  // [points, dimensions]
  const int64_t n = m.g.points, dimensions = m.g.dimensions;
  const int64_t channels = n == 0 ? 0 : static_cast<int64_t>(values.size()) / n;
  double size = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double of_pair = 0, size_of_pair = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const double one = grad[i * channels + c] * filter[i * n + j] * values[j * channels + c];
        const double other =
            values[i * channels + c] * transpose[i * n + j] * grad[j * channels + c];
        of_pair += one + other;
        size_of_pair += std::fabs(one) + std::fabs(other);
      }
      for (int64_t a = 0; a < dimensions; ++a) {
        const double apart = Get(m.features, (b * n + j) * dimensions + a) -
                             Get(m.features, (b * n + i) * dimensions + a);
        to[i * dimensions + a] += of_pair * apart;
      }
      size = std::max(size, 8 * size_of_pair);  // features lie in a box of this side
    }
  }
  return size;
}

}  // namespace tfseg::test

#endif  // TFSEG_TESTS_CUDA_LATTICE_TEST_H_
