#include "core/max_unpool.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <type_traits>

#include "core/cells.h"
#include "core/first_error.h"
#include "core/memory.h"
#include "core/simd.h"

namespace tfseg::core::max_unpool {
namespace {

constexpr char kOp[] = "max_unpool";

Status Invalid(const std::string& text) {
  return Status::InvalidArgument(std::string(kOp) + ": " + text);
}

// Values that are only moved are moved as unsigned integers of their size.
template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 2, uint16_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;

// What is wrong with the first illegal mask.
template <typename Index>
Status ToStatus(const FirstError& error, const Params& params, const Geometry& g,
                const Index* argmax) {
  if (!error.any()) return Status::Ok();
  const int64_t element = error.element();
  const int64_t mask = argmax[element];
  const Shape where{element / g.masks_per_image(), element / (g.width * g.channels) % g.height,
                    element / g.channels % g.width, element % g.channels};
  const int64_t limit = params.include_batch_in_index ? g.num_outputs() : g.out_per_image();
  std::string rule = "lie in [0, " + std::to_string(limit) + ")";
  if (params.check_windows && mask >= 0 && mask < limit) {
    rule = "lie in its own window of ksize " + Shape{params.ksize[0], params.ksize[1]}.ToString() +
           " and strides " + Shape{params.strides[0], params.strides[1]}.ToString();
  }
  return Invalid("'argmax' must " + rule + ", got " + std::to_string(mask) + " at " +
                 where.ToString());
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
  constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
  const bool stream = WorthStreaming(output, g.num_outputs() * kSize, g.channels * kSize);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / g.height;
    const int64_t uncounted = params.include_batch_in_index ? 0 : b * g.out_per_image();
    const bool in_cells = ForGroups(g, cells, layout, row, [&](const Group& group) {
      const auto move = stream ? Move<Direction::kScatter, true, Bits, Index>
                               : Move<Direction::kScatter, false, Bits, Index>;
      return move(g, layout, group, group.place - uncounted, argmax + group.element,
                  input + group.element, output + group.place);
    });
    if (!in_cells) {
      if (stream) StreamFence();
      return false;
    }
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
  if (stream) StreamFence();
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
  const int64_t most_parts = std::min<int64_t>(4 * int64_t{context.threads.NumThreads()}, 256);
  const int64_t num_parts = std::clamp<int64_t>(num_masks / kBlock, 1, most_parts);
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
  TFSEG_RETURN_IF_ERROR(ToStatus(error, params, g, argmax));

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
  using Bits = BitsOf<T>;
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
  constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
  const bool stream = WorthStreaming(grad_input, g.num_masks() * kSize, g.channels * kSize);
  const auto move = stream ? Move<Direction::kGather, true, Bits, Index>
                           : Move<Direction::kGather, false, Bits, Index>;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / g.height;
    const int64_t uncounted = params.include_batch_in_index ? 0 : b * g.out_per_image();
    ForGroups(g, cells, layout, row, [&](const Group& group) {
      const Index* masks = argmax + group.element;
      Bits* to = grad_input + group.element;
      if (cells.rows > 0 &&
          move(g, layout, group, group.place - uncounted, masks, grad + group.place, to)) {
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
  if (stream) StreamFence();
}

template <typename T, typename Index>
Status Gather(const Params& params, const Geometry& g, const Context& context, const T* grad,
              const Index* argmax, T* grad_input) {
  using Bits = BitsOf<T>;
  const Cells cells = GuessCells(params, g, argmax);
  FirstError error;
  const int64_t cost = g.width * g.channels * std::max<int64_t>(1, cells.rows * cells.columns) / 2;
  ParallelFor(context.threads, g.batch * g.height, cost, [&](int64_t begin, int64_t end) {
    GatherRows(params, g, cells, begin, end, reinterpret_cast<const Bits*>(grad), argmax,
               reinterpret_cast<Bits*>(grad_input), &error);
  });
  return ToStatus(error, params, g, argmax);
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
  if (std::max(out_height, out_width) > std::numeric_limits<int32_t>::max()) {
    return Invalid("'output_shape' must fit into memory, got " + size);
  }
  if (params.check_windows) {
    TFSEG_RETURN_IF_ERROR(RequirePixels(kOp, "windows", params.ksize));
    TFSEG_RETURN_IF_ERROR(RequirePixels(kOp, "windows", params.strides));
  }
  *output = Shape{batch.size, out_height, out_width, channels.size};
  if (!output->countable()) return Invalid("'output_shape' must fit into memory, got " + size);
  return Status::Ok();
}

Status InferGradShape(const Shape& grad, const Shape& argmax, Shape* grad_input) {
  Dim batch{"batch"}, height{"height"}, width{"width"}, channels{"channels"};
  Dim mask_height{"height"}, mask_width{"width"};
  ShapeChecker check(kOp);
  check.Require("grad", grad, {&batch, &height, &width, &channels});
  check.Require("argmax", argmax, {&batch, &mask_height, &mask_width, &channels});
  *grad_input = Shape{batch.size, mask_height.size, mask_width.size, channels.size};
  return check.status();
}

Status Forward(const Params& params, const Context& context, const ConstBuffer& input,
               const ConstBuffer& argmax, const Buffer& output) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(
      InferShape(params, input.shape, argmax.shape, output.shape[1], output.shape[2], &shape));
  const Geometry g{input.shape[0], input.shape[1], input.shape[2],
                   input.shape[3], shape[1],       shape[2]};
  HintHugePages(output.data, g.num_outputs() * SizeOf(output.dtype));
  return DispatchFloat(kOp, "input", input.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      if (g.num_masks() == 0) {
        if (g.num_outputs() > 0) memset(output.data, 0, g.num_outputs() * sizeof(T));
        return Status::Ok();
      }
      return Unpool(params, g, context, input.As<T>(), argmax.As<Index>(), output.As<T>());
    });
  });
}

Status Backward(const Params& params, const Context& context, const ConstBuffer& grad,
                const ConstBuffer& argmax, const Buffer& grad_input) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(InferGradShape(grad.shape, argmax.shape, &shape));
  const Geometry g{shape[0], shape[1], shape[2], shape[3], grad.shape[1], grad.shape[2]};
  HintHugePages(grad_input.data, g.num_masks() * SizeOf(grad_input.dtype));
  return DispatchFloat(kOp, "grad", grad.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      if (g.num_masks() == 0) return Status::Ok();
      return Gather(params, g, context, grad.As<T>(), argmax.As<Index>(), grad_input.As<T>());
    });
  });
}

}  // namespace tfseg::core::max_unpool
