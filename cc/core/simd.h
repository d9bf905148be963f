// Vector helpers. Loops over channels run in lanes of at most kLanes, small enough for the
// first-level cache and written so that the compiler turns them into vector code of the level it
// builds for.
#ifndef TFSEG_CORE_SIMD_H_
#define TFSEG_CORE_SIMD_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/dtypes.h"
#include "core/status.h"

namespace tfseg::core {

// The instruction set that this copy of the library was compiled for: "x86-64-v4", "x86-64-v3",
// "x86-64" or "generic".
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

#if defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// A register full of T. The compiler gives it the arithmetic, comparisons (all ones or zero in each
// lane) and selection (mask ? a : b) of numbers. Loops that keep several values across an inner
// loop are written with it: left to itself, the compiler keeps them in memory.
template <typename T, int kBytes = kVectorBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
  static constexpr int kWidth = kBytes / static_cast<int>(sizeof(T));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

// The widest register of the level, for loops that wait for arithmetic and not for memory.
#if defined(__AVX512F__)
inline constexpr int kWideBytes = 64;
#else
inline constexpr int kWideBytes = kVectorBytes;
#endif
template <typename T>
using WideVectorOf = VectorOf<T, kWideBytes>;
template <typename T>
using WideVector = typename WideVectorOf<T>::type;

// The type of a register's lanes, and a register as wide of another type.
template <typename V>
using LaneOf = std::decay_t<decltype(std::declval<V>()[0])>;
template <typename V, typename T>
using LikeVector = typename VectorOf<T, static_cast<int>(sizeof(V))>::type;

template <typename T>
inline Vector<T> LoadVector(const T* from) {
  Vector<T> vector;
  memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename T>
inline void StoreVector(const Vector<T>& vector, T* to) {
  memcpy(to, &vector, sizeof(vector));
}

template <typename T>
inline WideVector<T> LoadWide(const T* from) {
  WideVector<T> vector;
  memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename T>
inline void StoreWide(const WideVector<T>& vector, T* to) {
  memcpy(to, &vector, sizeof(vector));
}

// All ones in the lanes of Bits (an unsigned integer) in which numbers[lane] == number.
template <typename Bits>
inline Vector<Bits> EqualMask(const int32_t* numbers, int32_t number) {
  if constexpr (sizeof(Bits) == 4) {
    return reinterpret_cast<Vector<Bits>>(LoadVector(numbers) == number);
#if defined(__AVX2__)
  } else if constexpr (sizeof(Bits) == 2) {
    const auto low = reinterpret_cast<__m256i>(LoadVector(numbers) == number);
    const auto high = reinterpret_cast<__m256i>(LoadVector(numbers + 8) == number);
    return reinterpret_cast<Vector<Bits>>(
        _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8));
  } else {
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers));
    return reinterpret_cast<Vector<Bits>>(
        _mm256_cvtepi32_epi64(_mm_cmpeq_epi32(four, _mm_set1_epi32(number))));
  }
#elif defined(__SSE2__)
  } else if constexpr (sizeof(Bits) == 2) {
    const auto low = reinterpret_cast<__m128i>(LoadVector(numbers) == number);
    const auto high = reinterpret_cast<__m128i>(LoadVector(numbers + 4) == number);
    return reinterpret_cast<Vector<Bits>>(_mm_packs_epi32(low, high));
  } else {
    const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(numbers));
    const __m128i mask = _mm_cmpeq_epi32(two, _mm_set1_epi32(number));
    return reinterpret_cast<Vector<Bits>>(_mm_unpacklo_epi32(mask, mask));
  }
#else
  } else {
    Vector<Bits> mask;
    for (int lane = 0; lane < VectorOf<Bits>::kWidth; ++lane) {
      mask[lane] = numbers[lane] == number ? static_cast<Bits>(~Bits{0}) : Bits{0};
    }
    return mask;
  }
#endif
}

// Writing past the caches, in whole lines of kLine bytes: without it each store to a large output
// first reads the line that it overwrites. StreamFence() must follow before another thread may read
// what was written.
inline constexpr int kLine = 64;

// Whether an output is large enough not to be found in the caches by whoever reads it next, and
// begins and ends each of its pixels with a line.
inline bool WorthStreaming(const void* output, int64_t bytes, int64_t bytes_per_pixel) {
#if defined(__SSE2__)
  constexpr int64_t kLargerThanCaches = int64_t{16} << 20;
  return bytes >= kLargerThanCaches && bytes_per_pixel % kLine == 0 &&
         reinterpret_cast<uintptr_t>(output) % kLine == 0;
#else
  (void)output, (void)bytes, (void)bytes_per_pixel;
  return false;
#endif
}

template <typename T>
inline void StreamVector(const Vector<T>& vector, T* to) {
#if defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(vector));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(vector));
#else
  StoreVector<T>(vector, to);
#endif
}

// Streams kCount numbers of any type, a multiple of a line.
template <int kCount, typename T>
inline void StreamLines(const T* from, T* to) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  static_assert(kBytes % kLine == 0, "whole lines only");
  const auto* source = reinterpret_cast<const uint8_t*>(from);
  auto* target = reinterpret_cast<uint8_t*>(to);
  for (int k = 0; k < kBytes; k += kVectorBytes) {
    StreamVector<uint8_t>(LoadVector(source + k), target + k);
  }
}

inline void StreamFence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// A register full of A from as many numbers of a storage type.
template <typename A, typename T>
inline Vector<A> LoadVectorAs(const T* from) {
  if constexpr (std::is_same_v<T, A>) {
    return LoadVector(from);
#if defined(__F16C__) && defined(__AVX__)
  } else if constexpr (std::is_same_v<T, Half>) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#endif
  } else {
    A lanes[VectorOf<A>::kWidth];
    for (int lane = 0; lane < VectorOf<A>::kWidth; ++lane) lanes[lane] = static_cast<A>(from[lane]);
    return LoadVector(lanes);
  }
}

// The larger of both in each lane; b where one is NaN.
template <typename V>
inline V Largest(const V& a, const V& b) {
  if constexpr (std::is_same_v<LaneOf<V>, float>) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64) return _mm512_max_ps(a, b);
#endif
#if defined(__AVX__)
    if constexpr (sizeof(V) == 32) return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
    return _mm_max_ps(a, b);
#endif
  }
  return a > b ? a : b;
}

// table[n mod 8] of each lane's n.
template <typename Bits>
inline Bits LookUp8(const int32_t* table, const Bits& n) {
#if defined(__AVX2__)
  const __m256i all = _mm256_load_si256(reinterpret_cast<const __m256i*>(table));
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(Bits) == 64) {
    // Twice the table: the lookup takes n modulo 16.
    return reinterpret_cast<Bits>(
        _mm512_permutexvar_epi32(reinterpret_cast<__m512i>(n), _mm512_broadcast_i32x8(all)));
  }
#endif
  if constexpr (sizeof(Bits) == 32) {
    return reinterpret_cast<Bits>(_mm256_permutevar8x32_epi32(all, reinterpret_cast<__m256i>(n)));
  }
#endif
  Bits found{};
  for (size_t lane = 0; lane < sizeof(Bits) / 4; ++lane) found[lane] = table[n[lane] & 7];
  return found;
}

// exp(x) for x <= 0, to 1.2e-7 and to 5e-8 (3 + |x|) of itself; at most 2^-126 where it would be
// subnormal, and 0 below. x is split into eighths of powers of two, from a table, and a rest f of
// at most 1/16, whose 2^f is a polynomial to 2.6e-8 (Tang 1989, "Table-driven implementation of the
// exponential function").
template <typename V>
inline V ExpOfNegativeFloats(const V& x) {
  using Bits = LikeVector<V, int32_t>;
  constexpr float kLowest = -127.0f;
  constexpr float kRound = 1572864.0f;  // adding it leaves eighths in the last bits
  // 2^(n / 8), less what n adds to the exponent's place and below.
  alignas(32) static constexpr int32_t kEighths[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0,
                                                      0x3f75fed7, 0x3f7504f3, 0x3f75672a,
                                                      0x3f7744fd, 0x3f7ac0c7};
  const V power = Largest<V>(V{} + kLowest, x * 1.44269504088896341f);
  const V rounded = power + kRound;
  const Bits eighths = reinterpret_cast<Bits>(rounded);
  const V f = power - (rounded - kRound);
  const Bits scale = LookUp8(kEighths, eighths) + (eighths << 20);
  const V s = reinterpret_cast<V>(scale);
  return s + (f * s) * ((f * 0x1.c690cap-5f + 0x1.ec0c22p-3f) * f + 0x1.62e432p-1f);
}
template <typename V>
inline V ExpOfNegative(const V& x) {
  if constexpr (std::is_same_v<LaneOf<V>, double>) {
    V power{};
    for (size_t lane = 0; lane < sizeof(V) / 8; ++lane) power[lane] = std::exp(x[lane]);
    return power;
  } else {
    return ExpOfNegativeFloats(x);
  }
}

// log(x) of positive normal numbers, within two units in the last place; NaN of NaN. Cephes, logf.
template <typename V>
inline V LogOfNormalFloats(const V& x) {
  using Bits = LikeVector<V, int32_t>;
  const Bits bits = reinterpret_cast<Bits>(x);
  const Bits half = (bits & 0x007fffff) | 0x3f000000;
  const V m = reinterpret_cast<V>(half);  // in [0.5, 1)
  const Bits low = m < 0.707106781186547524f;
  const V e = __builtin_convertvector((bits >> 23) - 126 + low, V);
  const V f = (low ? m + m : m) - 1.0f;
  const V z = f * f;
  // Pairs, and a shorter chain of operations to wait for.
  V y = z * 7.0376836292e-2f + (f * -1.1514610310e-1f + 1.1676998740e-1f);
  y = y * z + (f * -1.2420140846e-1f + 1.4249322787e-1f);
  y = y * z + (f * -1.6668057665e-1f + 2.0000714765e-1f);
  y = y * z + (f * -2.4999993993e-1f + 3.3333331174e-1f);
  y = ((y * f * z + e * -2.12194440e-4f) - z * 0.5f) + f;
  y = y + e * 0.693359375f;
  return x == x ? y : x;
}
template <typename V>
inline V LogOfNormal(const V& x) {
  if constexpr (std::is_same_v<LaneOf<V>, double>) {
    V logarithm{};
    for (size_t lane = 0; lane < sizeof(V) / 8; ++lane) logarithm[lane] = std::log(x[lane]);
    return logarithm;
  } else {
    return LogOfNormalFloats(x);
  }
}

// Whether each bit of each lane is set.
template <typename V>
inline bool AllSet(const V& vector) {
  uint64_t words[sizeof(V) / 8];
  memcpy(words, &vector, sizeof(words));
  uint64_t all = ~uint64_t{0};
  for (const uint64_t word : words) all &= word;
  return all == ~uint64_t{0};
}

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
