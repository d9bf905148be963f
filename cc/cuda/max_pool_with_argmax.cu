#include <cstdint>

#include "cuda/launch.h"
#include "cuda/max_pool_with_argmax.h"

namespace tfseg::cuda {
namespace {

namespace op = core::max_pool_with_argmax;

constexpr char kOp[] = "max_pool_with_argmax";

// A thread finds the maxima of kCount channels of one output pixel.
template <int kCount, typename T, typename Index>
__global__ void __launch_bounds__(kBlockThreads)
    MaxPoolWithArgmaxKernel(int64_t packs, op::Params params, op::Geometry g,
                            const T* input,   // [batch, height, width, channels]
                            T* output,        // [batch, out_height, out_width, channels]
                            Index* argmax) {  // [batch, out_height, out_width, channels]
  using Accumulator = core::AccumulatorOf<T>;
  const int64_t packs_per_pixel = g.channels / kCount;
  ForItems(packs, [&](int64_t pack) {
    const int64_t channel = pack % packs_per_pixel * kCount;
    const int64_t pixel = pack / packs_per_pixel;
    const int64_t row = pixel / g.out_width;
    const int64_t b = row / g.out_height;
    const op::Span y = op::WindowAlong(row % g.out_height, params.ksize[0], params.strides[0],
                                       g.pad_top, g.height);
    const op::Span x = op::WindowAlong(pixel % g.out_width, params.ksize[1], params.strides[1],
                                       g.pad_left, g.width);
    const int64_t image = b * g.height * g.width * g.channels;
    const int64_t first = (y.begin * g.width + x.begin) * g.channels + channel;
    Accumulator best[kCount];
    int64_t where[kCount];
    const Pack<T, kCount> start = LoadPack<kCount>(input + image + first);
    for (int lane = 0; lane < kCount; ++lane) {
      best[lane] = static_cast<Accumulator>(start.lanes[lane]);
      where[lane] = first;
    }
    for (int64_t i = y.begin; i < y.end; ++i) {
      for (int64_t j = x.begin; j < x.end; ++j) {
        const int64_t position = (i * g.width + j) * g.channels + channel;
        const Pack<T, kCount> pack_here = LoadPack<kCount>(input + image + position);
        for (int lane = 0; lane < kCount; ++lane) {
          const auto candidate = static_cast<Accumulator>(pack_here.lanes[lane]);
          if (op::Beats(candidate, best[lane])) {
            best[lane] = candidate;
            where[lane] = position;
          }
        }
      }
    }
    Pack<T, kCount> values;
    Pack<Index, kCount> positions;
    const int64_t counted = params.include_batch_in_index ? image : 0;
    for (int lane = 0; lane < kCount; ++lane) {
      values.lanes[lane] = static_cast<T>(best[lane]);
      positions.lanes[lane] = static_cast<Index>(counted + where[lane] + lane);
    }
    StorePack<kCount>(values, output + pack * kCount);
    StorePack<kCount>(positions, argmax + pack * kCount);
  });
}

}  // namespace

core::Status Forward(const op::Params& params, const Context& context,
                     const core::ConstBuffer& input, const core::Buffer& output,
                     const core::Buffer& argmax) {
  core::Shape shape;
  TFSEG_RETURN_IF_ERROR(op::InferShape(params, input.shape, argmax.dtype, &shape));
  const op::Geometry g = op::GeometryOf(params, input.shape, shape);
  const int64_t outputs = shape.num_elements();
  return core::DispatchFloat(kOp, "input", input.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return core::DispatchIndex(kOp, "output_dtype", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      const T* from = input.As<T>();
      T* to = output.As<T>();
      Index* positions = argmax.As<Index>();
      constexpr int kCount = kFullPack<T>;
      if (FitsPacks<kCount>(g.channels, from, to, positions)) {
        return Launch(kOp, MaxPoolWithArgmaxKernel<kCount, T, Index>, context, outputs / kCount,
                      params, g, from, to, positions);
      }
      return Launch(kOp, MaxPoolWithArgmaxKernel<1, T, Index>, context, outputs, params, g, from,
                    to, positions);
    });
  });
}

}  // namespace tfseg::cuda
