// What the tests of the launchers share: drawn arrays in memory of just their size, so that
// AddressSanitizer sees a read beyond, and the comparison of a launcher's results with core's.
#ifndef TFSEG_TESTS_CUDA_LAUNCH_TEST_H_
#define TFSEG_TESTS_CUDA_LAUNCH_TEST_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>

#include "core/dtypes.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "cuda/context.h"

namespace tfseg::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr int kDraws = 40;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr int kDraws = 120;
#else
inline constexpr int kDraws = 400;
#endif

inline int failures = 0;

inline void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

inline void ExpectOk(const core::Status& status, const std::string& what) {
  Expect(status.ok(), what + ": " + status.message);
}

inline int Finish() {
  std::printf(failures == 0 ? "all passed\n" : "%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

// One array on the heap: no element more than its shape says.
class Array {
 public:
  Array(core::DType dtype, const core::Shape& shape)
      : dtype_(dtype),
        shape_(shape),
        bytes_(static_cast<size_t>(shape.num_elements() * core::SizeOf(dtype))),
        data_(std::malloc(bytes_)) {
    std::memset(data_.get(), 0xa5, bytes_);  // what no launcher leaves behind
  }

  core::ConstBuffer In() const { return {data_.get(), dtype_, shape_}; }
  core::Buffer Out() { return {data_.get(), dtype_, shape_}; }
  template <typename T>
  T* As() {
    return static_cast<T*>(data_.get());
  }
  int64_t size() const { return shape_.num_elements(); }
  const core::Shape& shape() const { return shape_; }
  core::DType dtype() const { return dtype_; }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  core::DType dtype_;
  core::Shape shape_;
  size_t bytes_;
  std::unique_ptr<void, Free> data_;
};

// Calls fn(T()) with the C++ type of a dtype.
template <typename Fn>
void WithFloat(core::DType dtype, Fn&& fn) {
  (void)core::DispatchFloat("test", "dtype", dtype, [&](auto tag) {
    fn(tag);
    return core::Status::Ok();
  });
}
template <typename Fn>
void WithIndex(core::DType dtype, Fn&& fn) {
  (void)core::DispatchIndex("test", "dtype", dtype, [&](auto tag) {
    fn(tag);
    return core::Status::Ok();
  });
}

class Draw {
 public:
  explicit Draw(unsigned seed) : generator_(seed) {}

  int64_t Number(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(generator_);
  }
  bool Coin(int one_in = 2) { return Number(1, one_in) == 1; }

  core::DType Float() {
    constexpr core::DType kAll[] = {core::DType::kFloat16, core::DType::kBFloat16,
                                    core::DType::kFloat32, core::DType::kFloat64};
    return kAll[Number(0, 3)];
  }
  core::DType Index() { return Coin() ? core::DType::kInt32 : core::DType::kInt64; }
  // Often a multiple of what a thread moves at once.
  int64_t Channels() { return Coin() ? 8 * Number(1, 3) : Number(1, 11); }

  // Numbers whose sums depend on the order; with `special`, ties, NaN and infinities too.
  void Fill(Array& array, bool special) {
    WithFloat(array.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr double kSpecial[] = {std::numeric_limits<double>::quiet_NaN(),
                                     std::numeric_limits<double>::infinity(),
                                     -std::numeric_limits<double>::infinity(), 0.0, -0.0};
      for (int64_t k = 0; k < array.size(); ++k) {
        double number = std::normal_distribution<double>(0, 1)(generator_);
        if (special && Coin(3)) number = kSpecial[Number(0, 4)];
        if (special && Coin(3)) number = static_cast<double>(Number(-1, 1));
        array.As<T>()[k] = static_cast<T>(static_cast<core::AccumulatorOf<T>>(number));
      }
    });
  }

 private:
  std::mt19937_64 generator_;
};

// The same numbers; NaN equals NaN.
inline bool Same(Array& a, Array& b) {
  bool same = a.dtype() == b.dtype() && a.size() == b.size();
  if (!same) return false;
  const auto compare = [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t k = 0; k < a.size(); ++k) {
      if constexpr (std::is_integral_v<T>) {
        same = same && a.As<T>()[k] == b.As<T>()[k];
      } else {
        const auto x = static_cast<core::AccumulatorOf<T>>(a.As<T>()[k]);
        const auto y = static_cast<core::AccumulatorOf<T>>(b.As<T>()[k]);
        same = same && (x == y || (x != x && y != y));
      }
    }
  };
  if (a.dtype() == core::DType::kInt32 || a.dtype() == core::DType::kInt64) {
    WithIndex(a.dtype(), compare);
  } else {
    WithFloat(a.dtype(), compare);
  }
  return same;
}

// One thread for core, the host's memory for both.
class Contexts final : public core::ThreadPool {
 public:
  int NumThreads() const override { return 1; }
  void Schedule(void (*task)(void*), void* argument) override { task(argument); }

  core::Context core() { return {*this, heap_}; }
  cuda::Context cuda() { return {nullptr, heap_}; }

 private:
  core::HeapWorkspace heap_;
};

}  // namespace tfseg::test

#endif  // TFSEG_TESTS_CUDA_LAUNCH_TEST_H_
