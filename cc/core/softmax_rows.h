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

// Rows of a few points, of kUnits units or, where that is 0, of any length. What must wait for all
// channels of a point is done for the points one after the other, so that the processor finds other
// points' work while it waits.
template <typename A, int kUnits>
struct SoftmaxRows {
  using R = Registers<A, kUnits>;
  static constexpr int kPoints = 8;
  static constexpr int kWidth = VectorOf<A>::kWidth;

  A* const rows;  // [kPoints, stride], scratch memory
  const int64_t stride;
  alignas(kLine) A sums[kPoints * kUnit<A>];
  A largest[kPoints];
  alignas(kLine) A scale[kPoints] = {};

  SoftmaxRows(A* rows, int64_t stride) : rows(rows), stride(stride) {}

  // What the compiler knows of the stride.
  TFSEG_INLINE int64_t size() const { return kUnits == 0 ? stride : kUnits * kUnit<A>; }
  TFSEG_INLINE A* row(int n) const { return rows + n * size(); }

  TFSEG_INLINE void Put(int n, const A* counts, R registers) {
    constexpr int kLast = R::kCount - kRegisters;
    HidePadding(counts, registers.v + kLast);
    Vector<A> fold[kRegisters];
    for (int k = 0; k < R::kCount; ++k) {
      const Vector<A> lanes = registers.v[k];
      fold[k % kRegisters] = k < kRegisters ? lanes : Larger(fold[k % kRegisters], lanes);
      StoreVector<A>(lanes, row(n) + k * kWidth);
    }
    largest[n] = Fold<A>(fold, [](const auto& a, const auto& b) { return Larger(a, b); });
  }

  // Of a row that is in memory already.
  void Put(int n, const A* counts) {
    A* const from = row(n);
    A* const last_unit = from + size() - kUnit<A>;
    Vector<A> fold[kRegisters];
    for (int r = 0; r < kRegisters; ++r) fold[r] = LoadVector(last_unit + r * kWidth);
    HidePadding(counts, fold);
    for (int r = 0; r < kRegisters; ++r) StoreVector<A>(fold[r], last_unit + r * kWidth);
    for (int64_t k = 0; k < size(); k += kUnit<A>) {
      for (int r = 0; r < kRegisters; ++r) {
        fold[r] = Larger(fold[r], LoadVector(from + k + r * kWidth));
      }
    }
    largest[n] = Fold<A>(fold, [](const auto& a, const auto& b) { return Larger(a, b); });
  }

  // Of the first `count` points. Then a row times scale[n] is its probabilities.
  void Normalize(int count) {
    for (int n = 0; n < count; ++n) {
      Vector<A> fold[kRegisters] = {};
      for (int64_t k = 0; k < size(); k += kUnit<A>) {
        for (int r = 0; r < kRegisters; ++r) {
          A* at = row(n) + k + r * kWidth;
          const Vector<A> power = ExpOfNegative(LoadVector(at) - largest[n]);
          StoreVector<A>(power, at);
          fold[r] += power;
        }
      }
      for (int r = 0; r < kRegisters; ++r) {
        StoreVector<A>(fold[r], sums + n * kUnit<A> + r * kWidth);
      }
    }
    for (int n = 0; n < count; ++n) {
      Vector<A> fold[kRegisters];
      for (int r = 0; r < kRegisters; ++r) {
        fold[r] = LoadVector(sums + n * kUnit<A> + r * kWidth);
      }
      scale[n] = Fold<A>(fold, [](const auto& a, const auto& b) { return a + b; });
    }
    for (int n = 0; n < kPoints; n += kWidth) {
      StoreVector<A>(A(1) / LoadVector(scale + n), scale + n);
    }
  }

  TFSEG_INLINE R Get(int n) const {
    R registers;
    for (int k = 0; k < R::kCount; ++k) {
      registers.v[k] = LoadVector(row(n) + k * kWidth) * scale[n];
    }
    return registers;
  }
};

}  // namespace tfseg::core::lattice_filter

#endif  // TFSEG_CORE_SOFTMAX_ROWS_H_
