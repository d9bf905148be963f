#include <cstdint>
#include <limits>
#include <string>

#include "cuda/launch.h"
#include "cuda/max_unpool.h"

namespace tfseg::cuda {
namespace {

namespace op = core::max_unpool;

constexpr char kOp[] = "max_unpool";

// --- Masks in cells of their own ---------------------------------------------------------------
//
// The outputs are cut into as many cells as there are mask pixels, as pooling with windows that do
// not overlap would cut them. Each thread writes a cell, zeros where no mask points. A mask that
// names a place in another's cell raises a flag, and the kernels further below then write all
// outputs again; the host never waits for the flag.

// The size of a cell along one axis, of at least one output and mask. Only speed depends on it.
int64_t CellSize(int64_t out_size, int64_t size) {
  const int64_t down = out_size / size;
  const int64_t up = (out_size + size - 1) / size;
  // VALID pooling may leave pixels over at the end, SAME pooling may cut the last window short.
  const bool valid = down > 0 && out_size / down == size;
  return valid ? down : up;
}

// Cells [i * size, (i + 1) * size), the last up to the end.
__device__ inline core::max_pool_with_argmax::Span CellAlong(int64_t cell, int64_t cells,
                                                             int64_t size, int64_t out_size) {
  const int64_t begin = cell * size < out_size ? cell * size : out_size;
  const int64_t end = cell == cells - 1 || begin + size > out_size ? out_size : begin + size;
  return {begin, end};
}

template <int kCount, typename T, typename Index>
__global__ void __launch_bounds__(kBlockThreads)
    MaxUnpoolCellsKernel(int64_t packs, op::Params params, op::Geometry g, int64_t cell_rows,
                         int64_t cell_columns,
                         const T* input,        // [batch, height, width, channels]
                         const Index* argmax,   // [batch, height, width, channels]
                         T* output,             // [batch, out_height, out_width, channels]
                         unsigned* anywhere) {  // [1], 0 before
  const int64_t packs_per_pixel = g.channels / kCount;
  bool foreign = false;
  ForItems(packs, [&](int64_t pack) {
    const int64_t channel = pack % packs_per_pixel * kCount;
    const int64_t pixel = pack / packs_per_pixel;
    const int64_t row = pixel / g.width;
    const int64_t b = row / g.height;
    const Pack<T, kCount> values = LoadPack<kCount>(input + pack * kCount);
    const Pack<Index, kCount> masks = LoadPack<kCount>(argmax + pack * kCount);
    int64_t places[kCount];
    int missing = 0;
    for (int lane = 0; lane < kCount; ++lane) {
      places[lane] = op::Place(params, g, b, pack * kCount + lane, masks.lanes[lane]);
      missing += places[lane] >= 0;
    }
    const auto y = CellAlong(row % g.height, g.height, cell_rows, g.out_height);
    const auto x = CellAlong(pixel % g.width, g.width, cell_columns, g.out_width);
    for (int64_t i = y.begin; i < y.end; ++i) {
      for (int64_t j = x.begin; j < x.end; ++j) {
        const int64_t here = ((b * g.out_height + i) * g.out_width + j) * g.channels + channel;
        Pack<T, kCount> cell;
        for (int lane = 0; lane < kCount; ++lane) {
          const bool hit = places[lane] == here + lane;
          missing -= hit;
          cell.lanes[lane] = hit ? values.lanes[lane] : static_cast<T>(0.0f);
        }
        StorePack<kCount>(cell, output + here);
      }
    }
    foreign = foreign || missing != 0;
  });
  // Once a thread: with overlapping windows nearly every one has something to say.
  if (foreign) atomicExch(anywhere, 1u);
}

// --- Masks anywhere -----------------------------------------------------------------------------
//
// Each output holds the head of a list of the masks that name it. The lists are made in whatever
// order the threads run; the one thread that sums a list first sorts it by mask, so that the sum is
// that of the CPU, bit for bit, on every run.

template <typename Link>
inline constexpr Link kEnd = std::numeric_limits<Link>::max();

template <typename Link>
__global__ void __launch_bounds__(kBlockThreads)
    MaxUnpoolClearKernel(int64_t outputs, const unsigned* anywhere, Link* heads) {
  if (*anywhere == 0) return;
  ForItems(outputs, [&](int64_t place) { heads[place] = kEnd<Link>; });
}

template <typename Index, typename Link>
__global__ void __launch_bounds__(kBlockThreads)
    MaxUnpoolLinkKernel(int64_t masks, op::Params params, op::Geometry g, const unsigned* anywhere,
                        const Index* argmax,  // [batch, height, width, channels]
                        Link* heads,          // [batch, out_height, out_width, channels]
                        Link* next) {         // [batch, height, width, channels]
  if (*anywhere == 0) return;
  ForItems(masks, [&](int64_t element) {
    const int64_t place =
        op::Place(params, g, element / g.masks_per_image(), element, argmax[element]);
    if (place >= 0) next[element] = atomicExch(&heads[place], static_cast<Link>(element));
  });
}

// Sorts a list upwards in place: merge sort with runs of 1, 2, 4... (no recursion, no memory).
template <typename Link>
__device__ inline Link Sorted(Link list, Link* next) {
  for (int64_t run = 1;; run *= 2) {
    Link rest = list;
    Link last = kEnd<Link>;
    int64_t merges = 0;
    while (rest != kEnd<Link>) {
      ++merges;
      Link left = rest;
      int64_t left_size = 0;
      for (; left_size < run && rest != kEnd<Link>; ++left_size) rest = next[rest];
      Link right = rest;
      int64_t right_size = run;
      while (left_size > 0 || (right_size > 0 && right != kEnd<Link>)) {
        const bool from_right = right_size > 0 && right != kEnd<Link>;
        Link taken;
        if (left_size > 0 && (!from_right || left < right)) {
          taken = left;
          left = next[left];
          --left_size;
        } else {
          taken = right;
          right = next[right];
          --right_size;
        }
        if (last == kEnd<Link>) {
          list = taken;
        } else {
          next[last] = taken;
        }
        last = taken;
      }
      rest = right;
    }
    next[last] = kEnd<Link>;
    if (merges <= 1) return list;
  }
}

// `heads` may be the same memory as `output`: the thread that reads a head writes that output.
template <typename T, typename Link>
__global__ void __launch_bounds__(kBlockThreads)
    MaxUnpoolSumKernel(int64_t outputs, const unsigned* anywhere,
                       const T* input,     // [batch, height, width, channels]
                       const Link* heads,  // [batch, out_height, out_width, channels]
                       Link* next,         // [batch, height, width, channels]
                       T* output) {        // [batch, out_height, out_width, channels]
  if (*anywhere == 0) return;
  ForItems(outputs, [&](int64_t place) {
    Link list = heads[place];
    if (list != kEnd<Link> && next[list] != kEnd<Link>) list = Sorted(list, next);
    core::AccumulatorOf<T> sum = 0;
    for (; list != kEnd<Link>; list = next[list]) {
      sum += static_cast<core::AccumulatorOf<T>>(input[list]);
    }
    output[place] = static_cast<T>(sum);
  });
}

// --- The gradient -------------------------------------------------------------------------------

template <int kCount, typename T, typename Index>
__global__ void __launch_bounds__(kBlockThreads)
    MaxUnpoolGradKernel(int64_t packs, op::Params params, op::Geometry g,
                        const T* grad,        // [batch, out_height, out_width, channels]
                        const Index* argmax,  // [batch, height, width, channels]
                        T* grad_input) {      // [batch, height, width, channels]
  ForItems(packs, [&](int64_t pack) {
    const int64_t b = pack * kCount / g.masks_per_image();
    const Pack<Index, kCount> masks = LoadPack<kCount>(argmax + pack * kCount);
    Pack<T, kCount> picked;
    for (int lane = 0; lane < kCount; ++lane) {
      const int64_t place = op::Place(params, g, b, pack * kCount + lane, masks.lanes[lane]);
      picked.lanes[lane] = place >= 0 ? grad[place] : static_cast<T>(0.0f);
    }
    StorePack<kCount>(picked, grad_input + pack * kCount);
  });
}

template <typename Value>
Value* Allocate(const Context& context, int64_t count) {
  return static_cast<Value*>(
      context.workspace.Allocate(count * static_cast<int64_t>(sizeof(Value))));
}

template <typename Link, typename T, typename Index>
core::Status Unpool(const op::Params& params, const op::Geometry& g, const Context& context,
                    const T* input, const Index* argmax, T* output) {
  // Where heads are as wide as outputs, these have room for them until they are summed.
  constexpr bool kInPlace = sizeof(Link) == sizeof(T);
  auto* anywhere = Allocate<unsigned>(context, 1);
  auto* next = Allocate<Link>(context, g.num_masks());
  Link* heads =
      kInPlace ? reinterpret_cast<Link*>(output) : Allocate<Link>(context, g.num_outputs());
  if (anywhere == nullptr || next == nullptr || heads == nullptr) {
    return core::Status::ResourceExhausted(std::string(kOp) + ": no memory to list " +
                                           std::to_string(g.num_masks()) + " masks");
  }
  const int64_t rows = CellSize(g.out_height, g.height);
  const int64_t columns = CellSize(g.out_width, g.width);
  // A thread would write too much of the output alone.
  constexpr int64_t kLargestCell = 64;
  const bool cells = rows <= kLargestCell && columns <= kLargestCell;
  TFSEG_RETURN_IF_ERROR(
      ToStatus(kOp, cudaMemsetAsync(anywhere, cells ? 0 : 1, sizeof(*anywhere), context.stream)));
  constexpr int kCount = kFullPack<T>;
  if (cells && FitsPacks<kCount>(g.channels, input, argmax, output)) {
    TFSEG_RETURN_IF_ERROR(Launch(kOp, MaxUnpoolCellsKernel<kCount, T, Index>, context,
                                 g.num_masks() / kCount, params, g, rows, columns, input, argmax,
                                 output, anywhere));
  } else if (cells) {
    TFSEG_RETURN_IF_ERROR(Launch(kOp, MaxUnpoolCellsKernel<1, T, Index>, context, g.num_masks(),
                                 params, g, rows, columns, input, argmax, output, anywhere));
  }
  TFSEG_RETURN_IF_ERROR(
      Launch(kOp, MaxUnpoolClearKernel<Link>, context, g.num_outputs(), anywhere, heads));
  TFSEG_RETURN_IF_ERROR(Launch(kOp, MaxUnpoolLinkKernel<Index, Link>, context, g.num_masks(),
                               params, g, anywhere, argmax, heads, next));
  return Launch(kOp, MaxUnpoolSumKernel<T, Link>, context, g.num_outputs(), anywhere, input, heads,
                next, output);
}

}  // namespace

core::Status Forward(const op::Params& params, const Context& context,
                     const core::ConstBuffer& input, const core::ConstBuffer& argmax,
                     const core::Buffer& output) {
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(
      op::InferShape(params, input.shape, argmax.shape, output.shape[1], output.shape[2], &shape));
  const op::Geometry g{input.shape[0], input.shape[1], input.shape[2],
                       input.shape[3], shape[1],       shape[2]};
  return core::DispatchFloat(kOp, "input", input.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return core::DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      if (g.num_outputs() == 0) return core::Status::Ok();
      if (g.num_masks() == 0) {
        return ToStatus(
            kOp, cudaMemsetAsync(output.data, 0, g.num_outputs() * sizeof(T), context.stream));
      }
      const auto unpool = g.num_masks() < kEnd<unsigned> ? Unpool<unsigned, T, Index>
                                                         : Unpool<unsigned long long, T, Index>;
      return unpool(params, g, context, input.As<T>(), argmax.As<Index>(), output.As<T>());
    });
  });
}

core::Status Backward(const op::Params& params, const Context& context,
                      const core::ConstBuffer& grad, const core::ConstBuffer& argmax,
                      const core::Buffer& grad_input) {
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(op::InferGradShape(grad.shape, argmax.shape, &shape));
  const op::Geometry g{shape[0], shape[1], shape[2], shape[3], grad.shape[1], grad.shape[2]};
  return core::DispatchFloat(kOp, "grad", grad.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return core::DispatchIndex(kOp, "argmax", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      const T* from = grad.As<T>();
      const Index* masks = argmax.As<Index>();
      T* to = grad_input.As<T>();
      constexpr int kCount = kFullPack<T>;
      if (FitsPacks<kCount>(g.channels, masks, to)) {
        return Launch(kOp, MaxUnpoolGradKernel<kCount, T, Index>, context, g.num_masks() / kCount,
                      params, g, from, masks, to);
      }
      return Launch(kOp, MaxUnpoolGradKernel<1, T, Index>, context, g.num_masks(), params, g, from,
                    masks, to);
    });
  });
}

}  // namespace tfseg::cuda
