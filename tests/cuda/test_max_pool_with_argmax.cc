// The launcher of max_pool_with_argmax gives what core gives.
#include <string>

#include "core/max_pool_with_argmax.h"
#include "cuda/launch_test.h"
#include "cuda/max_pool_with_argmax.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::max_pool_with_argmax;

void Compare(const op::Params& params, Array& input, core::DType index, const std::string& what) {
  core::Shape shape;
  if (!op::InferShape(params, input.shape(), index, &shape).ok()) return;
  Array values(input.dtype(), shape), masks(index, shape);
  Array expected_values(input.dtype(), shape), expected_masks(index, shape);
  Contexts contexts;
  ExpectOk(
      Forward(params, contexts.core(), input.In(), expected_values.Out(), expected_masks.Out()),
      what);
  ExpectOk(Forward(params, contexts.cuda(), input.In(), values.Out(), masks.Out()), what);
  Expect(Same(values, expected_values), what + ": values");
  Expect(Same(masks, expected_masks), what + ": masks");
}

void TestDrawnInputsGiveWhatCoreGives() {
  for (int k = 0; k < kDraws; ++k) {
    Draw draw(k);
    const core::Shape shape{draw.Number(0, 3), draw.Number(1, 9), draw.Number(1, 9),
                            draw.Coin(20) ? 0 : draw.Channels()};
    const op::Params params{{draw.Number(1, 4), draw.Number(1, 4)},
                            {draw.Number(1, 4), draw.Number(1, 4)},
                            draw.Coin(),
                            draw.Coin()};
    Array input(draw.Float(), shape);
    draw.Fill(input, draw.Coin());
    Compare(params, input, draw.Index(), "draw " + std::to_string(k));
  }
}

void TestMoreItemsThanThreads() {
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  Draw draw(1);
  Array input(core::DType::kFloat32, {1, 1, 1100001, 1});
  draw.Fill(input, false);
  Compare({{1, 1}, {1, 1}, false, false}, input, core::DType::kInt32, "over a million items");
#endif
}

}  // namespace

int main() {
  TestDrawnInputsGiveWhatCoreGives();
  TestMoreItemsThanThreads();
  return Finish();
}
