// Remembers the first illegal element that any thread meets.
#ifndef TFSEG_CORE_FIRST_ERROR_H_
#define TFSEG_CORE_FIRST_ERROR_H_

#include <atomic>
#include <cstdint>
#include <limits>

namespace tfseg::core {

class FirstError {
 public:
  void Note(int64_t element) {
    int64_t seen = element_.load(std::memory_order_relaxed);
    while (element < seen && !element_.compare_exchange_weak(seen, element)) {
    }
  }
  bool any() const { return element() != kNone; }
  int64_t element() const { return element_.load(); }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> element_{kNone};
};

}  // namespace tfseg::core

#endif  // TFSEG_CORE_FIRST_ERROR_H_
