// The only dtype lists. Half and bfloat16 are storage types: arithmetic happens in
// AccumulatorOf<T>.
#ifndef TFSEG_CORE_DTYPES_H_
#define TFSEG_CORE_DTYPES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/status.h"

#if defined(__CUDACC__)
#define TFSEG_HOST_DEVICE __host__ __device__
#else
#define TFSEG_HOST_DEVICE
#endif

// X(enumerator, C++ type, name): the values of every op, and the integers of masks, indices and
// labels.
#define TFSEG_FLOAT_DTYPES(X)        \
  X(kFloat16, Half, "float16")       \
  X(kBFloat16, BFloat16, "bfloat16") \
  X(kFloat32, float, "float32")      \
  X(kFloat64, double, "float64")
#define TFSEG_INDEX_DTYPES(X) \
  X(kInt32, int32_t, "int32") \
  X(kInt64, int64_t, "int64")
// Labels may be bytes too.
#define TFSEG_BYTE_DTYPES(X) X(kUInt8, uint8_t, "uint8")
// Y(enumerator, name): what no op takes, for errors that name what came.
// clang-format off
#define TFSEG_OTHER_DTYPES(Y)   \
  Y(kBool, "bool")              \
  Y(kInt8, "int8")              \
  Y(kInt16, "int16")            \
  Y(kUInt16, "uint16")          \
  Y(kUInt32, "uint32")          \
  Y(kUInt64, "uint64")          \
  Y(kComplex64, "complex64")    \
  Y(kComplex128, "complex128")
// clang-format on

namespace tfseg::core {

template <typename To, typename From>
TFSEG_HOST_DEVICE inline To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "BitCast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// IEEE 754 binary16. The conversions have no branches, so that loops over them become vector code,
// and never pass through a subnormal float32, so that a caller's flush-to-zero mode cannot change
// them.
struct Half {
  uint16_t bits;

  Half() = default;
  TFSEG_HOST_DEVICE explicit Half(float value) {
    const uint32_t all = BitCast<uint32_t>(value);
    const uint32_t magnitude = all & 0x7fffffffu;
    // Round to nearest, ties to even, at bit 13; the carry may run into the exponent, which is
    // right.
    const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    // Adding 0.5 aligns the last bit of a float32 with the last bit of a subnormal half, 2^-24.
    const uint32_t subnormal =
        BitCast<uint32_t>(BitCast<float>(magnitude < 0x38800000u ? magnitude : 0u) + 0.5f) -
        0x3f000000u;
    // NaN keeps the top of its payload and turns quiet, as the hardware's conversions have it.
    const uint32_t special =
        magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    bits = static_cast<uint16_t>(((all >> 16) & 0x8000u) |
                                 (magnitude >= 0x47800000u ? special : finite));
  }
  TFSEG_HOST_DEVICE explicit operator float() const {
    const uint32_t magnitude = bits & 0x7fffu;
    const uint32_t normal = (magnitude << 13) + (112u << 23) +
                            (magnitude >= 0x7c00u ? 112u << 23 : 0u) +
                            (magnitude > 0x7c00u && magnitude < 0x7e00u ? 1u << 22 : 0u);
    const uint32_t subnormal =
        BitCast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
    return BitCast<float>(((bits & 0x8000u) << 16) | (magnitude < 0x400u ? subnormal : normal));
  }
};

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  TFSEG_HOST_DEVICE explicit BFloat16(float value) {
    const uint32_t all = BitCast<uint32_t>(value);
    const uint32_t rounded = (all + 0x7fffu + ((all >> 16) & 1u)) >> 16;
    const uint32_t quiet_nan = (all >> 16) | 0x40u;
    bits = static_cast<uint16_t>((all & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
  }
  TFSEG_HOST_DEVICE explicit operator float() const {
    return BitCast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// Sums are kept in float32, those of float64 in float64.
template <typename T>
using AccumulatorOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

#define TFSEG_ENUMERATOR(enumerator, ...) enumerator,
enum class DType {
  TFSEG_FLOAT_DTYPES(TFSEG_ENUMERATOR) TFSEG_INDEX_DTYPES(TFSEG_ENUMERATOR)
      TFSEG_BYTE_DTYPES(TFSEG_ENUMERATOR) TFSEG_OTHER_DTYPES(TFSEG_ENUMERATOR) kUnknownDType
};
#undef TFSEG_ENUMERATOR

inline const char* NameOf(DType dtype) {
#define TFSEG_NAME(enumerator, name) \
  case DType::enumerator:            \
    return name;
#define TFSEG_TYPE_NAME(enumerator, type, name) TFSEG_NAME(enumerator, name)
  switch (dtype) {
    TFSEG_FLOAT_DTYPES(TFSEG_TYPE_NAME)
    TFSEG_INDEX_DTYPES(TFSEG_TYPE_NAME)
    TFSEG_BYTE_DTYPES(TFSEG_TYPE_NAME)
    TFSEG_OTHER_DTYPES(TFSEG_NAME)
    case DType::kUnknownDType:
      break;
  }
#undef TFSEG_TYPE_NAME
#undef TFSEG_NAME
  return "another dtype";
}

inline DType DTypeNamed(const char* wanted) {
#define TFSEG_NAME(enumerator, name) \
  if (strcmp(wanted, name) == 0) return DType::enumerator;
#define TFSEG_TYPE_NAME(enumerator, type, name) TFSEG_NAME(enumerator, name)
  TFSEG_FLOAT_DTYPES(TFSEG_TYPE_NAME)
  TFSEG_INDEX_DTYPES(TFSEG_TYPE_NAME)
  TFSEG_BYTE_DTYPES(TFSEG_TYPE_NAME)
  TFSEG_OTHER_DTYPES(TFSEG_NAME)
#undef TFSEG_TYPE_NAME
#undef TFSEG_NAME
  return DType::kUnknownDType;
}

// The size of an element of a dtype that ops take; 0 for the others.
inline int64_t SizeOf(DType dtype) {
#define TFSEG_SIZE(enumerator, type, name) \
  case DType::enumerator:                  \
    return sizeof(type);
  switch (dtype) {
    TFSEG_FLOAT_DTYPES(TFSEG_SIZE)
    TFSEG_INDEX_DTYPES(TFSEG_SIZE)
    TFSEG_BYTE_DTYPES(TFSEG_SIZE)
    default:
      return 0;
  }
#undef TFSEG_SIZE
}

// Requires an argument to have one dtype.
inline Status RequireDType(const char* op, const std::string& argument, DType dtype, DType wanted) {
  if (dtype == wanted) return Status::Ok();
  return Status::InvalidType(std::string(op) + ": '" + argument + "' must be " + NameOf(wanted) +
                             ", got " + NameOf(dtype));
}

template <typename T>
inline constexpr DType kAccumulatorDType =
    std::is_same_v<AccumulatorOf<T>, double> ? DType::kFloat64 : DType::kFloat32;

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls fn(TypeTag<T>()), which returns a Status, with the C++ type of an argument's dtype.
#define TFSEG_CASE(enumerator, type, name) \
  case DType::enumerator:                  \
    return fn(TypeTag<type>());
template <typename Fn>
Status DispatchFloat(const char* op, const char* argument, DType dtype, Fn&& fn) {
  switch (dtype) {
    TFSEG_FLOAT_DTYPES(TFSEG_CASE)
    default:
      return Status::InvalidType(std::string(op) + ": '" + argument +
                                 "' must be float16, bfloat16, float32 or float64, got " +
                                 NameOf(dtype));
  }
}
template <typename Fn>
Status DispatchIndex(const char* op, const char* argument, DType dtype, Fn&& fn) {
  switch (dtype) {
    TFSEG_INDEX_DTYPES(TFSEG_CASE)
    default:
      return Status::InvalidType(std::string(op) + ": '" + argument +
                                 "' must be int32 or int64, got " + NameOf(dtype));
  }
}
template <typename Fn>
Status DispatchLabel(const char* op, const char* argument, DType dtype, Fn&& fn) {
  switch (dtype) {
    TFSEG_BYTE_DTYPES(TFSEG_CASE)
    TFSEG_INDEX_DTYPES(TFSEG_CASE)
    default:
      return Status::InvalidType(std::string(op) + ": '" + argument +
                                 "' must be uint8, int32 or int64, got " + NameOf(dtype));
  }
}
#undef TFSEG_CASE

}  // namespace tfseg::core

#endif  // TFSEG_CORE_DTYPES_H_
