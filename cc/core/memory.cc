#include "core/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tfseg::core {

void HintHugePages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int64_t kSmallestOutput = int64_t{4} << 20;
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  if (bytes < kSmallestOutput) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  // Only whole pages inside the output: its neighbours are not ours to advise.
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  // A hint: where the kernel refuses, small pages serve.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace tfseg::core
