// The launchers of gaussian_filter: the filter by plain loops and core's numbers, nothing from what
// a lattice names but has not, and the same bits whatever the order of the threads.
#include <cstdint>
#include <string>
#include <vector>

#include "core/gaussian_filter.h"
#include "cuda/gaussian_filter.h"
#include "cuda/lattice_test.h"
#include "emulator.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::gaussian_filter;

struct Case {
  Members lattice;
  Array values, grad;
  op::Params params;

  Case(const Geometry& g, int64_t channels, core::DType dtype)
      : lattice(g), values(dtype, {g.batch, g.points, channels}), grad(dtype, values.shape()) {}

  int64_t channels() const { return values.shape()[2]; }
  std::vector<double> Part(Array& array, int64_t b) const {
    const std::vector<double> all = NumbersOf(array);
    const int64_t size = lattice.g.points * channels();
    return {all.begin() + b * size, all.begin() + (b + 1) * size};
  }
};

struct Results {
  Array output, grad_features;

  explicit Results(const Case& in)
      : output(in.values.dtype(), in.values.shape()),
        grad_features(core::DType::kFloat32, in.lattice.features.shape()) {}

  // With the launchers or with core, whichever has this context.
  template <typename Context>
  void Make(const Case& in, const Context& context, const std::string& what) {
    ExpectOk(Forward(in.params, context, in.values.In(), in.lattice.In(), output.Out()),
             what + ": forward");
    ExpectOk(FeaturesGrad(in.params, context, in.values.In(), in.lattice.In(), in.grad.In(),
                          grad_features.Out()),
             what + ": backward");
  }
};

void Compare(Case& in, const std::string& what) {
  Results results(in);
  Contexts contexts;
  results.Make(in, contexts.cuda(), what);
  const Geometry& g = in.lattice.g;
  std::vector<double> output, grad_features;
  double size = 0;
  for (int64_t b = 0; b < g.batch; ++b) {
    const std::vector<double> filter = FilterMatrix(in.lattice, b, in.params.reverse);
    const std::vector<double> transpose = FilterMatrix(in.lattice, b, !in.params.reverse);
    const std::vector<double> values = in.Part(in.values, b), grad = in.Part(in.grad, b);
    const std::vector<double> filtered = Apply(filter, g.points, values);
    output.insert(output.end(), filtered.begin(), filtered.end());
    std::vector<double> of_image(static_cast<size_t>(g.points * g.dimensions));
    const double of_pair =
        AddFeaturesGrad(in.lattice, b, filter, transpose, values, grad, of_image.data());
    size = std::max(size, of_pair);
    grad_features.insert(grad_features.end(), of_image.begin(), of_image.end());
  }
  Expect(Near(results.output, output, in.values.dtype()), what + ": filter");
  Expect(Near(results.grad_features, grad_features, in.values.dtype(), size),
         what + ": gradient to the features");
}

Case DrawCase(Draw& draw, int64_t channels) {
  Case in(DrawGeometry(draw), channels, draw.Float());
  in.params.reverse = draw.Coin();
  DrawLattice(draw, &in.lattice);
  draw.Fill(in.values, false);
  draw.Fill(in.grad, false);
  return in;
}

void TestDrawnLattices() {
  for (int k = 0; k < kDraws / 4; ++k) {
    Draw draw(5000 + k);
    Case in = DrawCase(draw, draw.Coin(4) ? 0 : draw.Channels());
    Compare(in, "draw " + std::to_string(k));
  }
}

void TestSomeNumbersOfChannels() {
  for (const int64_t channels : {1, 4, 21, 40, 150}) {
    if (kSmall && channels > 40) continue;
    Draw draw(static_cast<unsigned>(channels));
    Case in = DrawCase(draw, channels);
    Compare(in, std::to_string(channels) + " channels");
  }
}

void TestWhatDoesNotExistContributesNothing() {
  for (int k = 0; k < kDraws / 8; ++k) {
    Draw draw(6000 + k);
    Case in = DrawCase(draw, draw.Number(1, 6));
    Corrupt(draw, &in.lattice);
    Compare(in, "corrupted " + std::to_string(k));
  }
}

void TestEmptyInputs() {
  for (const Geometry& g :
       {Geometry{0, 3, 2, 9}, Geometry{2, 0, 2, 0}, Geometry{2, 0, 2, 5}, Geometry{1, 3, 2, 0}}) {
    for (const int64_t channels : {0, 3}) {
      Draw draw(1);
      Case in(g, channels, core::DType::kFloat32);
      DrawLattice(draw, &in.lattice);
      draw.Fill(in.values, false);
      draw.Fill(in.grad, false);
      Compare(in, "empty");
    }
  }
}

// A lattice of real points, in all dtypes.
void TestLatticesOfCoreGiveWhatCoreGives() {
  for (const core::DType dtype : {core::DType::kFloat16, core::DType::kBFloat16,
                                  core::DType::kFloat32, core::DType::kFloat64}) {
    for (const int64_t dimensions : {2, 5}) {
      if (kSmall && dimensions > 2) continue;
      const int64_t points = kSmall ? 20 : 90;
      Draw draw(static_cast<unsigned>(dimensions));
      Case in({2, points, dimensions, points * (dimensions + 1)}, 7, dtype);
      for (Array* array : {&in.lattice.features, &in.values, &in.grad}) draw.Fill(*array, false);
      in.params.reverse = dimensions == 5;
      Contexts contexts;
      const std::string what = std::string("core's lattice, ") + core::NameOf(dtype);
      ExpectOk(core::permutohedral_lattice::Forward(contexts.core(), in.lattice.features.In(),
                                                    in.lattice.Out()),
               what);
      Results actual(in), expected(in);
      actual.Make(in, contexts.cuda(), what);
      expected.Make(in, contexts.core(), what + ", core");
      Expect(Near(actual.output, NumbersOf(expected.output), dtype), what + ": filter");
      Expect(Near(actual.grad_features, NumbersOf(expected.grad_features), dtype, 20),
             what + ": gradient to the features");
    }
  }
}

void TestTheSameBitsInEachOrderOfThreads() {
  for (const core::DType dtype : {core::DType::kBFloat16, core::DType::kFloat32}) {
    Draw draw(2);
    const Geometry g = kSmall ? Geometry{1, 9, 2, 12} : Geometry{2, 300, 3, 50};
    Case in(g, 5, dtype);
    DrawLattice(draw, &in.lattice);
    draw.Fill(in.values, false);
    draw.Fill(in.grad, false);
    Contexts contexts;
    Results first(in);
    cuda_emulator::SetOrder(cuda_emulator::Order::kForward);
    first.Make(in, contexts.cuda(), "orders");
    for (const auto order : {cuda_emulator::Order::kReverse, cuda_emulator::Order::kRandom}) {
      cuda_emulator::SetOrder(order);
      Results again(in);
      again.Make(in, contexts.cuda(), "orders");
      Expect(SameBits(first.output, again.output), "orders: bits of the filter");
      Expect(SameBits(first.grad_features, again.grad_features), "orders: bits of the gradient");
    }
  }
}

class NoWorkspace final : public core::Workspace {
 public:
  void* Allocate(int64_t) override { return nullptr; }
};

void TestBadInputsAreErrors() {
  Draw draw(3);
  Case in({1, 4, 2, 6}, 3, core::DType::kFloat16);
  DrawLattice(draw, &in.lattice);
  draw.Fill(in.values, false);
  draw.Fill(in.grad, false);
  Results results(in);
  Contexts contexts;
  const auto expect = [&](const core::ConstBuffer& values, const Lattice& lattice,
                          const core::ConstBuffer& grad, core::Code code, bool of_forward) {
    const auto same = [&](const core::Status& actual, const core::Status& of_core) {
      Expect(actual.code == code && actual.message == of_core.message,
             "error: " + actual.message + "; core: " + of_core.message);
    };
    same(FeaturesGrad(in.params, contexts.cuda(), values, lattice, grad,
                      results.grad_features.Out()),
         FeaturesGrad(in.params, contexts.core(), values, lattice, grad,
                      results.grad_features.Out()));
    if (!of_forward) return;
    same(Forward(in.params, contexts.cuda(), values, lattice, results.output.Out()),
         Forward(in.params, contexts.core(), values, lattice, results.output.Out()));
  };
  constexpr auto kShape = core::Code::kInvalidArgument;
  constexpr auto kType = core::Code::kInvalidType;
  const Lattice lattice = in.lattice.In();
  Array wide(core::DType::kFloat64, in.values.shape()), narrow(in.values.dtype(), {1, 4, 2});
  Array few(in.values.dtype(), {1, 3, 3}), integers(core::DType::kInt32, in.values.shape());
  expect(in.values.In(), lattice, wide.In(), kType, false);
  expect(in.values.In(), lattice, narrow.In(), kShape, false);
  expect(few.In(), lattice, few.In(), kShape, true);
  expect(integers.In(), lattice, integers.In(), kType, true);
  Lattice bad = lattice;
  bad.norms = few.In();
  expect(in.values.In(), bad, in.grad.In(), kShape, true);
  bad = lattice;
  bad.vertices = lattice.weights;
  expect(in.values.In(), bad, in.grad.In(), kType, true);
  NoWorkspace none;
  Expect(Forward(in.params, cuda::Context{nullptr, none}, in.values.In(), lattice,
                 results.output.Out())
                 .code == core::Code::kResourceExhausted,
         "no memory");
}

}  // namespace

int main() {
  TestDrawnLattices();
  TestSomeNumbersOfChannels();
  TestWhatDoesNotExistContributesNothing();
  TestEmptyInputs();
  TestLatticesOfCoreGiveWhatCoreGives();
  TestBadInputsAreErrors();
  TestTheSameBitsInEachOrderOfThreads();  // the last: it sets the order
  return Finish();
}
