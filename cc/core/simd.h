// Vector helpers. Loops over channels run in lanes of at most kLanes, small enough for the
// first-level cache and written so that the compiler turns them into vector code of the level it
// builds for.
#ifndef TFSEG_CORE_SIMD_H_
#define TFSEG_CORE_SIMD_H_

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/dtypes.h"
#include "core/status.h"

namespace tfseg::core {

// The instruction set that this copy of the library was compiled for: "x86-64-v3", "x86-64" or
// "generic".
TFSEG_API const char* Level();

inline constexpr int kLanes = 64;

// Which elements of an image a group of lanes takes: channels of one pixel, or, where channels are
// few, all channels of several pixels that stand `step` elements apart. Without the second, a loop
// over the three channels of a photograph would spend its time on starting.
struct LaneLayout {
  int pixels;              // of a group; 1: lanes are neighbours
  int32_t offset[kLanes];  // of each lane from the first

  LaneLayout(int64_t channels, int64_t step) : pixels(1) {
    constexpr int64_t kFewChannels = 16;
    constexpr int64_t kMaxStep = std::numeric_limits<int32_t>::max() / kLanes;
    if (channels > 0 && channels < kFewChannels && step <= kMaxStep) {
      pixels = kLanes / static_cast<int>(channels);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      offset[lane] =
          pixels == 1 ? lane : static_cast<int32_t>(lane / channels * step + lane % channels);
    }
  }
};

template <typename T>
inline void LoadLanes(const T* from, int count, AccumulatorOf<T>* to) {
  if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
    memcpy(to, from, sizeof(T) * count);
  } else {
    int lane = 0;
#if defined(__F16C__) && defined(__AVX__)
    if constexpr (std::is_same_v<T, Half>) {
      for (; lane + 8 <= count; lane += 8) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + lane));
        _mm256_storeu_ps(to + lane, _mm256_cvtph_ps(halves));
      }
    }
#endif
    for (; lane < count; ++lane) to[lane] = static_cast<float>(from[lane]);
  }
}

template <typename T>
inline void StoreLanes(const AccumulatorOf<T>* from, int count, T* to) {
  if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
    memcpy(to, from, sizeof(T) * count);
  } else {
    int lane = 0;
#if defined(__F16C__) && defined(__AVX__)
    if constexpr (std::is_same_v<T, Half>) {
      for (; lane + 8 <= count; lane += 8) {
        const __m128i halves =
            _mm256_cvtps_ph(_mm256_loadu_ps(from + lane), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + lane), halves);
      }
    }
#endif
    for (; lane < count; ++lane) to[lane] = T(from[lane]);
  }
}

}  // namespace tfseg::core

#endif  // TFSEG_CORE_SIMD_H_
