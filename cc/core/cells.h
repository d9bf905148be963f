// Masks in cells of their own: the fast way of max_unpool.
// Pooling with windows that do not overlap leaves each mask in a cell of its own: rows
// [i * step, (i + 1) * step) and likewise columns. Then no two masks meet, and the loops may go
// over outputs, comparing masks with positions: each output is written once, in order, with no
// zero-fill.
#ifndef TFSEG_CORE_CELLS_H_
#define TFSEG_CORE_CELLS_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/max_unpool.h"
#include "core/simd.h"

namespace tfseg::core::max_unpool {

struct Cells {
  int64_t rows, columns;  // the size of a cell; 0 when the masks don't lie in cells
};

// A guess from the sizes and one mask of the last row and column; the loops check every mask.
template <typename Index>
Cells GuessCells(const Params& params, const Geometry& g, const Index* argmax) {
  const Cells none{0, 0};
  const int64_t last = g.masks_per_image() - g.channels;
  const int64_t place = Place({params.include_batch_in_index}, g, 0, last, argmax[last]);
  if (place < 0 || place >= g.out_per_image()) return none;
  // Relative positions are compared as 32-bit integers.
  if (g.out_per_image() > std::numeric_limits<int32_t>::max()) return none;
  if (params.include_batch_in_index && std::is_same_v<Index, int32_t> &&
      g.num_outputs() > std::numeric_limits<int32_t>::max()) {
    return none;
  }
  const auto step_of = [](int64_t position, int64_t cells, int64_t size) -> int64_t {
    // VALID pooling may leave rows over at the end, SAME pooling may cut the last cell short.
    for (const int64_t step : {size / cells, (size + cells - 1) / cells}) {
      if (step > 0 && (cells - 1) * step < size && position / step == cells - 1) return step;
    }
    return 0;
  };
  const int64_t pixel = place / g.channels;
  const Cells cells{step_of(pixel / g.out_width, g.height, g.out_height),
                    step_of(pixel % g.out_width, g.width, g.out_width)};
  if (cells.rows == 0 || cells.columns == 0) return none;
  const bool checked_by_cells =
      !params.check_windows ||
      (params.ksize[0] == cells.rows && params.strides[0] == cells.rows &&
       params.ksize[1] == cells.columns && params.strides[1] == cells.columns);
  return checked_by_cells ? cells : none;
}

// The cells of one mask pixel in up to kLanes of its channels, or of several whole pixels.
struct Group {
  int64_t element;        // the first mask
  int64_t place;          // of the first lane in the first pixel of its cell, in the whole output
  int64_t rows, columns;  // of a cell, as far as it lies inside the output
  int lanes;
  bool spread;  // several pixels
};

// Calls fn(group) for mask row `row` of all images together, until one returns false.
template <typename Fn>
inline bool ForGroups(const Geometry& g, const Cells& cells, const LaneLayout& layout, int64_t row,
                      Fn&& fn) {
  const int64_t b = row / g.height;
  const int64_t top = row % g.height * cells.rows;
  const int64_t rows = std::min(cells.rows, g.out_height - top);
  for (int64_t j = 0; j < g.width;) {
    const int64_t left = j * cells.columns;
    const int64_t element = (row * g.width + j) * g.channels;
    const int64_t place = ((b * g.out_height + top) * g.out_width + left) * g.channels;
    if (layout.pixels > 1 && j + layout.pixels <= g.width &&
        left + layout.pixels * cells.columns <= g.out_width) {
      const int lanes = layout.pixels * static_cast<int>(g.channels);
      if (!fn(Group{element, place, rows, cells.columns, lanes, true})) return false;
      j += layout.pixels;
      continue;
    }
    const int64_t columns = std::min(cells.columns, g.out_width - left);
    for (int64_t channel = 0; channel < g.channels; channel += kLanes) {
      const auto lanes = static_cast<int>(std::min<int64_t>(kLanes, g.channels - channel));
      if (!fn(Group{element + channel, place + channel, rows, columns, lanes, false})) return false;
    }
    ++j;
  }
  return true;
}

// Where the masks of a group stand in their cells: relative[lane] is the distance from the cell's
// first pixel to the mask's. `origin` is the position of the first lane in its cell's first pixel.
// Returns false when a distance does not fit.
template <bool kSpread, typename Index>
inline bool RelativeToCell(const LaneLayout& layout, const Index* argmax, int count, int64_t origin,
                           int32_t* relative) {
  const auto offset_of = [&](int lane) { return kSpread ? layout.offset[lane] : lane; };
  if constexpr (std::is_same_v<Index, int32_t>) {
    // Positions fit into 32 bits here (GuessCells), so an illegal mask cannot wrap to a legal one.
    const auto first = static_cast<uint32_t>(origin);
    for (int lane = 0; lane < count; ++lane) {
      relative[lane] = static_cast<int32_t>(static_cast<uint32_t>(argmax[lane]) - first -
                                            static_cast<uint32_t>(offset_of(lane)));
    }
    return true;
  } else {
    const auto first = static_cast<uint64_t>(origin);
    uint64_t high = 0;
    for (int lane = 0; lane < count; ++lane) {
      const uint64_t distance =
          static_cast<uint64_t>(argmax[lane]) - first - static_cast<uint64_t>(offset_of(lane));
      high |= distance;
      relative[lane] = static_cast<int32_t>(distance);
    }
    return (high >> 31) == 0;
  }
}

inline constexpr int kVectorsPerLine = kLine / kVectorBytes;

enum class Direction { kScatter, kGather };

// What one move of lanes needs to know: `values` stand beside the masks, `cell` is the output at
// the group's place. Scattering writes each pixel of the cells, zeros where no mask points;
// gathering reads it where a mask points.
template <typename Bits>
struct Lanes {
  const Geometry& g;
  const LaneLayout& layout;
  const Group& group;
  const int32_t* relative;
  const Bits* from;
  Bits* to;
};

// Moves the neighbouring lanes [first, first + kVectors registers); returns whether each of their
// masks lay in its own cell.
template <Direction kDirection, bool kStream, int kVectors, typename Bits>
inline bool MoveVectors(const Lanes<Bits>& lanes, int first) {
  constexpr int kWidth = VectorOf<Bits>::kWidth;
  const auto store = [](const Vector<Bits>& vector, Bits* to) {
    if constexpr (kStream && kVectors == kVectorsPerLine) {
      StreamVector<Bits>(vector, to);
    } else {
      StoreVector<Bits>(vector, to);
    }
  };
  Vector<Bits> values[kVectors];
  Vector<Bits> matched[kVectors];
  for (int k = 0; k < kVectors; ++k) {
    matched[k] = Vector<Bits>{};
    values[k] = kDirection == Direction::kGather ? Vector<Bits>{}
                                                 : LoadVector(lanes.from + first + k * kWidth);
  }
  for (int64_t dy = 0; dy < lanes.group.rows; ++dy) {
    for (int64_t dx = 0; dx < lanes.group.columns; ++dx) {
      const int64_t offset = (dy * lanes.g.out_width + dx) * lanes.g.channels;
      if constexpr (kDirection == Direction::kGather) {
        // Two streams of short pieces are more than the hardware foresees. A hint, also at the end.
        constexpr int kAhead = 2048 / static_cast<int>(sizeof(Bits));
        __builtin_prefetch(lanes.from + offset + first + kAhead);
      }
      for (int k = 0; k < kVectors; ++k) {
        const int lane = first + k * kWidth;
        const auto hit = EqualMask<Bits>(lanes.relative + lane, static_cast<int32_t>(offset));
        matched[k] |= hit;
        if constexpr (kDirection == Direction::kGather) {
          values[k] |= LoadVector(lanes.from + offset + lane) & hit;
        } else {
          store(values[k] & hit, lanes.to + offset + lane);
        }
      }
    }
  }
  for (int k = 0; k < kVectors; ++k) {
    if constexpr (kDirection == Direction::kGather) {
      store(values[k], lanes.to + first + k * kWidth);
    }
    matched[0] &= matched[k];
  }
  return AllSet(matched[0]);
}

// The same for any lanes [first, count), one by one.
template <Direction kDirection, bool kSpread, typename Bits>
inline bool MoveSingly(const Lanes<Bits>& lanes, int first, int count) {
  constexpr Bits kOnes = static_cast<Bits>(~Bits{0});
  Bits values[kLanes];
  Bits matched[kLanes];
  for (int lane = first; lane < count; ++lane) values[lane] = matched[lane] = 0;
  for (int64_t dy = 0; dy < lanes.group.rows; ++dy) {
    for (int64_t dx = 0; dx < lanes.group.columns; ++dx) {
      const int64_t offset = (dy * lanes.g.out_width + dx) * lanes.g.channels;
      const auto here = static_cast<int32_t>(offset);
      for (int lane = first; lane < count; ++lane) {
        const Bits hit = lanes.relative[lane] == here ? kOnes : Bits{0};
        const int64_t place = offset + (kSpread ? lanes.layout.offset[lane] : lane);
        matched[lane] |= hit;
        if constexpr (kDirection == Direction::kGather) {
          values[lane] |= lanes.from[place] & hit;
        } else {
          lanes.to[place] = lanes.from[lane] & hit;
        }
      }
    }
  }
  Bits all = kOnes;
  for (int lane = first; lane < count; ++lane) {
    if constexpr (kDirection == Direction::kGather) lanes.to[lane] = values[lane];
    all &= matched[lane];
  }
  return all != 0;
}

// Moves a group. `origin` is the position of its first lane in the cell's first pixel. Returns
// whether each mask lay in its own cell. kStream: what is written goes past the caches.
template <Direction kDirection, bool kStream, typename Bits, typename Index>
inline bool Move(const Geometry& g, const LaneLayout& layout, const Group& group, int64_t origin,
                 const Index* argmax, const Bits* from, Bits* to) {
  int32_t relative[kLanes];
  const Lanes<Bits> lanes{g, layout, group, relative, from, to};
  if (group.spread) {
    return RelativeToCell<true>(layout, argmax, group.lanes, origin, relative) &&
           MoveSingly<kDirection, true>(lanes, 0, group.lanes);
  }
  if (!RelativeToCell<false>(layout, argmax, group.lanes, origin, relative)) return false;
  constexpr int kWidth = VectorOf<Bits>::kWidth;
  constexpr int kLineLanes = kVectorsPerLine * kWidth;
  int lane = 0;
  for (; lane + kLineLanes <= group.lanes; lane += kLineLanes) {
    if (!MoveVectors<kDirection, kStream, kVectorsPerLine>(lanes, lane)) return false;
  }
  for (; lane + kWidth <= group.lanes; lane += kWidth) {
    if (!MoveVectors<kDirection, kStream, 1>(lanes, lane)) return false;
  }
  return lane == group.lanes || MoveSingly<kDirection, false>(lanes, lane, group.lanes);
}

}  // namespace tfseg::core::max_unpool

#endif  // TFSEG_CORE_CELLS_H_
