#include "core/simd.h"

namespace tfseg::core {

const char* Level() {
#if defined(__AVX512F__) && defined(__AVX512BW__)
  return "x86-64-v4";
#elif defined(__AVX2__) && defined(__FMA__)
  return "x86-64-v3";
#elif defined(__x86_64__)
  return "x86-64";
#else
  return "generic";
#endif
}

}  // namespace tfseg::core
