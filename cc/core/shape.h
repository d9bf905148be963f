// Shapes with unknown parts, the arrays that adapters hand to core, and the shape checker with
// named dimensions.
#ifndef TFSEG_CORE_SHAPE_H_
#define TFSEG_CORE_SHAPE_H_

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include "core/dtypes.h"
#include "core/status.h"

namespace tfseg::core {

// Not -1, which a caller may ask for by mistake.
inline constexpr int64_t kUnknown = std::numeric_limits<int64_t>::min();

// Sizes of an array. The rank or single sizes are kUnknown while a graph is being built.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
    int axis = 0;
    for (int64_t size : sizes) sizes_[axis++] = size;
  }
  static Shape UnknownRank() {
    Shape shape;
    shape.rank_ = -1;
    return shape;
  }
  // Ranks over kMaxRank keep their rank alone: no op accepts them, and the error names the rank.
  static Shape OfRank(int rank) {
    Shape shape;
    shape.rank_ = rank;
    return shape;
  }

  int rank() const { return rank_; }
  bool has_rank() const { return rank_ >= 0; }
  int64_t operator[](int axis) const { return sizes_[axis]; }
  void set(int axis, int64_t size) {
    if (axis < kMaxRank) sizes_[axis] = size;
  }

  int64_t num_elements() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank_; ++axis) product *= sizes_[axis];
    return product;
  }

  // Whether the bytes of 64-bit elements can be counted in 63 bits, without the help of a size of
  // 0: frameworks multiply from left to right.
  bool countable() const {
    int64_t product = 8;
    for (int axis = 0; axis < rank_; ++axis) {
      if (sizes_[axis] == kUnknown || sizes_[axis] == 0) continue;
      if (__builtin_mul_overflow(product, sizes_[axis], &product)) return false;
    }
    return true;
  }

  std::string ToString() const {
    if (!has_rank()) return "an unknown shape";
    if (rank_ > kMaxRank) return "rank " + std::to_string(rank_);
    std::string text = "[";
    for (int axis = 0; axis < rank_; ++axis) {
      if (axis > 0) text += ", ";
      text += sizes_[axis] == kUnknown ? "?" : std::to_string(sizes_[axis]);
    }
    return text + "]";
  }

 private:
  int rank_ = 0;
  int64_t sizes_[kMaxRank] = {};
};

// An array in row-major order, owned by the caller.
struct ConstBuffer {
  const void* data;
  DType dtype;
  Shape shape;

  template <typename T>
  const T* As() const {
    return static_cast<const T*>(data);
  }
};

struct Buffer {
  void* data;
  DType dtype;
  Shape shape;

  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
};

// Requires each of two numbers of pixels to be positive and to fit into 32 bits.
inline Status RequirePixels(const char* op, const char* argument, const int64_t (&pair)[2]) {
  for (const int64_t size : pair) {
    if (!(size >= 1 && size <= std::numeric_limits<int32_t>::max())) {
      return Status::InvalidArgument(std::string(op) + ": '" + argument +
                                     "' must lie in [1, 2147483647], got " +
                                     Shape{pair[0], pair[1]}.ToString());
    }
  }
  return Status::Ok();
}

// A dimension that several arguments share. It is bound by the first argument whose size is known.
struct Dim {
  const char* name;
  int64_t size = kUnknown;
};

// Checks arguments against dimensions:
//   Dim batch{"batch"}, points{"points"};
//   ShapeChecker check("op");
//   check.Require("values", values, {&batch, &points});
//   check.Require("weights", weights, {&points});
//   -> op: 'weights' must have shape [points=7], got [8]
class ShapeChecker {
 public:
  explicit ShapeChecker(const char* op) : op_(op) {}

  void Require(const char* argument, const Shape& shape, std::initializer_list<Dim*> dims) {
    if (!status_.ok() || !shape.has_rank()) return;
    bool fits = shape.rank() == static_cast<int>(dims.size());
    int axis = 0;
    for (const Dim* dim : dims) {
      if (!fits) break;
      const int64_t size = shape[axis++];
      fits = size == kUnknown || dim->size == kUnknown || size == dim->size;
    }
    if (!fits) {
      status_ = Status::InvalidArgument(std::string(op_) + ": '" + argument + "' must have shape " +
                                        Describe(dims) + ", got " + shape.ToString());
      return;
    }
    axis = 0;
    for (Dim* dim : dims) {
      if (dim->size == kUnknown) dim->size = shape[axis];
      ++axis;
    }
  }

  const Status& status() const { return status_; }

 private:
  static std::string Describe(std::initializer_list<Dim*> dims) {
    std::string text = "[";
    const char* separator = "";
    for (const Dim* dim : dims) {
      text += separator;
      separator = ", ";
      if (dim->name != nullptr) text += dim->name;
      if (dim->name != nullptr && dim->size != kUnknown) text += "=";
      if (dim->size != kUnknown) text += std::to_string(dim->size);
    }
    return text + "]";
  }

  const char* op_;
  Status status_;
};

}  // namespace tfseg::core

#endif  // TFSEG_CORE_SHAPE_H_
