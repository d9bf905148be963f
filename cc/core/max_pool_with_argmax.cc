#include "core/max_pool_with_argmax.h"

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>

#include "core/memory.h"
#include "core/simd.h"

namespace tfseg::core::max_pool_with_argmax {
namespace {

constexpr char kOp[] = "max_pool_with_argmax";

Status Invalid(const std::string& text) {
  return Status::InvalidArgument(std::string(kOp) + ": " + text);
}

// The size of the output along one axis, as tf.nn.max_pool2d has it; kTooLarge for a window over
// the input.
constexpr int64_t kTooLarge = -1;
int64_t OutputSize(int64_t input, int64_t ksize, int64_t stride, bool same_padding) {
  if (input == kUnknown) return kUnknown;
  if (same_padding) return (input + stride - 1) / stride;
  return input - ksize + stride >= 0 ? (input - ksize + stride) / stride : kTooLarge;
}

// A window's rows and columns inside the input, and where its first element stands.
struct Window {
  int64_t rows, columns;
  int64_t position;
};

// The maxima in up to kLanes lanes, one by one. Where is an integer as wide as a value, so that
// value and position move in vectors of the same shape; it counts from the window's first element.
// kSpread: whether the lanes belong to several pixels.
template <bool kSpread, typename T, typename Where, typename Index>
inline void MaximaInLanes(const Geometry& g, const LaneLayout& layout, int count,
                          const Window& window,
                          const T* input,  // the window's first element
                          T* output, Index* argmax) {
  using Accumulator = AccumulatorOf<T>;
  const auto load = [&](int64_t offset, Accumulator* to) {
    if constexpr (kSpread) {
      for (int lane = 0; lane < count; ++lane) {
        to[lane] = static_cast<Accumulator>(input[offset + layout.offset[lane]]);
      }
    } else {
      LoadLanes(input + offset, count, to);
    }
  };
  Accumulator best[kLanes];
  Where where[kLanes];
  load(0, best);
  for (int lane = 0; lane < count; ++lane) where[lane] = 0;
  for (int64_t row = 0; row < window.rows; ++row) {
    for (int64_t column = row == 0 ? 1 : 0; column < window.columns; ++column) {
      const int64_t offset = (row * g.width + column) * g.channels;
      const auto here = static_cast<Where>(offset);
      Accumulator candidate[kLanes];
      load(offset, candidate);
      for (int lane = 0; lane < count; ++lane) {
        const bool beats = Beats(candidate[lane], best[lane]);
        best[lane] = beats ? candidate[lane] : best[lane];
        where[lane] = beats ? here : where[lane];
      }
    }
  }
  StoreLanes(best, count, output);
  for (int lane = 0; lane < count; ++lane) {
    argmax[lane] =
        static_cast<Index>(window.position + (kSpread ? layout.offset[lane] : lane) + where[lane]);
  }
}

// The same for kVectors registers of neighbouring lanes. kStream: results go past the caches.
template <int kVectors, bool kStream, typename T, typename Where, typename Index>
inline void MaximaInVectors(const Geometry& g, const Window& window, const T* input, T* output,
                            Index* argmax) {
  using Accumulator = AccumulatorOf<T>;
  static_assert(sizeof(Accumulator) == sizeof(Where), "value and position share a mask");
  constexpr int kWidth = VectorOf<Accumulator>::kWidth;
  constexpr int kCount = kVectors * kWidth;
  const auto load = [&](int64_t offset, Vector<Accumulator>* to) {
    if constexpr (std::is_same_v<T, Accumulator>) {
      for (int k = 0; k < kVectors; ++k) to[k] = LoadVector(input + offset + k * kWidth);
    } else {
      Accumulator lanes[kCount];
      LoadLanes(input + offset, kCount, lanes);
      for (int k = 0; k < kVectors; ++k) to[k] = LoadVector(lanes + k * kWidth);
    }
  };
  Vector<Accumulator> best[kVectors];
  Vector<Where> where[kVectors];
  load(0, best);
  for (int k = 0; k < kVectors; ++k) where[k] = Vector<Where>{};
  for (int64_t row = 0; row < window.rows; ++row) {
    for (int64_t column = row == 0 ? 1 : 0; column < window.columns; ++column) {
      const int64_t offset = (row * g.width + column) * g.channels;
      const Vector<Where> here = Vector<Where>{} + static_cast<Where>(offset);
      Vector<Accumulator> candidate[kVectors];
      load(offset, candidate);
      for (int k = 0; k < kVectors; ++k) {
        const auto beats = Beats(candidate[k], best[k]);
        best[k] = beats ? candidate[k] : best[k];
        where[k] = beats ? here : where[k];
      }
    }
  }
  Accumulator values[kCount];
  Where offsets[kCount];
  for (int k = 0; k < kVectors; ++k) {
    StoreVector<Accumulator>(best[k], values + k * kWidth);
    StoreVector<Where>(where[k], offsets + k * kWidth);
  }
  T stored[kCount];
  Index positions[kCount];
  StoreLanes(values, kCount, kStream ? stored : output);
  Index* to = kStream ? positions : argmax;
  for (int lane = 0; lane < kCount; ++lane) {
    to[lane] = static_cast<Index>(window.position + lane + offsets[lane]);
  }
  if constexpr (kStream) {
    StreamLines<kCount>(stored, output);
    StreamLines<kCount>(positions, argmax);
  }
}

// The maxima of one output pixel, from `channel` on, in as many groups of kVectors registers as
// there are.
template <int kVectors, bool kStream, typename T, typename Where, typename Index>
inline int64_t MaximaFrom(int64_t channel, const Geometry& g, const Window& window, const T* input,
                          T* output, Index* argmax) {
  constexpr int kCount = kVectors * VectorOf<AccumulatorOf<T>>::kWidth;
  for (; channel + kCount <= g.channels; channel += kCount) {
    MaximaInVectors<kVectors, kStream, T, Where>(
        g, {window.rows, window.columns, window.position + channel}, input + channel,
        output + channel, argmax + channel);
  }
  return channel;
}

template <typename T, typename Where, typename Index>
inline void Maxima(const Geometry& g, const LaneLayout& layout, bool stream, const Window& window,
                   const T* input, T* output, Index* argmax) {
  int64_t channel = 0;
  if constexpr (sizeof(Where) == sizeof(AccumulatorOf<T>)) {
    constexpr int kCount = 4 * VectorOf<AccumulatorOf<T>>::kWidth;
    if constexpr (kCount * sizeof(T) % kLine == 0 && kCount * sizeof(Index) % kLine == 0) {
      if (stream) channel = MaximaFrom<4, true, T, Where>(0, g, window, input, output, argmax);
    }
    channel = MaximaFrom<4, false, T, Where>(channel, g, window, input, output, argmax);
    channel = MaximaFrom<2, false, T, Where>(channel, g, window, input, output, argmax);
    channel = MaximaFrom<1, false, T, Where>(channel, g, window, input, output, argmax);
  }
  while (channel < g.channels) {
    const auto count = static_cast<int>(std::min<int64_t>(kLanes, g.channels - channel));
    MaximaInLanes<false, T, Where>(g, layout, count,
                                   {window.rows, window.columns, window.position + channel},
                                   input + channel, output + channel, argmax + channel);
    channel += count;
  }
}

// Output rows [begin, end) of all images together.
template <typename T, typename Where, typename Index>
void Rows(const Params& params, const Geometry& g, int64_t begin, int64_t end,
          const T* input,   // [batch, height, width, channels]
          T* output,        // [batch, out_height, out_width, channels]
          Index* argmax) {  // [batch, out_height, out_width, channels]
  const int64_t image = g.height * g.width * g.channels;
  const LaneLayout layout(g.channels, params.strides[1] * g.channels);
  const int64_t outputs = g.batch * g.out_height * g.out_width * g.channels;
  const bool stream = WorthStreaming(output, outputs * sizeof(T), g.channels * sizeof(T)) &&
                      WorthStreaming(argmax, outputs * sizeof(Index), g.channels * sizeof(Index));
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / g.out_height;
    const Span y =
        WindowAlong(row % g.out_height, params.ksize[0], params.strides[0], g.pad_top, g.height);
    for (int64_t j = 0; j < g.out_width;) {
      const Span x = WindowAlong(j, params.ksize[1], params.strides[1], g.pad_left, g.width);
      const int64_t inside = (y.begin * g.width + x.begin) * g.channels;
      const Window window{y.end - y.begin, x.end - x.begin,
                          inside + (params.include_batch_in_index ? b * image : 0)};
      const T* first = input + b * image + inside;
      const int64_t out = (row * g.out_width + j) * g.channels;
      // Several pixels at once only where no window is cut by the border.
      const int64_t last = j + layout.pixels - 1;
      if (layout.pixels > 1 && last < g.out_width && j * params.strides[1] >= g.pad_left &&
          last * params.strides[1] - g.pad_left + params.ksize[1] <= g.width) {
        MaximaInLanes<true, T, Where>(g, layout, layout.pixels * static_cast<int>(g.channels),
                                      window, first, output + out, argmax + out);
        j += layout.pixels;
      } else {
        Maxima<T, Where>(g, layout, stream, window, first, output + out, argmax + out);
        ++j;
      }
    }
  }
  if (stream) StreamFence();
}

template <typename T, typename Index>
void Run(const Params& params, const Geometry& g, ThreadPool& threads, const T* input, T* output,
         Index* argmax) {
  using SameWidth = std::conditional_t<std::is_same_v<T, double>, int64_t, int32_t>;
  // A window may span more elements than 32 bits count.
  const bool narrow =
      params.ksize[0] <= std::numeric_limits<int32_t>::max() / (g.width * g.channels);
  const int64_t candidates =
      std::min(params.ksize[0], g.height) * std::min(params.ksize[1], g.width);
  const int64_t cost = g.out_width * g.channels * candidates / 4;
  ParallelFor(threads, g.batch * g.out_height, cost, [&](int64_t begin, int64_t end) {
    if (narrow) {
      Rows<T, SameWidth>(params, g, begin, end, input, output, argmax);
    } else {
      Rows<T, int64_t>(params, g, begin, end, input, output, argmax);
    }
  });
}

}  // namespace

Status InferShape(const Params& params, const Shape& input, DType argmax, Shape* output) {
  TFSEG_RETURN_IF_ERROR(RequirePixels(kOp, "ksize", params.ksize));
  TFSEG_RETURN_IF_ERROR(RequirePixels(kOp, "strides", params.strides));
  Dim batch{"batch"}, height{"height"}, width{"width"}, channels{"channels"};
  ShapeChecker check(kOp);
  check.Require("input", input, {&batch, &height, &width, &channels});
  TFSEG_RETURN_IF_ERROR(check.status());

  const int64_t out_height =
      OutputSize(height.size, params.ksize[0], params.strides[0], params.same_padding);
  const int64_t out_width =
      OutputSize(width.size, params.ksize[1], params.strides[1], params.same_padding);
  if (out_height == kTooLarge || out_width == kTooLarge) {
    return Invalid("'ksize' must fit into the input of shape " + input.ToString() +
                   " with padding VALID, got " +
                   Shape{params.ksize[0], params.ksize[1]}.ToString());
  }
  *output = Shape{batch.size, out_height, out_width, channels.size};

  const bool known = height.size != kUnknown && width.size != kUnknown &&
                     channels.size != kUnknown &&
                     (batch.size != kUnknown || !params.include_batch_in_index);
  if (known && argmax == DType::kInt32) {
    const int64_t positions =
        height.size * width.size * channels.size * (params.include_batch_in_index ? batch.size : 1);
    if (positions - 1 > std::numeric_limits<int32_t>::max()) {
      return Invalid("'output_dtype' must be int64 for " + std::to_string(positions) +
                     " positions, got int32");
    }
  }
  return Status::Ok();
}

Status Forward(const Params& params, const Context& context, const ConstBuffer& input,
               const Buffer& output, const Buffer& argmax) {
  Shape shape;
  TFSEG_RETURN_IF_ERROR(InferShape(params, input.shape, argmax.dtype, &shape));
  HintHugePages(output.data, shape.num_elements() * SizeOf(output.dtype));
  HintHugePages(argmax.data, shape.num_elements() * SizeOf(argmax.dtype));
  const Geometry g = GeometryOf(params, input.shape, shape);
  return DispatchFloat(kOp, "input", input.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    return DispatchIndex(kOp, "output_dtype", argmax.dtype, [&](auto index) {
      using Index = typename decltype(index)::type;
      if (shape.num_elements() == 0) return Status::Ok();
      Run(params, g, context.threads, input.As<T>(), output.As<T>(), argmax.As<Index>());
      return Status::Ok();
    });
  });
}

}  // namespace tfseg::core::max_pool_with_argmax
