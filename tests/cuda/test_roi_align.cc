// The launchers of roi_align: core's results, zeros for boxes whose indices or levels do not exist,
// and the same bits whatever the order of the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "core/roi_align.h"
#include "cuda/launch_test.h"
#include "cuda/roi_align.h"
#include "emulator.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::roi_align;

core::DType AccumulatorOf(core::DType dtype) {
  return dtype == core::DType::kFloat64 ? core::DType::kFloat64 : core::DType::kFloat32;
}

// Numbers that differ by no more than the dtype's rounding, and that of sums in other orders, can
// explain. NaN is close to NaN only.
bool Close(Array& actual, Array& expected) {
  bool close = actual.dtype() == expected.dtype() && actual.size() == expected.size();
  if (!close) return false;
  const core::DType dtype = actual.dtype();
  const double sums = dtype == core::DType::kFloat64 ? 1e-12 : 2e-5;
  const double rounding = dtype == core::DType::kFloat16    ? 2e-3
                          : dtype == core::DType::kBFloat16 ? 1.6e-2
                                                            : sums;
  WithFloat(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto at = [](Array& array, int64_t k) {
      return static_cast<double>(static_cast<core::AccumulatorOf<T>>(array.As<T>()[k]));
    };
    double largest = 1;
    for (int64_t k = 0; k < expected.size(); ++k) {
      const double size = std::fabs(at(expected, k));
      if (size <= std::numeric_limits<double>::max()) largest = std::max(largest, size);
    }
    for (int64_t k = 0; k < actual.size(); ++k) {
      const double x = at(actual, k), y = at(expected, k);
      close = close && (x == y || (x != x && y != y) ||
                        std::fabs(x - y) <= rounding * std::fabs(y) + sums * largest);
    }
  });
  return close;
}

bool SameBits(Array& a, Array& b) {
  const auto bytes = static_cast<size_t>(a.size() * core::SizeOf(a.dtype()));
  return a.size() == b.size() && (bytes == 0 || memcmp(a.In().data, b.In().data, bytes) == 0);
}

// Inputs of all launchers. Core gets an index -1 where the launchers get one that does not exist.
struct Inputs {
  op::Params params;
  std::vector<Array> features;
  Array boxes, images, levels, images_for_core, grad;

  Inputs(const op::Params& params, core::DType dtype, core::DType index, int64_t num_boxes,
         const std::vector<core::Shape>& shapes)
      : params(params),
        boxes(AccumulatorOf(dtype), {num_boxes, 4}),
        images(index, {num_boxes}),
        levels(index, {num_boxes}),
        images_for_core(index, {num_boxes}),
        grad(dtype, {num_boxes, params.output_size[0], params.output_size[1], shapes[0][3]}) {
    this->params.num_levels = static_cast<int>(shapes.size());
    for (const core::Shape& shape : shapes) features.emplace_back(dtype, shape);
  }

  core::DType dtype() const { return grad.dtype(); }
  std::vector<core::ConstBuffer> Features() const {
    std::vector<core::ConstBuffer> buffers;
    for (const Array& map : features) buffers.push_back(map.In());
    return buffers;
  }

  void SetBox(int64_t k, const double (&corners)[4], int64_t image, int64_t level,
              bool legal = true) {
    WithFloat(boxes.dtype(), [&](auto tag) {
      using A = core::AccumulatorOf<typename decltype(tag)::type>;
      for (int n = 0; n < 4; ++n) boxes.As<A>()[4 * k + n] = static_cast<A>(corners[n]);
    });
    WithIndex(images.dtype(), [&](auto tag) {
      using Index = typename decltype(tag)::type;
      images.As<Index>()[k] = static_cast<Index>(image);
      levels.As<Index>()[k] = static_cast<Index>(level);
      images_for_core.As<Index>()[k] = legal ? static_cast<Index>(image) : Index{-1};
    });
  }
};

struct Results {
  Array output, grad_boxes;
  std::vector<Array> grad_features;

  explicit Results(const Inputs& in)
      : output(in.dtype(), in.grad.shape()), grad_boxes(in.boxes.dtype(), in.boxes.shape()) {
    for (const Array& map : in.features) grad_features.emplace_back(in.dtype(), map.shape());
  }

  // With the launchers or with core, whichever has this context.
  template <typename Context>
  void Make(const Inputs& in, const Array& images, const Context& context,
            const std::string& what) {
    ExpectOk(Forward(in.params, context, in.Features(), in.boxes.In(), images.In(), in.levels.In(),
                     output.Out()),
             what + ": forward");
    std::vector<core::Buffer> maps;
    for (Array& map : grad_features) maps.push_back(map.Out());
    ExpectOk(BackwardToFeatures(in.params, context, in.grad.In(), in.boxes.In(), images.In(),
                                in.levels.In(), maps),
             what + ": backward to features");
    ExpectOk(BackwardToBoxes(in.params, context, in.grad.In(), in.Features(), in.boxes.In(),
                             images.In(), in.levels.In(), grad_boxes.Out()),
             what + ": backward to boxes");
  }
};

// `special`: NaN and infinities among the features and gradients. Those of the boxes are then not
// compared: core multiplies pixels by zeros there.
void Compare(const Inputs& in, const std::string& what, bool special = false) {
  Results actual(in), expected(in);
  Contexts contexts;
  actual.Make(in, in.images, contexts.cuda(), what);
  expected.Make(in, in.images_for_core, contexts.core(), what + ", core");
  Expect(Close(actual.output, expected.output), what + ": output");
  for (size_t level = 0; level < in.features.size(); ++level) {
    Expect(Close(actual.grad_features[level], expected.grad_features[level]),
           what + ": gradient of level " + std::to_string(level));
  }
  if (!special) Expect(Close(actual.grad_boxes, expected.grad_boxes), what + ": boxes' gradient");
}

// A coordinate pair along one axis, in pixels of a map of `extent`.
void DrawPair(Draw& draw, int64_t extent, double* first, double* second) {
  const auto number = [&](int64_t low, int64_t high) {
    return static_cast<double>(draw.Number(16 * low, 16 * high)) / 16;
  };
  *first = number(-3, extent + 2);
  switch (draw.Number(0, 5)) {
    case 0:  // centres and borders of pixels
      *first = std::floor(*first * 2) / 2;
      *second = *first + static_cast<double>(draw.Number(-2, 2 * extent)) / 2;
      break;
    case 1:  // any position, also reversed
      *second = number(-3, extent + 2);
      break;
    case 2:  // much larger than the map: many points, few of them inside
      *second = *first + number(20, 3000);
      *first -= draw.Coin() ? number(0, 3000) : 0;
      break;
    case 3:  // within one pixel or two
      *second = *first + number(0, 2) / 16;
      break;
    default:
      *second = *first + number(0, extent);
  }
  constexpr double kInf = std::numeric_limits<double>::infinity();
  constexpr double kWild[] = {1e30,   -1e30, 3e38, -3e38,
                              kInf,   -kInf, 1e9,  std::numeric_limits<double>::quiet_NaN(),
                              -1e-30, 0.0};
  if (draw.Coin(12)) (draw.Coin() ? *first : *second) = kWild[draw.Number(0, 9)];
}

// Sets all boxes; one in three has an index or a level that does not exist, where `illegal`.
void DrawBoxes(Draw& draw, Inputs& in, bool illegal) {
  const int64_t batch = in.features[0].shape()[0], num_levels = in.params.num_levels;
  const bool wide = in.images.dtype() == core::DType::kInt64;
  constexpr int64_t k32 = int64_t{1} << 32;  // 0 where it is cut to 32 bits
  for (int64_t k = 0; k < in.boxes.shape()[0]; ++k) {
    int64_t image = batch > 0 ? draw.Number(0, batch - 1) : -1;
    int64_t level = draw.Number(0, num_levels - 1);
    double corners[4];
    const core::Shape& shape = in.features[level].shape();
    for (int axis = 0; axis < 2; ++axis) {
      DrawPair(draw, shape[1 + axis], &corners[axis], &corners[2 + axis]);
    }
    for (double& corner : corners) corner /= in.params.spatial_scales[level];
    bool legal = true;
    if (illegal && draw.Coin(3)) {
      constexpr int64_t kLeast = std::numeric_limits<int32_t>::min();
      const int64_t wrong[] = {batch, -2, kLeast, -kLeast - 1, wide ? k32 : -3};
      const int64_t wrong_levels[] = {num_levels, -1, kLeast, -kLeast - 1, wide ? k32 : 99};
      if (draw.Coin()) {
        image = wrong[draw.Number(0, 4)];
      } else {
        level = wrong_levels[draw.Number(0, 4)];
      }
      legal = false;
    } else if (draw.Coin(8)) {
      image = -1;  // whatever its level
      level = draw.Number(-1, num_levels);
    }
    in.SetBox(k, corners, image, level, legal);
  }
}

op::Params DrawParams(Draw& draw) {
  op::Params params;
  for (int64_t& bins : params.output_size) bins = draw.Number(1, 3);
  if (draw.Coin(10)) params.output_size[draw.Number(0, 1)] = 11;
  params.sampling_ratio = draw.Coin(10) ? 12 : draw.Number(0, 3);
  params.aligned = draw.Coin();
  constexpr float kScales[] = {1.0f, 0.5f, 0.25f, 0.0625f, 0.3f, 2.0f};
  for (float& scale : params.spatial_scales) scale = kScales[draw.Number(0, 5)];
  return params;
}

void TestDrawnBoxes() {
  for (int k = 0; k < kDraws; ++k) {
    Draw draw(2000 + k);
    const int64_t batch = draw.Number(1, 2), channels = draw.Channels();
    std::vector<core::Shape> shapes;
    for (int64_t level = draw.Coin() ? draw.Number(1, 3) : 1; level > 0; --level) {
      shapes.push_back({batch, draw.Number(1, 7), draw.Number(1, 7), channels});
    }
    const op::Params params = DrawParams(draw);
    const int64_t bins = params.output_size[0] * params.output_size[1];
    Inputs in(params, draw.Float(), draw.Index(), draw.Number(0, bins > 9 ? 2 : 5), shapes);
    const bool special = draw.Coin(4);
    for (Array& map : in.features) draw.Fill(map, special);
    draw.Fill(in.grad, special);
    DrawBoxes(draw, in, k % 2 == 0);
    Compare(in, "draw " + std::to_string(k), special);
  }
}

void TestBoxesWithoutAMapGiveZerosAndGetNoGradient() {
  Draw draw(7);
  op::Params params;
  params.output_size[0] = params.output_size[1] = 2;
  for (float& scale : params.spatial_scales) scale = 1;
  for (const core::DType dtype : {core::DType::kFloat16, core::DType::kFloat64}) {
    Inputs in(params, dtype, core::DType::kInt64, 5, {{2, 4, 4, 8}, {2, 2, 2, 8}});
    for (Array& map : in.features) draw.Fill(map, false);
    draw.Fill(in.grad, false);
    const int64_t places[5][2] = {{-1, 0}, {2, 0}, {0, 2}, {0, -1}, {int64_t{1} << 32, 0}};
    for (int64_t k = 0; k < 5; ++k) in.SetBox(k, {0, 0, 4, 4}, places[k][0], places[k][1], false);
    Results results(in);
    Contexts contexts;
    results.Make(in, in.images, contexts.cuda(), "no map");
    const auto expect_zeros = [](Array& array) {
      WithFloat(array.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (int64_t k = 0; k < array.size(); ++k) {
          Expect(static_cast<core::AccumulatorOf<T>>(array.As<T>()[k]) == 0, "no map: zeros");
        }
      });
    };
    expect_zeros(results.output);
    expect_zeros(results.grad_boxes);
    for (Array& map : results.grad_features) expect_zeros(map);
  }
}

void TestEmptyInputs() {
  Draw draw(8);
  op::Params params;
  params.output_size[0] = 2;
  params.output_size[1] = 3;
  for (float& scale : params.spatial_scales) scale = 1;
  for (const int64_t num_boxes : {0, 3}) {
    for (const core::Shape& shape :
         {core::Shape{0, 2, 2, 3}, core::Shape{2, 0, 2, 3}, core::Shape{2, 2, 0, 8},
          core::Shape{2, 2, 2, 0}, core::Shape{2, 3, 2, 8}}) {
      for (const int64_t ratio : {0, 2}) {
        params.sampling_ratio = ratio;
        const core::Shape other{shape[0], 3, 2, shape[3]};
        Inputs in(params, core::DType::kFloat32, core::DType::kInt32, num_boxes, {shape, other});
        for (Array& map : in.features) draw.Fill(map, false);
        draw.Fill(in.grad, false);
        DrawBoxes(draw, in, true);
        Compare(in, "empty " + shape.ToString());
      }
    }
  }
}

// Boxes over each other, on maps that several blocks write; one has more boxes than a warp has
// lanes.
void MakeCrowd(Inputs& in) {
  Draw draw(9);
  for (Array& map : in.features) draw.Fill(map, false);
  draw.Fill(in.grad, false);
  for (int64_t k = 0; k < in.boxes.shape()[0]; ++k) {
    const auto y = static_cast<double>(draw.Number(-2, 9)), x = static_cast<double>(k % 5);
    in.SetBox(k, {y, x, y + 3 + 0.3 * x, x + 6.7}, k % 4 == 0 ? draw.Number(0, 1) : 1,
              k % 8 == 0 ? 1 : 0);
  }
}

void TestManyBoxesInEachOrderOfThreads() {
  op::Params params;
  params.output_size[0] = params.output_size[1] = 2;
  params.spatial_scales[0] = 1;
  params.spatial_scales[1] = 0.5f;
  for (const core::DType dtype : {core::DType::kBFloat16, core::DType::kFloat32}) {
    Inputs in(params, dtype, core::DType::kInt32, 50, {{2, 9, 8, 8}, {2, 5, 4, 8}});
    MakeCrowd(in);
    Compare(in, "crowd");
    Contexts contexts;
    Results first(in);
    cuda_emulator::SetOrder(cuda_emulator::Order::kForward);
    first.Make(in, in.images, contexts.cuda(), "crowd, forward");
    for (const auto order : {cuda_emulator::Order::kReverse, cuda_emulator::Order::kRandom}) {
      cuda_emulator::SetOrder(order);
      Results again(in);
      again.Make(in, in.images, contexts.cuda(), "crowd, again");
      Expect(SameBits(first.output, again.output), "crowd: bits of the output");
      Expect(SameBits(first.grad_boxes, again.grad_boxes), "crowd: bits of the boxes' gradient");
      for (size_t level = 0; level < in.features.size(); ++level) {
        Expect(SameBits(first.grad_features[level], again.grad_features[level]),
               "crowd: bits of the features' gradient");
      }
    }
  }
}

void TestArraysOffTheBordersOfPacks() {
  Draw draw(10);
  op::Params params;
  params.output_size[0] = params.output_size[1] = 2;
  params.spatial_scales[0] = 1;
  Inputs in(params, core::DType::kFloat32, core::DType::kInt64, 2, {{1, 3, 3, 4}});
  draw.Fill(in.features[0], false);
  draw.Fill(in.grad, false);
  in.SetBox(0, {0, 0, 3, 3}, 0, 0);
  in.SetBox(1, {0.5, 1, 2, 2.5}, 0, 0);
  Results expected(in);
  Contexts contexts;
  expected.Make(in, in.images, contexts.cuda(), "aligned");
  // Each array in turn lies one element further.
  const auto moved = [](Array& from, Array& to) {
    memcpy(to.As<float>() + 1, from.As<float>(), static_cast<size_t>(from.size()) * sizeof(float));
    return core::ConstBuffer{to.As<float>() + 1, from.dtype(), from.shape()};
  };
  Array features(core::DType::kFloat32, {in.features[0].size() + 1});
  Array grad(core::DType::kFloat32, {in.grad.size() + 1});
  const std::vector<core::ConstBuffer> off = {moved(in.features[0], features)};
  Results actual(in);
  ExpectOk(Forward(in.params, contexts.cuda(), off, in.boxes.In(), in.images.In(), in.levels.In(),
                   actual.output.Out()),
           "features off");
  Expect(Close(actual.output, expected.output), "features off: output");
  ExpectOk(BackwardToBoxes(in.params, contexts.cuda(), in.grad.In(), off, in.boxes.In(),
                           in.images.In(), in.levels.In(), actual.grad_boxes.Out()),
           "features off");
  Expect(Close(actual.grad_boxes, expected.grad_boxes), "features off: boxes' gradient");
  ExpectOk(BackwardToFeatures(in.params, contexts.cuda(), moved(in.grad, grad), in.boxes.In(),
                              in.images.In(), in.levels.In(), {actual.grad_features[0].Out()}),
           "grad off");
  Expect(Close(actual.grad_features[0], expected.grad_features[0]), "grad off: gradient");
}

class NoWorkspace final : public core::Workspace {
 public:
  void* Allocate(int64_t) override { return nullptr; }
};

void TestBadInputsAreErrors() {
  Draw draw(11);
  op::Params params;
  params.output_size[0] = params.output_size[1] = 2;
  params.spatial_scales[0] = 1;
  Inputs in(params, core::DType::kFloat16, core::DType::kInt32, 2, {{1, 3, 3, 4}});
  Results results(in);
  Array few(core::DType::kInt32, {1}), doubles(core::DType::kFloat64, {2, 4});
  Contexts contexts;
  const auto forward = [&](const Array& boxes, const Array& images, const Array& levels) {
    return Forward(in.params, contexts.cuda(), in.Features(), boxes.In(), images.In(), levels.In(),
                   results.output.Out())
        .code;
  };
  Expect(forward(in.boxes, few, in.levels) == core::Code::kInvalidArgument, "shapes that differ");
  Expect(forward(doubles, in.images, in.levels) == core::Code::kInvalidType, "boxes of float64");
  Array floats(core::DType::kFloat32, {2});
  Expect(forward(in.boxes, floats, in.levels) == core::Code::kInvalidType, "float32 indices");
  Expect(forward(in.boxes, in.images, floats) == core::Code::kInvalidType, "float32 levels");
  NoWorkspace none;
  const cuda::Context context{nullptr, none};
  Expect(BackwardToFeatures(in.params, context, in.grad.In(), in.boxes.In(), in.images.In(),
                            in.levels.In(), {results.grad_features[0].Out()})
                 .code == core::Code::kResourceExhausted,
         "no memory, features");
  Expect(BackwardToBoxes(in.params, context, in.grad.In(), in.Features(), in.boxes.In(),
                         in.images.In(), in.levels.In(), results.grad_boxes.Out())
                 .code == core::Code::kResourceExhausted,
         "no memory, boxes");
}

}  // namespace

int main() {
  TestDrawnBoxes();
  TestBoxesWithoutAMapGiveZerosAndGetNoGradient();
  TestEmptyInputs();
  TestArraysOffTheBordersOfPacks();
  TestBadInputsAreErrors();
  TestManyBoxesInEachOrderOfThreads();  // the last: it sets the order
  return Finish();
}
