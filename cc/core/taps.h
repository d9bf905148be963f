// What each bin of each box reads along each axis: the plan that the three loops of RoI Align
// follow.
#ifndef TFSEG_CORE_TAPS_H_
#define TFSEG_CORE_TAPS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/roi_align.h"

namespace tfseg::core::roi_align {

inline int64_t NumberAt(const ConstBuffer& numbers, int64_t k) {
  return numbers.dtype == DType::kInt32 ? numbers.As<int32_t>()[k] : numbers.As<int64_t>()[k];
}

// What one bin reads along one axis: pixels in rising order, the points' weights added up.
template <typename A>
struct Tap {
  int32_t pixel;
  A weight;

  void Add(const Tap& other) { weight += other.weight; }
};
// And how the weight changes with the box's two coordinates.
template <typename A>
struct SlopedTap {
  int32_t pixel;
  A weight;
  A slopes[2];

  void Add(const SlopedTap& other) {
    weight += other.weight;
    slopes[0] += other.slopes[0];
    slopes[1] += other.slopes[1];
  }
};

// The taps of all bins of all boxes along one axis.
template <typename TapType>
struct TapTable {
  int64_t bins = 0;
  int64_t* starts = nullptr;  // [boxes + 1], of a box's taps
  int32_t* ends = nullptr;    // [boxes, bins], of a bin's taps, counted from the box's first
  TapType* taps = nullptr;

  struct Range {
    const TapType* first;
    const TapType* last;
    const TapType* begin() const { return first; }
    const TapType* end() const { return last; }
    bool empty() const { return first == last; }
    int64_t size() const { return last - first; }
  };
  Range Of(int64_t box, int64_t bin) const {
    const TapType* first = taps + starts[box];
    const int32_t* end = ends + box * bins + bin;
    return {first + (bin == 0 ? 0 : end[-1]), first + *end};
  }
};

// What all bins together read at most: a bin's pixels rise strictly, and the last ones of a bin are
// the first ones of the next, two of them, or three where rounding moves a position back. So many
// pixels of the map lie within the box, two more beside it, and one more by rounding.
template <typename A>
int64_t MostTaps(const Axis<A>& axis) {
  const A side = (axis.bin < A(0) ? -axis.bin : axis.bin) * static_cast<A>(axis.bins);
  const int64_t reach =
      side < static_cast<A>(axis.extent) ? static_cast<int64_t>(side) + 3 : axis.extent;
  return std::min(2 * axis.points * axis.bins, std::min(reach, axis.extent) + 3 * axis.bins);
}

template <typename A, typename TapType>
void FillTaps(const Axis<A>& axis, TapType* taps, int32_t* ends) {
  constexpr bool kSloped = std::is_same_v<TapType, SlopedTap<A>>;
  int32_t count = 0;
  for (int64_t p = 0; p < axis.bins; ++p) {
    const int32_t first = count;
    const auto add = [&](const TapType& tap) {
      // Positions rise, so only the last two pixels can come again.
      for (int32_t k = count; k > first && k > count - 2; --k) {
        if (taps[k - 1].pixel == tap.pixel) return taps[k - 1].Add(tap);
      }
      taps[count++] = tap;
    };
    const PointRange range = PointsInside(axis, p);
    for (int64_t n = range.begin; n < range.end; ++n) {
      const int64_t i = axis.bin < A(0) ? range.end - 1 - (n - range.begin) : n;
      const Sample<A> sample = SampleAt(axis.Position(p, i), axis.extent);
      if (!sample.inside) continue;
      const auto low = static_cast<int32_t>(sample.low);
      if constexpr (kSloped) {
        const A second = sample.moves ? axis.Share(p, i) : A(0);
        const A first_too = sample.moves ? A(1) - second : A(0);
        add({low, A(1) - sample.fraction, {-first_too, -second}});
        if (sample.moves) add({low + 1, sample.fraction, {first_too, second}});
      } else {
        add({low, A(1) - sample.fraction});
        if (sample.fraction != A(0)) add({low + 1, sample.fraction});
      }
    }
    ends[p] = count;
  }
}

// All that the loops need to know of the boxes.
template <typename T, typename TapType>
class Plan {
  using A = AccumulatorOf<T>;

 public:
  // Checks each box and lays out its taps. `maps` are shaped as the features.
  Status Make(const Params& params, const Context& context, const std::vector<Shape>& maps,
              const ConstBuffer& boxes, const ConstBuffer& box_indices, const ConstBuffer& levels) {
    num_boxes_ = boxes.shape[0];
    TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes_, &boxes_));
    TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes_, &order_));
    for (int axis = 0; axis < 2; ++axis) {
      TapTable<TapType>& table = tables_[axis];
      table.bins = params.output_size[axis];
      TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes_ + 1, &table.starts));
      TFSEG_RETURN_IF_ERROR(Allocate(params, context, num_boxes_ * table.bins, &table.ends));
      table.starts[0] = 0;
    }
    const int64_t batch = maps[0][0];
    for (int64_t k = 0; k < num_boxes_; ++k) {
      const int64_t image = NumberAt(box_indices, k);
      Box<A>& box = boxes_[k];
      if (image == -1) {
        box = {};
      } else {
        if (!(image >= 0 && image < batch)) {
          return IllegalAt(params, "box_indices", "be -1 or ", batch, image, k);
        }
        const int64_t level = NumberAt(levels, k);
        if (!(level >= 0 && level < params.num_levels)) {
          return IllegalAt(params, "levels", "", params.num_levels, level, k);
        }
        box = BoxOf(params, boxes.As<A>() + 4 * k, image, static_cast<int>(level), maps[level][1],
                    maps[level][2]);
      }
      if (!box.empty()) order_[num_used_++] = static_cast<int32_t>(k);
      tables_[0].starts[k + 1] = tables_[0].starts[k] + (box.empty() ? 0 : MostTaps(box.y));
      tables_[1].starts[k + 1] = tables_[1].starts[k] + (box.empty() ? 0 : MostTaps(box.x));
    }
    for (TapTable<TapType>& table : tables_) {
      TFSEG_RETURN_IF_ERROR(Allocate(params, context, table.starts[num_boxes_], &table.taps));
    }
    const int64_t cost = 10 + 10 * (tables_[0].starts[num_boxes_] + tables_[1].starts[num_boxes_]) /
                                  std::max<int64_t>(1, num_boxes_);
    ParallelFor(context.threads, num_boxes_, cost, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const Box<A>& box = boxes_[k];
        if (box.empty()) {
          for (const TapTable<TapType>& table : tables_) {
            std::fill_n(table.ends + k * table.bins, table.bins, 0);
          }
          continue;
        }
        const auto fill = [k](const TapTable<TapType>& table, const Axis<A>& axis) {
          FillTaps(axis, table.taps + table.starts[k], table.ends + k * table.bins);
        };
        fill(tables_[0], box.y);
        fill(tables_[1], box.x);
      }
    });
    return Status::Ok();
  }

  int64_t num_boxes() const { return num_boxes_; }
  const Box<A>& box(int64_t k) const { return boxes_[k]; }
  const TapTable<TapType>& y() const { return tables_[0]; }
  const TapTable<TapType>& x() const { return tables_[1]; }

  template <typename U>
  static Status Allocate(const Params& params, const Context& context, int64_t count, U** array) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(U));
    *array = static_cast<U*>(context.workspace.Allocate(bytes));
    if (*array != nullptr) return Status::Ok();
    return Status::ResourceExhausted(std::string(OpOf(params)) + ": no memory for " +
                                     std::to_string(bytes) + " bytes of workspace");
  }

  // Boxes that may not be empty, each beside its neighbours in the map: in the order of a Z curve
  // through their centres, so that what one has read is still in the caches for the next.
  const int32_t* InOrder(int64_t* count) {
    const auto centre = [](const Axis<A>& axis) {
      const A position = axis.start + axis.bin * static_cast<A>(axis.bins) / A(2);
      const A last = static_cast<A>(axis.extent);
      return static_cast<uint32_t>(position > A(0) ? std::min(position, last) : A(0));
    };
    std::sort(order_, order_ + num_used_, [&](int32_t a, int32_t b) {
      const Box<A>&box_a = boxes_[a], &box_b = boxes_[b];
      if (box_a.level != box_b.level) return box_a.level < box_b.level;
      if (box_a.image != box_b.image) return box_a.image < box_b.image;
      const uint32_t y_a = centre(box_a.y), y_b = centre(box_b.y);
      const uint32_t x_a = centre(box_a.x), x_b = centre(box_b.x);
      // The axis whose highest bit differs decides: as if the bits of y and x took turns.
      const uint32_t y = y_a ^ y_b, x = x_a ^ x_b;
      const bool by_x = y < x && y < (y ^ x);
      if (by_x) return x_a < x_b;
      return y == 0 ? a < b : y_a < y_b;
    });
    *count = num_used_;
    return order_;
  }

 private:
  static Status IllegalAt(const Params& params, const char* argument, const char* or_else,
                          int64_t limit, int64_t got, int64_t k) {
    return Status::InvalidArgument(std::string(OpOf(params)) + ": '" + argument + "' must " +
                                   or_else + "lie in [0, " + std::to_string(limit) + "), got " +
                                   std::to_string(got) + " at [" + std::to_string(k) + "]");
  }

  int64_t num_boxes_ = 0;
  int64_t num_used_ = 0;
  Box<A>* boxes_ = nullptr;
  int32_t* order_ = nullptr;
  TapTable<TapType> tables_[2];  // y, x
};

}  // namespace tfseg::core::roi_align

#endif  // TFSEG_CORE_TAPS_H_
