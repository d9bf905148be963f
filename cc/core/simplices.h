// Where points of feature space lie in the permutohedral lattice: the simplices around them, and
// keys for its vertices.
//
// Points are placed on the plane of D + 1 coordinates whose sum is 0. The lattice's vertices are
// the whole points c of that plane whose coordinates are all the same modulo D + 1; that remainder
// is the vertex's color. Each step along an axis j of the blur adds 1 to all coordinates and takes
// D + 1 from the j-th. Steps along the first D axes make a basis of the lattice: in it, c has the
// coordinates (c_D - c_i) / (D + 1). A step adds 1 to one of these, or, along the last axis, takes
// 1 from all.
#ifndef TFSEG_CORE_SIMPLICES_H_
#define TFSEG_CORE_SIMPLICES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/permutohedral_lattice.h"
#include "core/simd.h"
#include "core/vertex_table.h"

namespace tfseg::core::permutohedral_lattice {

// The factors of the features, Adams, Baek & Davis 2010, section 3.1, times the standard deviation
// of splat, blur and slice together, sqrt(2 / 3) (D + 1).
template <int D>
struct Scales {
  float of[D];

  Scales() {
    const auto sdev = static_cast<float>(std::sqrt(2.0 / 3.0) * (D + 1));
    for (int k = 0; k < D; ++k) {
      of[k] = static_cast<float>(sdev / std::sqrt(static_cast<double>((k + 1) * (k + 2))));
    }
  }
};

// The simplices around a vector of points: the vertex of remainder 0 in the basis, and, for each
// coordinate, its rank among the point's differences from that vertex, and the difference.
template <int D>
struct Simplices {
  static constexpr int kWidth = VectorOf<float>::kWidth;
  int32_t nearest[D][kWidth];
  int32_t ranks[D + 1][kWidth];
  float heights[D + 1][kWidth];

  Simplices(const Scales<D>& scales, const float* features,  // [count, D]
            int count) {
    using V = Vector<float>;
    using Ints = Vector<int32_t>;
    constexpr float kCorners = D + 1;
    constexpr float kDown = 1.0f / kCorners;
    constexpr float kRound = 12582912.0f;  // adding it leaves a whole number in the last bits
    float lanes[D][kWidth] = {};
    for (int lane = 0; lane < count; ++lane) {
      for (int k = 0; k < D; ++k) lanes[k][lane] = features[lane * D + k];
    }

    V elevated[D + 1];
    V sum{};
    for (int j = D; j > 0; --j) {
      const V scaled = LoadVector(lanes[j - 1]) * scales.of[j - 1];
      elevated[j] = sum - static_cast<float>(j) * scaled;
      sum += scaled;
    }
    elevated[0] = sum;

    // Round to the nearest vertex of remainder 0, which may leave the plane by `excess`.
    Ints quotients[D + 1];
    V residues[D + 1];
    Ints excess{};
    for (int i = 0; i <= D; ++i) {
      const V rounded = elevated[i] * kDown + kRound;
      quotients[i] = reinterpret_cast<Ints>(rounded) - 0x4b400000;
      excess += quotients[i];
      residues[i] = elevated[i] - (rounded - kRound) * kCorners;
    }
    Ints rank[D + 1];
    for (int i = 0; i <= D; ++i) rank[i] = excess;
    for (int i = 0; i < D; ++i) {
      for (int j = i + 1; j <= D; ++j) {
        const Ints less = residues[i] < residues[j];
        rank[i] -= less;
        rank[j] += less + 1;
      }
    }
    // Those that were rounded farthest go the other way.
    for (int i = 0; i <= D; ++i) {
      const Ints wrap = (rank[i] > D) - (rank[i] < 0);
      rank[i] += wrap * (D + 1);
      quotients[i] += wrap;
      const V vertex = __builtin_convertvector(quotients[i], V) * kCorners;
      StoreVector(rank[i], ranks[i]);
      StoreVector<float>((elevated[i] - vertex) * kDown, heights[i]);
    }
    for (int i = 0; i < D; ++i) StoreVector<int32_t>(quotients[D] - quotients[i], nearest[i]);
  }
};

// Features of a part of an image.
struct Range {
  float lowest[kMostDimensions], highest[kMostDimensions];

  void Clear() {
    std::fill(lowest, lowest + kMostDimensions, std::numeric_limits<float>::max());
    std::fill(highest, highest + kMostDimensions, std::numeric_limits<float>::lowest());
  }
  void Add(int k, float low, float high) {
    lowest[k] = std::min(lowest[k], low);
    highest[k] = std::max(highest[k], high);
  }
};

// Returns whether all features are legal.
template <int D>
inline bool FindRange(const float* features, int64_t num_points, Range* range) {
  using V = Vector<float>;
  constexpr int kWidth = VectorOf<float>::kWidth;
  range->Clear();
  // D registers hold whole points.
  V lowest[D], highest[D];
  Vector<int32_t> legal[D];
  for (int k = 0; k < D; ++k) {
    lowest[k] = V{} + std::numeric_limits<float>::max();
    highest[k] = V{} + std::numeric_limits<float>::lowest();
    legal[k] = ~Vector<int32_t>{};
  }
  int64_t n = 0;
  for (; n + kWidth <= num_points; n += kWidth) {
    for (int k = 0; k < D; ++k) {
      const V f = LoadVector(features + n * D + k * kWidth);
      lowest[k] = f < lowest[k] ? f : lowest[k];
      highest[k] = f > highest[k] ? f : highest[k];
      legal[k] &= (f >= -kLargestFeature) & (f <= kLargestFeature);
    }
  }
  bool all = true;
  for (int k = 0; k < D; ++k) {
    all = all && AllSet(legal[k]);
    for (int lane = 0; lane < kWidth; ++lane) {
      range->Add((k * kWidth + lane) % D, lowest[k][lane], highest[k][lane]);
    }
  }
  for (int64_t element = n * D; element < num_points * D; ++element) {
    const float f = features[element];
    all = all && std::abs(f) <= kLargestFeature;
    range->Add(static_cast<int>(element % D), f, f);
  }
  return all;
}

// Where the vertices of an image and their neighbours lie, in the basis, and so their numbers in
// row-major order: its keys.
struct Box {
  int32_t low[kMostDimensions];
  WideKey strides[kMostDimensions];
  WideKey volume;
};

// Returns false where keys would need more than 128 bits.
template <int D>
inline bool FindBox(const Range& range, Box* box) {
  const Scales<D> scales;
  box->volume = 1;
  for (int i = 0; i < D; ++i) {
    // Of (E_D - E_i) / (D + 1), where E is a point on the plane.
    double low = 0, high = 0;
    for (int k = i; k <= D; ++k) {
      if (k == 0) continue;
      const double factor = scales.of[k - 1] * (k == D ? -1.0 : (k == i ? i : -1.0) / (D + 1));
      const double a = factor * range.lowest[k - 1], b = factor * range.highest[k - 1];
      low += std::min(a, b);
      high += std::max(a, b);
    }
    // One for the distance of a vertex, one for its neighbour, one for rounding.
    box->low[i] = static_cast<int32_t>(std::floor(low)) - 3;
    const auto size = static_cast<WideKey>(static_cast<int32_t>(std::ceil(high)) + 4 - box->low[i]);
    box->strides[i] = box->volume;
    if (__builtin_mul_overflow(box->volume, size, &box->volume)) return false;
  }
  return true;
}

// What a step along each axis adds to a key.
template <int D, typename Key>
struct Steps {
  Key of[D + 1];

  explicit Steps(const Box& box) {
    of[D] = 0;
    for (int i = 0; i < D; ++i) {
      of[i] = static_cast<Key>(box.strides[i]);
      of[D] -= of[i];
    }
  }
};

}  // namespace tfseg::core::permutohedral_lattice

#endif  // TFSEG_CORE_SIMPLICES_H_
