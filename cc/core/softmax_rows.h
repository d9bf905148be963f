// The softmax of rows in registers: channels of a point, padded as in the tables of
// lattice_filter.h.
#ifndef TFSEG_CORE_SOFTMAX_ROWS_H_
#define TFSEG_CORE_SOFTMAX_ROWS_H_

#include <cstdint>
#include <limits>

#include "core/lattice_filter.h"
#include "core/simd.h"

namespace tfseg::core::lattice_filter {

template <typename V>
inline V Larger(const V& a, const V& b) {
  return a > b ? a : b;
}
// Columns that are no channels get no probability. counts: [unit], of the last one.
template <typename A>
TFSEG_INLINE void HidePadding(const A* counts, Vector<A>* last_unit) {
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  for (int r = 0; r < kRegisters; ++r) {
    const auto is_channel = LoadVector(counts + r * VectorOf<A>::kWidth) != A(0);
    last_unit[r] = is_channel ? last_unit[r] : Vector<A>{} + kLowest;
  }
}

// Rows of a few points. What must wait for all channels of a point is done for the points one after
// the other, so that the processor finds other points' work while it waits.
template <typename A, int kUnits>
struct SoftmaxRows {
  using R = Registers<A, kUnits>;
  static constexpr int kPoints = 8;

  alignas(kLine) A rows[kPoints * R::kNumbers];
  alignas(kLine) A sums[kPoints * kUnit<A>];
  A largest[kPoints];
  alignas(kLine) A scale[kPoints] = {};

  TFSEG_INLINE void Put(int n, const A* counts, R row) {
    constexpr int kLast = R::kCount - kRegisters;
    HidePadding(counts, row.v + kLast);
    Vector<A> fold[kRegisters];
    for (int k = 0; k < R::kCount; ++k) {
      const Vector<A> lanes = row.v[k];
      fold[k % kRegisters] = k < kRegisters ? lanes : Larger(fold[k % kRegisters], lanes);
      StoreVector<A>(lanes, rows + n * R::kNumbers + k * R::kWidth);
    }
    largest[n] = Fold<A>(fold, [](const auto& a, const auto& b) { return Larger(a, b); });
  }

  // Of the first `count` points. Then Get gives their probabilities.
  void Normalize(int count) {
    for (int n = 0; n < count; ++n) {
      Vector<A> fold[kRegisters] = {};
      for (int k = 0; k < R::kCount; ++k) {
        A* at = rows + n * R::kNumbers + k * R::kWidth;
        const Vector<A> power = ExpOfNegative(LoadVector(at) - largest[n]);
        StoreVector<A>(power, at);
        fold[k % kRegisters] += power;
      }
      for (int r = 0; r < kRegisters; ++r) {
        StoreVector<A>(fold[r], sums + n * kUnit<A> + r * R::kWidth);
      }
    }
    for (int n = 0; n < count; ++n) {
      Vector<A> fold[kRegisters];
      for (int r = 0; r < kRegisters; ++r) {
        fold[r] = LoadVector(sums + n * kUnit<A> + r * R::kWidth);
      }
      scale[n] = Fold<A>(fold, [](const auto& a, const auto& b) { return a + b; });
    }
    for (int n = 0; n < kPoints; n += R::kWidth) {
      StoreVector<A>(A(1) / LoadVector(scale + n), scale + n);
    }
  }

  TFSEG_INLINE R Get(int n) const {
    R row;
    for (int k = 0; k < R::kCount; ++k) {
      row.v[k] = LoadVector(rows + n * R::kNumbers + k * R::kWidth) * scale[n];
    }
    return row;
  }
};

// One row that is too long for registers.
template <typename A>
inline void Softmax(const A* counts, int64_t stride, A* row) {
  constexpr int kWidth = VectorOf<A>::kWidth;
  Vector<A> fold[kRegisters];
  A* last_unit = row + stride - kUnit<A>;
  for (int r = 0; r < kRegisters; ++r) fold[r] = LoadVector(last_unit + r * kWidth);
  HidePadding(counts, &fold[0]);
  for (int r = 0; r < kRegisters; ++r) StoreVector<A>(fold[r], last_unit + r * kWidth);
  for (int64_t k = 0; k < stride; k += kUnit<A>) {
    for (int r = 0; r < kRegisters; ++r) {
      fold[r] = Larger(fold[r], LoadVector(row + k + r * kWidth));
    }
  }
  const A largest = Fold<A>(fold, [](const auto& a, const auto& b) { return Larger(a, b); });
  for (auto& lanes : fold) lanes = Vector<A>{};
  for (int64_t k = 0; k < stride; k += kUnit<A>) {
    for (int r = 0; r < kRegisters; ++r) {
      A* at = row + k + r * kWidth;
      const Vector<A> power = ExpOfNegative(LoadVector(at) - largest);
      StoreVector<A>(power, at);
      fold[r] += power;
    }
  }
  const A sum = Fold<A>(fold, [](const auto& a, const auto& b) { return a + b; });
  const A inverse = A(1) / sum;
  for (int64_t k = 0; k < stride; k += kWidth) {
    StoreVector<A>(LoadVector(row + k) * inverse, row + k);
  }
}

}  // namespace tfseg::core::lattice_filter

#endif  // TFSEG_CORE_SOFTMAX_ROWS_H_
