// The launchers of max_unpool: the sums of the legal masks, in the order of the masks, and their
// gradient.
#include <algorithm>
#include <string>
#include <vector>

#include "core/max_unpool.h"
#include "cuda/launch_test.h"
#include "cuda/max_unpool.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::max_unpool;

// What the header of core says, one mask after the other; illegal ones contribute nothing.
void Expected(const op::Params& params, const op::Geometry& g, Array& input, Array& argmax,
              Array& output, Array& grad, Array& grad_input) {
  WithFloat(input.dtype(), [&](auto value) {
    using T = typename decltype(value)::type;
    using Accumulator = core::AccumulatorOf<T>;
    std::vector<Accumulator> sums(static_cast<size_t>(g.num_outputs()), Accumulator{0});
    WithIndex(argmax.dtype(), [&](auto index) {
      using Index = typename decltype(index)::type;
      for (int64_t element = 0; element < g.num_masks(); ++element) {
        const int64_t b = element / g.masks_per_image();
        const Index mask = argmax.As<Index>()[element];
        const int64_t place = op::Place(params, g, b, element, mask);
        if (place >= 0) sums[place] += static_cast<Accumulator>(input.As<T>()[element]);
        grad_input.As<T>()[element] = place >= 0 ? grad.As<T>()[place] : static_cast<T>(0.0f);
      }
    });
    for (int64_t k = 0; k < g.num_outputs(); ++k) output.As<T>()[k] = static_cast<T>(sums[k]);
  });
}

void Compare(const op::Params& params, const op::Geometry& g, Array& input, Array& argmax,
             Draw& draw, const std::string& what) {
  const core::Shape out_shape{g.batch, g.out_height, g.out_width, g.channels};
  Array grad(input.dtype(), out_shape);
  draw.Fill(grad, false);
  Array output(input.dtype(), out_shape), expected(input.dtype(), out_shape);
  Array grad_input(input.dtype(), input.shape()), expected_grad(input.dtype(), input.shape());
  Contexts contexts;
  ExpectOk(Forward(params, contexts.cuda(), input.In(), argmax.In(), output.Out()), what);
  ExpectOk(Backward(params, contexts.cuda(), grad.In(), argmax.In(), grad_input.Out()), what);
  Expected(params, g, input, argmax, expected, grad, expected_grad);
  Expect(Same(output, expected), what + ": output");
  Expect(Same(grad_input, expected_grad), what + ": gradient");
}

enum Masks { kOwnCell, kNearby, kAnywhere, kOnePlace, kIllegalToo, kNumMasks };

// A mask for one element, as its kind has it. `step` is the size of a cell.
int64_t MaskOf(Masks kind, const op::Params& params, const op::Geometry& g,
               const int64_t (&step)[2], int64_t element, Draw& draw) {
  const int64_t channel = element % g.channels;
  const int64_t column = element / g.channels % g.width;
  const int64_t row = element / g.channels / g.width % g.height;
  const int64_t image = element / g.masks_per_image();
  const int64_t base = params.include_batch_in_index ? image * g.out_per_image() : 0;
  const auto near = [&](int64_t cell, int64_t size, int64_t out, int64_t reach) {
    return std::clamp<int64_t>(cell * size + draw.Number(0, size - 1 + reach), 0, out - 1);
  };
  const int64_t reach = kind == kNearby ? 1 : 0;
  const int64_t own = (near(row, step[0], g.out_height, reach) * g.out_width +
                       near(column, step[1], g.out_width, reach)) *
                          g.channels +
                      channel;
  const int64_t limit = params.include_batch_in_index ? g.num_outputs() : g.out_per_image();
  switch (kind) {
    case kAnywhere:
      return draw.Number(0, limit - 1);
    case kOnePlace:
      return limit / 2;
    case kIllegalToo:
      return draw.Coin(3) ? (draw.Coin() ? -1 - draw.Number(0, 9) : limit + draw.Number(0, 9))
                          : base + own;
    default:
      return base + own;
  }
}

void TestDrawnMasks() {
  for (int k = 0; k < kDraws; ++k) {
    Draw draw(1000 + k);
    op::Params params;
    params.include_batch_in_index = draw.Coin();
    const int64_t step[2] = {draw.Number(1, 3), draw.Number(1, 3)};
    op::Geometry g{draw.Number(1, 2), draw.Number(1, 4), draw.Number(1, 4), draw.Channels(), 0, 0};
    // Cut short by SAME pooling, or with pixels over from VALID pooling.
    g.out_height = std::max<int64_t>(1, g.height * step[0] + draw.Number(-1, 1));
    g.out_width = std::max<int64_t>(1, g.width * step[1] + draw.Number(-1, 1));
    const auto kind = static_cast<Masks>(k % kNumMasks);
    if (kind == kIllegalToo && draw.Coin()) {
      params.check_windows = true;
      for (int axis = 0; axis < 2; ++axis) params.ksize[axis] = params.strides[axis] = step[axis];
    }
    const core::Shape shape{g.batch, g.height, g.width, g.channels};
    Array input(draw.Float(), shape), argmax(draw.Index(), shape);
    draw.Fill(input, false);
    WithIndex(argmax.dtype(), [&](auto tag) {
      using Index = typename decltype(tag)::type;
      for (int64_t e = 0; e < argmax.size(); ++e) {
        argmax.As<Index>()[e] = static_cast<Index>(MaskOf(kind, params, g, step, e, draw));
      }
    });
    Compare(params, g, input, argmax, draw, "draw " + std::to_string(k));
  }
}

void TestLongListIsSummedInTheOrderOfTheMasks() {
  Draw draw(5);
  const op::Geometry g{1, 40, 40, 1, 3, 3};
  for (const core::DType dtype : {core::DType::kFloat16, core::DType::kFloat32}) {
    Array input(dtype, {1, 40, 40, 1}), argmax(core::DType::kInt32, {1, 40, 40, 1});
    draw.Fill(input, false);
    for (int64_t e = 0; e < argmax.size(); ++e) argmax.As<int32_t>()[e] = e % 7 == 0 ? 2 : 4;
    Compare({}, g, input, argmax, draw, "long lists");
  }
}

void TestEmptyInputs() {
  Draw draw(6);
  for (const core::Shape& shape :
       {core::Shape{0, 2, 2, 3}, core::Shape{2, 0, 2, 3}, core::Shape{2, 2, 2, 0}}) {
    const op::Geometry g{shape[0], shape[1], shape[2], shape[3], 4, 4};
    Array input(core::DType::kFloat32, shape), argmax(core::DType::kInt64, shape);
    Compare({}, g, input, argmax, draw, "empty " + shape.ToString());
  }
}

void TestBadShapesAreErrors() {
  Array input(core::DType::kFloat32, {1, 2, 2, 1}), argmax(core::DType::kInt32, {1, 2, 3, 1});
  Array output(core::DType::kFloat32, {1, 4, 4, 1});
  Contexts contexts;
  Expect(Forward(op::Params{}, contexts.cuda(), input.In(), argmax.In(), output.Out()).code ==
             core::Code::kInvalidArgument,
         "shapes that differ");
}

}  // namespace

int main() {
  TestDrawnMasks();
  TestLongListIsSummedInTheOrderOfTheMasks();
  TestEmptyInputs();
  TestBadShapesAreErrors();
  return Finish();
}
