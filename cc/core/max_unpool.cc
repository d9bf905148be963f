#include "core/max_unpool.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <type_traits>

#include "core/memory.h"
#include "core/simd.h"

namespace tfseg::core::max_unpool {
namespace {

constexpr char kOp[] = "max_unpool";

Status Invalid(const std::string& text) {
  return Status::InvalidArgument(std::string(kOp) + ": " + text);
}

// Sizes of the masks (height, width) and of the output (out_height, out_width).
struct Geometry {
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;

  int64_t masks_per_image() const { return height * width * channels; }
  int64_t num_masks() const { return batch * masks_per_image(); }
  int64_t out_per_image() const { return out_height * out_width * channels; }
  int64_t num_outputs() const { return batch * out_per_image(); }
};

// The place in the whole output that mask number `element` of image `b` names, or -1 when it is not
// legal.
template <typename Index>
inline int64_t Place(const Params& params, const Geometry& g, int64_t b, int64_t element,
                     Index mask) {
  const int64_t image = g.out_per_image();
  const int64_t limit = params.include_batch_in_index ? g.batch * image : image;
  const auto position = static_cast<int64_t>(mask);
  if (!(position >= 0 && position < limit)) return -1;
  const int64_t place = params.include_batch_in_index ? position : b * image + position;
  if (params.check_windows) {
    const int64_t in_image = place - b * image;
    if (!(in_image >= 0 && in_image < image)) return -1;
    const int64_t pixel = in_image / g.channels;
    const int64_t mask_pixel = element % g.masks_per_image() / g.channels;
    const bool own =
        in_image % g.channels == element % g.channels &&
        InWindow(pixel / g.out_width, mask_pixel / g.width, params.ksize[0], params.strides[0]) &&
        InWindow(pixel % g.out_width, mask_pixel % g.width, params.ksize[1], params.strides[1]);
    if (!own) return -1;
  }
  return place;
}

// Remembers the first illegal mask of all threads.
class FirstError {
 public:
  void Note(int64_t element) {
    int64_t seen = element_.load(std::memory_order_relaxed);
    while (element < seen && !element_.compare_exchange_weak(seen, element)) {
    }
  }
  bool any() const { return element_.load() != kNone; }

  template <typename Index>
  Status ToStatus(const Params& params, const Geometry& g, const Index* argmax) const {
    if (!any()) return Status::Ok();
    const int64_t element = element_.load();
    const int64_t mask = argmax[element];
    const Shape where{element / g.masks_per_image(), element / (g.width * g.channels) % g.height,
                      element / g.channels % g.width, element % g.channels};
    const int64_t limit = params.include_batch_in_index ? g.num_outputs() : g.out_per_image();
    std::string rule = "lie in [0, " + std::to_string(limit) + ")";
    if (params.check_windows && mask >= 0 && mask < limit) {
      rule = "lie in its own window of ksize " +
             Shape{params.ksize[0], params.ksize[1]}.ToString() + " and strides " +
             Shape{params.strides[0], params.strides[1]}.ToString();
    }
    return Invalid("'argmax' must " + rule + ", got " + std::to_string(mask) + " at " +
                   where.ToString());
  }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> element_{kNone};
};

// --- Masks in cells of their own
// -------------------------------------------------------------------------
//
// Pooling with windows that do not overlap leaves each mask in a cell of its own: rows
// [i * step, (i + 1) * step) and likewise columns. Then no two masks meet, and the loops may go
// over outputs, comparing masks with positions: each output is written once, in order, with no
// zero-fill.

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
template <Direction kDirection, int kVectors, typename Bits>
inline bool MoveVectors(const Lanes<Bits>& lanes, int first) {
  constexpr int kWidth = VectorOf<Bits>::kWidth;
  Vector<Bits> values[kVectors];
  Vector<Bits> matched[kVectors];
  for (int k = 0; k < kVectors; ++k) {
    matched[k] = Vector<Bits>{};
    values[k] = kDirection == Direction::kScatter ? LoadVector(lanes.from + first + k * kWidth)
                                                  : Vector<Bits>{};
  }
  for (int64_t dy = 0; dy < lanes.group.rows; ++dy) {
    for (int64_t dx = 0; dx < lanes.group.columns; ++dx) {
      const int64_t offset = (dy * lanes.g.out_width + dx) * lanes.g.channels;
      for (int k = 0; k < kVectors; ++k) {
        const int lane = first + k * kWidth;
        const auto hit = EqualMask<Bits>(lanes.relative + lane, static_cast<int32_t>(offset));
        matched[k] |= hit;
        if constexpr (kDirection == Direction::kScatter) {
          StoreVector<Bits>(values[k] & hit, lanes.to + offset + lane);
        } else {
          values[k] |= LoadVector(lanes.from + offset + lane) & hit;
        }
      }
    }
  }
  for (int k = 0; k < kVectors; ++k) {
    if constexpr (kDirection == Direction::kGather) {
      StoreVector<Bits>(values[k], lanes.to + first + k * kWidth);
    }
    matched[0] &= matched[k];
  }
  return AllSet<Bits>(matched[0]);
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
        if constexpr (kDirection == Direction::kScatter) {
          lanes.to[place] = lanes.from[lane] & hit;
        } else {
          values[lane] |= lanes.from[place] & hit;
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
// whether each mask lay in its own cell.
template <Direction kDirection, typename Bits, typename Index>
inline bool Move(const Geometry& g, const LaneLayout& layout, const Group& group, int64_t origin,
                 const Index* argmax, const Bits* from, Bits* to) {
  int32_t relative[kLanes];
  const Lanes<Bits> lanes{g, layout, group, relative, from, to};
  if (group.spread) {
    return RelativeToCell<true>(layout, argmax, group.lanes, origin, relative) &&
           MoveSingly<kDirection, true>(lanes, 0, group.lanes);
  }
  if (!RelativeToCell<false>(layout, argmax, group.lanes, origin, relative)) return false;
  // Two registers at a time are a cache line of the widest vectors.
  constexpr int kWidth = VectorOf<Bits>::kWidth;
  int lane = 0;
  for (; lane + 2 * kWidth <= group.lanes; lane += 2 * kWidth) {
    if (!MoveVectors<kDirection, 2>(lanes, lane)) return false;
  }
  for (; lane + kWidth <= group.lanes; lane += kWidth) {
    if (!MoveVectors<kDirection, 1>(lanes, lane)) return false;
  }
  return lane == group.lanes || MoveSingly<kDirection, false>(lanes, lane, group.lanes);
}

// Mask rows [begin, end) of all images together. Values are only moved, so Bits is an unsigned
// integer of their size. Returns false at a mask outside its cell; the output is then to be written
// again.
template <typename Bits, typename Index>
bool UnpoolCells(const Params& params, const Geometry& g, const Cells& cells, int64_t begin,
                 int64_t end,
                 const Bits* input,    // [batch, height, width, channels]
                 const Index* argmax,  // [batch, height, width, channels]
                 Bits* output) {       // [batch, out_height, out_width, channels]
  const int64_t out_row = g.out_width * g.channels;
  const LaneLayout layout(g.channels, cells.columns * g.channels);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / g.height;
    const int64_t uncounted = params.include_batch_in_index ? 0 : b * g.out_per_image();
    const bool in_cells = ForGroups(g, cells, layout, row, [&](const Group& group) {
      return Move<Direction::kScatter>(g, layout, group, group.place - uncounted,
                                       argmax + group.element, input + group.element,
                                       output + group.place);
    });
    if (!in_cells) return false;
    // Columns and rows that no cell reaches.
    const int64_t top = row % g.height * cells.rows;
    const int64_t bottom = std::min(top + cells.rows, g.out_height);
    const int64_t covered = std::min(g.width * cells.columns, g.out_width) * g.channels;
    Bits* image = output + b * g.out_per_image();
    for (int64_t y = top; y < bottom; ++y) {
      std::fill(image + y * out_row + covered, image + (y + 1) * out_row, Bits{0});
    }
    if (row % g.height == g.height - 1) {
      std::fill(image + bottom * out_row, image + g.out_per_image(), Bits{0});
    }
  }
  return true;
}

// --- Masks anywhere
// --------------------------------------------------------------------------------------
//
// Masks are sorted by the block of the output that they name (a stable counting sort), then each
// block is summed by one thread, in the order of the masks: no race, and the same sum for any
// number of threads.

// 32 KiB of float32: a block's sums stay in the first-level cache.
constexpr int64_t kBlock = 8192;

template <typename T, typename Index, typename Offset>
Status UnpoolSorted(const Params& params, const Geometry& g, const Context& context, const T* input,
                    const Index* argmax, T* output) {
  struct Entry {
    Offset element;
    uint32_t in_block;
  };
  const int64_t num_masks = g.num_masks();
  const int64_t num_outputs = g.num_outputs();
  const int64_t num_blocks = (num_outputs + kBlock - 1) / kBlock;
  // More parts than threads even out the work; their number does not change the order of the sums.
  const int64_t num_parts =
      std::clamp<int64_t>(num_masks / kBlock, 1, 4 * context.threads.NumThreads());
  const int64_t part = (num_masks + num_parts - 1) / num_parts;

  auto* starts = static_cast<int64_t*>(context.workspace.Allocate(
      (num_parts + 1) * num_blocks * static_cast<int64_t>(sizeof(int64_t))));
  auto* entries = static_cast<Entry*>(
      context.workspace.Allocate(num_masks * static_cast<int64_t>(sizeof(Entry))));
  if (starts == nullptr || entries == nullptr) {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory to sort " +
                                     std::to_string(num_masks) + " masks");
  }

  // Calls fn(element, place) for the masks of one part.
  FirstError error;
  const auto for_part = [&](int64_t p, auto&& fn) {
    const int64_t end = std::min((p + 1) * part, num_masks);
    int64_t element = std::min(p * part, num_masks);
    while (element < end) {
      const int64_t b = element / g.masks_per_image();
      const int64_t image_end = std::min(end, (b + 1) * g.masks_per_image());
      for (; element < image_end; ++element) {
        const int64_t place = Place(params, g, b, element, argmax[element]);
        if (place < 0) return error.Note(element);
        fn(element, place);
      }
    }
  };
  ParallelFor(context.threads, num_parts, part, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      int64_t* counts = starts + p * num_blocks;
      std::fill(counts, counts + num_blocks, 0);
      for_part(p, [&](int64_t, int64_t place) { ++counts[place / kBlock]; });
    }
  });
  TFSEG_RETURN_IF_ERROR(error.ToStatus(params, g, argmax));

  int64_t sum = 0;
  int64_t* ends = starts + num_parts * num_blocks;
  for (int64_t block = 0; block < num_blocks; ++block) {
    for (int64_t p = 0; p < num_parts; ++p) {
      const int64_t count = starts[p * num_blocks + block];
      starts[p * num_blocks + block] = sum;
      sum += count;
    }
    ends[block] = sum;
  }
  ParallelFor(context.threads, num_parts, 2 * part, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      int64_t* next = starts + p * num_blocks;
      for_part(p, [&](int64_t element, int64_t place) {
        entries[next[place / kBlock]++] = {static_cast<Offset>(element),
                                           static_cast<uint32_t>(place % kBlock)};
      });
    }
  });

  const int64_t cost = kBlock + 2 * num_masks / num_blocks;
  ParallelFor(context.threads, num_blocks, cost, [&](int64_t begin, int64_t end) {
    using Accumulator = AccumulatorOf<T>;
    Accumulator sums[kBlock];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t size = std::min(kBlock, num_outputs - block * kBlock);
      std::fill(sums, sums + size, Accumulator{0});
      for (int64_t k = block == 0 ? 0 : ends[block - 1]; k < ends[block]; ++k) {
        sums[entries[k].in_block] += static_cast<Accumulator>(input[entries[k].element]);
      }
      T* to = output + block * kBlock;
      for (int64_t k = 0; k < size; k += kLanes) {
        StoreLanes(sums + k, static_cast<int>(std::min<int64_t>(kLanes, size - k)), to + k);
      }
    }
  });
  return Status::Ok();
}

template <typename T, typename Index>
Status Unpool(const Params& params, const Geometry& g, const Context& context, const T* input,
              const Index* argmax, T* output) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  const Cells cells = GuessCells(params, g, argmax);
  if (cells.rows > 0) {
    std::atomic<bool> in_cells{true};
    const int64_t cost = g.width * g.channels * cells.rows * cells.columns / 2;
    ParallelFor(context.threads, g.batch * g.height, cost, [&](int64_t begin, int64_t end) {
      if (!in_cells.load(std::memory_order_relaxed)) return;
      if (!UnpoolCells(params, g, cells, begin, end, reinterpret_cast<const Bits*>(input), argmax,
                       reinterpret_cast<Bits*>(output))) {
        in_cells.store(false, std::memory_order_relaxed);
      }
    });
    if (in_cells.load()) return Status::Ok();
  }
  if (g.num_masks() <= std::numeric_limits<uint32_t>::max()) {
    return UnpoolSorted<T, Index, uint32_t>(params, g, context, input, argmax, output);
  }
  return UnpoolSorted<T, Index, int64_t>(params, g, context, input, argmax, output);
}

// Mask rows [begin, end) of all images together. Groups with a mask outside its cell, and all
// groups where there are no cells, are read mask by mask.
template <typename Bits, typename Index>
void GatherRows(const Params& params, const Geometry& g, const Cells& cells, int64_t begin,
                int64_t end,
                const Bits* grad,     // [batch, out_height, out_width, channels]
                const Index* argmax,  // [batch, height, width, channels]
                Bits* grad_input,     // [batch, height, width, channels]
                FirstError* error) {
  const LaneLayout layout(g.channels, cells.columns * g.channels);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / g.height;
    const int64_t uncounted = params.include_batch_in_index ? 0 : b * g.out_per_image();
    ForGroups(g, cells, layout, row, [&](const Group& group) {
      const Index* masks = argmax + group.element;
      Bits* to = grad_input + group.element;
      if (cells.rows > 0 && Move<Direction::kGather>(g, layout, group, group.place - uncounted,
                                                     masks, grad + group.place, to)) {
        return true;
      }
      for (int lane = 0; lane < group.lanes; ++lane) {
        const int64_t place = Place(params, g, b, group.element + lane, masks[lane]);
        if (place < 0) {
          error->Note(group.element + lane);
          return false;
        }
        to[lane] = grad[place];
      }
      return true;
    });
  }
}

template <typename T, typename Index>
Status Gather(const Params& params, const Geometry& g, const Context& context, const T* grad,
              const Index* argmax, T* grad_input) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  const Cells cells = GuessCells(params, g, argmax);
  FirstError error;
  const int64_t cost = g.width * g.channels * std::max<int64_t>(1, cells.rows * cells.columns) / 2;
  ParallelFor(context.threads, g.batch * g.height, cost, [&](int64_t begin, int64_t end) {
    GatherRows(params, g, cells, begin, end, reinterpret_cast<const Bits*>(grad), argmax,
               reinterpret_cast<Bits*>(grad_input), &error);
  });
  return error.ToStatus(params, g, argmax);
}

}  // namespace

Status InferShape(const Params& params, const Shape& input, const Shape& argmax, int64_t out_height,
                  int64_t out_width, Shape* output) {
  Dim batch{"batch"}, height{"height"}, width{"width"}, channels{"channels"};
  ShapeChecker check(kOp);
  check.Require("input", input, {&batch, &height, &width, &channels});
  check.Require("argmax", argmax, {&batch, &height, &width, &channels});
  TFSEG_RETURN_IF_ERROR(check.status());
  const std::string size = Shape{out_height, out_width}.ToString();
  if ((out_height < 0 && out_height != kUnknown) || (out_width < 0 && out_width != kUnknown)) {
    return Invalid("'output_shape' must not be negative, got " + size);
  }
  if (params.check_windows && (std::min(params.ksize[0], params.ksize[1]) < 1 ||
                               std::min(params.strides[0], params.strides[1]) < 1)) {
    return Invalid(
        "'windows' must be positive, got " +
        Shape{params.ksize[0], params.ksize[1], params.strides[0], params.strides[1]}.ToString());
  }
  *output = Shape{batch.size, out_height, out_width, channels.size};
  if (!output->countable()) return Invalid("'output_shape' must fit into memory, got " + size);
  return Status::Ok();
}

Status Forward(const Params& params, const Context& context, const ConstBuffer& input,
               const ConstBuffer& argmax, const Buffer& output) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(
      InferShape(params, input.shape, argmax.shape, output.shape[1], output.shape[2], &shape));
  const Geometry g{input.shape[0], input.shape[1], input.shape[2],
                   input.shape[3], shape[1],       shape[2]};
  HintHugePages(output.data, g.num_outputs() * SizeOf(output.dtype));
  if (g.num_masks() == 0) {
    if (g.num_outputs() > 0) memset(output.data, 0, g.num_outputs() * SizeOf(output.dtype));
    return Status::Ok();
  }
  return DispatchFloat(kOp, "input", input.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      return Unpool(params, g, context, input.As<T>(), argmax.As<Index>(), output.As<T>());
    });
  });
}

Status Backward(const Params& params, const Context& context, const ConstBuffer& grad,
                const ConstBuffer& argmax, const Buffer& grad_input) {
  Dim batch{"batch"}, height{"height"}, width{"width"}, channels{"channels"};
  Dim mask_height{"height"}, mask_width{"width"};
  ShapeChecker check(kOp);
  check.Require("grad", grad.shape, {&batch, &height, &width, &channels});
  check.Require("argmax", argmax.shape, {&batch, &mask_height, &mask_width, &channels});
  TFSEG_RETURN_IF_ERROR(check.status());
  const Geometry g{batch.size,    mask_height.size, mask_width.size,
                   channels.size, height.size,      width.size};
  HintHugePages(grad_input.data, g.num_masks() * SizeOf(grad_input.dtype));
  if (g.num_masks() == 0) return Status::Ok();
  return DispatchFloat(kOp, "grad", grad.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      return Gather(params, g, context, grad.As<T>(), argmax.As<Index>(), grad_input.As<T>());
    });
  });
}

}  // namespace tfseg::core::max_unpool
