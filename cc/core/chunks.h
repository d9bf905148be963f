// Channels, in chunks of registers that stay registers through a loop over pixels.
#ifndef TFSEG_CORE_CHUNKS_H_
#define TFSEG_CORE_CHUNKS_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/simd.h"

namespace tfseg::core {

inline constexpr int kChunkVectors = 8;

// Registers full of neighbouring channels in the accumulator's type; with `count`, part of one.
template <typename T, int kVectors>
struct Chunk {
  using A = AccumulatorOf<T>;
  static constexpr int kWidth = VectorOf<A>::kWidth;
  Vector<A> vectors[kVectors];

  static Chunk Load(const T* from, int count) {
    Chunk chunk;
    if (kVectors == 1 && count < kWidth) {
      T lanes[kWidth] = {};
      for (int lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
      chunk.vectors[0] = LoadVectorAs<A>(lanes);
    } else {
      for (int k = 0; k < kVectors; ++k) chunk.vectors[k] = LoadVectorAs<A>(from + k * kWidth);
    }
    return chunk;
  }
};

// Chunks that together cover all channels: full ones, then single registers, the last one in part.
struct ChunkRange {
  int64_t first;
  int count;
};
template <typename A>
struct Chunks {
  static constexpr int kWidth = VectorOf<A>::kWidth;
  static constexpr int kFull = kChunkVectors * kWidth;
  int64_t channels;

  int64_t num_full() const { return channels / kFull; }
  int64_t count() const { return num_full() + (channels % kFull + kWidth - 1) / kWidth; }
  ChunkRange operator[](int64_t index) const {
    if (index < num_full()) return {index * kFull, kFull};
    const int64_t first = num_full() * kFull + (index - num_full()) * kWidth;
    return {first, static_cast<int>(std::min<int64_t>(kWidth, channels - first))};
  }
};

template <int kVectors>
using VectorCount = std::integral_constant<int, kVectors>;

// Calls fn(VectorCount<...>) for the size of a chunk.
template <typename A, typename Fn>
inline void ForChunk(int count, Fn&& fn) {
  if (count == Chunks<A>::kFull) {
    fn(VectorCount<kChunkVectors>());
  } else {
    fn(VectorCount<1>());
  }
}

// Asks for a whole chunk to be brought into the second-level cache.
template <int kVectors, typename T>
inline void Prefetch(const T* from) {
  if constexpr (kVectors == kChunkVectors) {
    constexpr int kBytes = kVectors * VectorOf<AccumulatorOf<T>>::kWidth * int{sizeof(T)};
    for (int byte = 0; byte < kBytes; byte += kLine) {
      __builtin_prefetch(reinterpret_cast<const uint8_t*>(from) + byte, 0, 2);
    }
  }
}

template <bool kStream, typename T, int kVectors>
inline void Put(const Vector<AccumulatorOf<T>> (&vectors)[kVectors], int count, T* to) {
  using A = AccumulatorOf<T>;
  constexpr int kWidth = VectorOf<A>::kWidth;
  if constexpr (std::is_same_v<T, A> && kVectors == kChunkVectors) {
    for (int k = 0; k < kVectors; ++k) {
      if constexpr (kStream) {
        StreamVector<A>(vectors[k], to + k * kWidth);
      } else {
        StoreVector<A>(vectors[k], to + k * kWidth);
      }
    }
  } else {
    A lanes[kVectors * kWidth];
    for (int k = 0; k < kVectors; ++k) StoreVector<A>(vectors[k], lanes + k * kWidth);
    if constexpr (kStream && kVectors == kChunkVectors) {
      alignas(kLine) T narrow[kVectors * kWidth];
      StoreLanes(lanes, kVectors * kWidth, narrow);
      StreamLines<kVectors * kWidth>(narrow, to);
    } else {
      StoreLanes(lanes, count, to);
    }
  }
}

}  // namespace tfseg::core

#endif  // TFSEG_CORE_CHUNKS_H_
