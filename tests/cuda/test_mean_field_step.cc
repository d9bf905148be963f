// The launchers of mean_field_step: the step and its gradients by plain loops, core's numbers,
// nothing from what a lattice names but has not, and the same bits whatever the order of the
// threads.
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/mean_field_step.h"
#include "cuda/lattice_test.h"
#include "cuda/mean_field_step.h"
#include "emulator.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::mean_field_step;
using op::Normalization;

using Numbers = std::vector<double>;

struct Case {
  op::Params params;
  std::vector<Members> lattices;
  Array q, unary, mixing, output, grad;

  Case(const op::Params& params, const core::Shape& shape, core::DType dtype)
      : params(params),
        q(dtype, shape),
        unary(dtype, shape),
        mixing(AccumulatorOf(dtype), MixingShape(params, shape[2])),
        output(dtype, shape),
        grad(dtype, shape) {}

  static core::Shape MixingShape(const op::Params& params, int64_t classes) {
    const auto lattices = static_cast<int64_t>(params.normalizations.size());
    if (params.diagonal) return {lattices, classes};
    return {lattices, classes, classes};
  }
  core::DType dtype() const { return q.dtype(); }
  int64_t batch() const { return q.shape()[0]; }
  int64_t points() const { return q.shape()[1]; }
  int64_t classes() const { return q.shape()[2]; }
  Numbers Part(Array& array, int64_t b) const {
    const Numbers all = NumbersOf(array);
    return {all.begin() + b * points() * classes(), all.begin() + (b + 1) * points() * classes()};
  }

  op::Inputs In() const {
    op::Inputs inputs{q.In(), unary.In(), mixing.In(), {}};
    for (const Members& lattice : lattices) inputs.lattices.push_back(lattice.In());
    return inputs;
  }

  void Draw(test::Draw& draw) {
    for (Array* array : {&q, &unary, &mixing, &grad}) draw.Fill(*array, false);
    const double scale = params.diagonal ? 0.5 : 0.5 / std::sqrt(1.0 + classes());
    for (int64_t k = 0; k < mixing.size(); ++k) Set(mixing, k, scale * Get(mixing, k));
    // What the gradients take for the step's result.
    for (int64_t k = 0; k < output.size(); ++k) {
      Set(output, k, static_cast<double>(draw.Number(0, 64)) / 64);
    }
  }
};

struct Results {
  Array output, grad_q, grad_unary, grad_mixing;
  std::vector<Array> grad_features;

  explicit Results(const Case& in)
      : output(in.dtype(), in.q.shape()),
        grad_q(in.dtype(), in.q.shape()),
        grad_unary(in.dtype(), in.q.shape()),
        grad_mixing(in.mixing.dtype(), in.mixing.shape()) {
    for (const Members& lattice : in.lattices) {
      grad_features.emplace_back(core::DType::kFloat32, lattice.features.shape());
    }
  }

  // With the launchers or with core, whichever has this context.
  template <typename Context>
  void Make(const Case& in, const Context& context, const std::string& what) {
    const op::Inputs inputs = in.In();
    ExpectOk(Forward(in.params, context, inputs, output.Out()), what + ": forward");
    ExpectOk(Backward(in.params, context, inputs, in.output.In(), in.grad.In(),
                      {grad_q.Out(), grad_unary.Out(), grad_mixing.Out()}),
             what + ": backward");
    std::vector<core::Buffer> to;
    for (Array& array : grad_features) to.push_back(array.Out());
    ExpectOk(FeaturesGrad(in.params, context, inputs, in.output.In(), in.grad.In(), to),
             what + ": backward to the features");
  }

  template <typename Fn>
  void ForEach(Results& other, Fn&& fn) {
    fn(output, other.output, "output");
    fn(grad_q, other.grad_q, "gradient to q");
    fn(grad_unary, other.grad_unary, "gradient to unary");
    fn(grad_mixing, other.grad_mixing, "gradient to mixing");
    for (size_t k = 0; k < grad_features.size(); ++k) {
      fn(grad_features[k], other.grad_features[k], "gradient to features");
    }
  }
};

// --- The step, by plain loops -------------------------------------------------------------------

// The rest of a lattice in one image: what its messages are made of.
struct Filter {
  int64_t points;
  Numbers matrix, transpose, after, before;  // [points, points] twice, [points] twice
  double after_exponent, before_exponent;
  Numbers norms;

  Filter(Members& m, int64_t b, Normalization how)
      : points(m.g.points),
        matrix(FilterMatrix(m, b, false)),
        transpose(FilterMatrix(m, b, true)),
        after_exponent(how == Normalization::kAfter       ? 1
                       : how == Normalization::kSymmetric ? .5
                                                          : 0),
        before_exponent(how == Normalization::kBefore      ? 1
                        : how == Normalization::kSymmetric ? .5
                                                           : 0) {
    for (int64_t i = 0; i < points; ++i) {
      norms.push_back(Get(m.norms, b * points + i) + 1e-20);
      after.push_back(std::pow(norms.back(), -after_exponent));
      before.push_back(std::pow(norms.back(), -before_exponent));
    }
  }

  Numbers Scaled(const Numbers& factors, Numbers values) const {
    for (size_t k = 0; k < values.size(); ++k) {
      values[k] *= factors[k * static_cast<size_t>(points) / values.size()];
    }
    return values;
  }
  Numbers Messages(const Numbers& q) const {
    return Scaled(after, Apply(matrix, points, Scaled(before, q)));
  }
  Numbers MessagesGradToQ(const Numbers& grad) const {
    return Scaled(before, Apply(transpose, points, Scaled(after, grad)));
  }
};

// Of all classes of all points.
Numbers Mix(Case& in, size_t k, bool transposed, const Numbers& messages) {
  const int64_t classes = in.classes();
  Numbers mixed(messages.size());
  for (size_t at = 0; at < messages.size(); ++at) {
    const int64_t c = static_cast<int64_t>(at) % classes, row = static_cast<int64_t>(at) - c;
    const auto lattice = static_cast<int64_t>(k);
    if (in.params.diagonal) {
      mixed[at] = Get(in.mixing, lattice * classes + c) * messages[at];
      continue;
    }
    for (int64_t m = 0; m < classes; ++m) {
      const int64_t place = transposed ? m * classes + c : c * classes + m;
      mixed[at] += Get(in.mixing, lattice * classes * classes + place) *
                   messages[static_cast<size_t>(row + m)];
    }
  }
  return mixed;
}

void Add(Numbers* to, const Numbers& from) {
  for (size_t k = 0; k < from.size(); ++k) (*to)[k] += from[k];
}

Numbers Softmax(const Numbers& logits, int64_t points) {
  Numbers result = logits;
  const size_t classes = points == 0 ? 0 : logits.size() / static_cast<size_t>(points);
  for (size_t row = 0; row < logits.size(); row += classes) {
    double largest = logits[row], sum = 0;
    for (size_t c = 0; c < classes; ++c) largest = std::max(largest, logits[row + c]);
    for (size_t c = 0; c < classes; ++c)
      sum += result[row + c] = std::exp(logits[row + c] - largest);
    for (size_t c = 0; c < classes; ++c) result[row + c] /= sum;
  }
  return result;
}

Numbers LogitsGrad(Case& in, int64_t b) {
  const Numbers p = in.Part(in.output, b), g = in.Part(in.grad, b);
  if (in.params.logits) return g;
  Numbers result(g.size());
  const auto classes = static_cast<size_t>(in.classes());
  for (size_t row = 0; row < g.size(); row += classes) {
    double dot = 0;
    for (size_t c = row; c < row + classes; ++c) dot += p[c] * g[c];
    for (size_t c = row; c < row + classes; ++c) result[c] = p[c] * (g[c] - dot);
  }
  return result;
}

// To the features of one lattice. Returns the size of what is added up.
double AddGradToFeatures(Case& in, size_t k, int64_t b, const Filter& filter, const Numbers& q,
                         const Numbers& grad_messages, double* to) {
  Members& m = in.lattices[k];
  const Numbers values = filter.Scaled(filter.before, q);
  const Numbers grad = filter.Scaled(filter.after, grad_messages);
  double size = AddFeaturesGrad(m, b, filter.matrix, filter.transpose, values, grad, to);
  if (in.params.normalizations[k] == Normalization::kNone) return size;
  const Numbers filtered = Apply(filter.matrix, in.points(), values);
  const Numbers back = Apply(filter.transpose, in.points(), grad);
  Numbers to_norms(static_cast<size_t>(in.points()));
  for (int64_t k = 0; k < in.points() * in.classes(); ++k) {
    const auto i = static_cast<size_t>(k / in.classes()), at = static_cast<size_t>(k);
    to_norms[i] -= (filter.after_exponent * grad[at] * filtered[at] +
                    filter.before_exponent * values[at] * back[at]) /
                   filter.norms[i];
  }
  const Numbers ones(to_norms.size(), 1.0);
  return size + AddFeaturesGrad(m, b, filter.matrix, filter.transpose, ones, to_norms, to);
}

struct Expected {
  Numbers output, grad_q, grad_unary, grad_mixing;
  std::vector<Numbers> grad_features;
  double mixing_size = 0;
  std::vector<double> features_size;

  explicit Expected(Case& in)
      : grad_mixing(static_cast<size_t>(in.mixing.size())),
        grad_features(in.lattices.size()),
        features_size(in.lattices.size()) {
    for (int64_t b = 0; b < in.batch(); ++b) AddImage(in, b);
  }

  void AddImage(Case& in, int64_t b) {
    const Numbers q = in.Part(in.q, b), grad = LogitsGrad(in, b);
    Numbers logits = in.Part(in.unary, b), to_q(q.size());
    for (size_t k = 0; k < in.lattices.size(); ++k) {
      const Filter filter(in.lattices[k], b, in.params.normalizations[k]);
      const Numbers messages = filter.Messages(q), grad_messages = Mix(in, k, true, grad);
      Add(&logits, Mix(in, k, false, messages));
      Add(&to_q, filter.MessagesGradToQ(grad_messages));
      AddToMixing(in, k, grad, messages);
      const Geometry& g = in.lattices[k].g;
      Numbers to_features(static_cast<size_t>(g.points * g.dimensions));
      features_size[k] =
          std::max(features_size[k],
                   AddGradToFeatures(in, k, b, filter, q, grad_messages, to_features.data()));
      Append(&grad_features[k], to_features);
    }
    Append(&output, in.params.logits ? logits : Softmax(logits, in.points()));
    Append(&grad_q, to_q);
    Append(&grad_unary, grad);
  }

  void AddToMixing(Case& in, size_t k, const Numbers& grad, const Numbers& messages) {
    const int64_t classes = in.classes(), size = in.params.diagonal ? classes : classes * classes;
    for (size_t at = 0; at < grad.size(); ++at) {
      const int64_t c = static_cast<int64_t>(at) % classes, row = static_cast<int64_t>(at) - c;
      double* to = &grad_mixing[k * static_cast<size_t>(size)];
      for (int64_t m = 0; m < classes; ++m) {
        if (in.params.diagonal && m != c) continue;
        const double part = grad[at] * messages[static_cast<size_t>(row + m)];
        to[in.params.diagonal ? c : c * classes + m] += part;
        mixing_size += std::fabs(part) / static_cast<double>(size);
      }
    }
  }

  static void Append(Numbers* to, const Numbers& from) {
    to->insert(to->end(), from.begin(), from.end());
  }
};

void Compare(Case& in, const std::string& what) {
  Results results(in);
  Expected expected(in);
  Contexts contexts;
  results.Make(in, contexts.cuda(), what);
  const core::DType dtype = in.dtype();
  // A softmax's result has the error of its logits, which may be large.
  Expect(Near(results.output, expected.output, dtype, in.params.logits ? 0 : 20),
         what + ": output");
  Expect(Near(results.grad_q, expected.grad_q, dtype), what + ": gradient to q");
  Expect(Near(results.grad_unary, expected.grad_unary, dtype), what + ": gradient to unary");
  Expect(Near(results.grad_mixing, expected.grad_mixing, dtype, expected.mixing_size),
         what + ": gradient to mixing");
  for (size_t k = 0; k < in.lattices.size(); ++k) {
    Expect(
        Near(results.grad_features[k], expected.grad_features[k], dtype, expected.features_size[k]),
        what + ": gradient to the features of lattice " + std::to_string(k));
  }
}

// --- Drawn inputs -------------------------------------------------------------------------------

op::Params DrawParams(Draw& draw, int64_t lattices) {
  op::Params params;
  for (int64_t k = 0; k < lattices; ++k) {
    params.normalizations.push_back(static_cast<Normalization>(draw.Number(0, 3)));
  }
  params.diagonal = draw.Coin();
  params.logits = draw.Coin(3);
  return params;
}

Case DrawCase(Draw& draw, int64_t classes, int64_t lattices) {
  const Geometry g = DrawGeometry(draw);
  Case in(DrawParams(draw, lattices), {g.batch, g.points, classes}, draw.Float());
  for (int64_t k = 0; k < lattices; ++k) {
    Geometry other = DrawGeometry(draw);
    other.batch = g.batch;
    other.points = g.points;
    other.bound = std::min(other.bound, g.points * other.corners());
    in.lattices.emplace_back(other);
    DrawLattice(draw, &in.lattices.back());
    // Points whose norm is 0 would have messages that spoil all comparisons.
    for (int64_t k = 0; k < in.lattices.back().norms.size(); ++k) {
      if (Get(in.lattices.back().norms, k) == 0) Set(in.lattices.back().norms, k, 0.5);
    }
  }
  in.Draw(draw);
  return in;
}

void TestDrawnLattices() {
  for (int k = 0; k < kDraws / 8; ++k) {
    Draw draw(7000 + k);
    Case in = DrawCase(draw, draw.Number(1, 9), draw.Number(0, kSmall ? 2 : 3));
    Compare(in, "draw " + std::to_string(k));
  }
}

void TestSomeNumbersOfClasses() {
  for (const int64_t classes : {1, 2, 21, 40, 131}) {
    for (const bool diagonal : {true, false}) {
      if (kSmall && classes > 40) continue;
      Draw draw(static_cast<unsigned>(classes));
      op::Params params = {{Normalization::kSymmetric}, diagonal, false};
      const int64_t points = kSmall ? 4 : 13;
      Case in(params, {1, points, classes}, core::DType::kFloat64);
      in.lattices.emplace_back(Geometry{1, points, 2, 10});
      DrawLattice(draw, &in.lattices[0]);
      for (int64_t k = 0; k < points; ++k) Set(in.lattices[0].norms, k, 1 + 0.25 * (k % 5));
      in.Draw(draw);
      Compare(in, std::to_string(classes) + " classes");
    }
  }
}

void TestWhatDoesNotExistContributesNothing() {
  for (int k = 0; k < kDraws / 16; ++k) {
    Draw draw(8000 + k);
    Case in = DrawCase(draw, draw.Number(1, 6), 2);
    for (Members& lattice : in.lattices) Corrupt(draw, &lattice);
    Compare(in, "corrupted " + std::to_string(k));
  }
}

void TestEmptyInputs() {
  for (const core::Shape& shape :
       {core::Shape{0, 3, 4}, core::Shape{2, 0, 4}, core::Shape{2, 3, 0}}) {
    for (const bool diagonal : {true, false}) {
      for (const bool none : {true, false}) {
        op::Params params;
        params.diagonal = diagonal;
        if (!none) params.normalizations.assign(2, Normalization::kSymmetric);
        Draw draw(1);
        Case in(params, shape, core::DType::kFloat32);
        for (size_t k = 0; k < params.normalizations.size(); ++k) {
          in.lattices.emplace_back(Geometry{shape[0], shape[1], 2, 3 * shape[1]});
          DrawLattice(draw, &in.lattices.back());
        }
        in.Draw(draw);
        Compare(in, "empty " + shape.ToString());
      }
    }
  }
}

// Several parts of the sums over points.
void TestManyPoints() {
  if (kSmall) return;
  for (const bool diagonal : {true, false}) {
    Draw draw(2);
    op::Params params = {{Normalization::kBefore}, diagonal, false};
    Case in(params, {2, 300, 3}, core::DType::kFloat32);
    in.lattices.emplace_back(Geometry{2, 300, 2, 700});
    DrawLattice(draw, &in.lattices[0]);
    for (int64_t k = 0; k < 600; ++k) Set(in.lattices[0].norms, k, 4 + 0.25 * (k % 5));
    in.Draw(draw);
    Compare(in, "many points");
  }
}

// Lattices of real points, in all dtypes.
void TestLatticesOfCoreGiveWhatCoreGives() {
  for (const core::DType dtype : {core::DType::kFloat16, core::DType::kBFloat16,
                                  core::DType::kFloat32, core::DType::kFloat64}) {
    for (const bool diagonal : {true, false}) {
      const int64_t points = kSmall ? 12 : 70, classes = kSmall ? 5 : 21;
      Draw draw(3);
      op::Params params = {{Normalization::kSymmetric, Normalization::kAfter}, diagonal, false};
      Case in(params, {2, points, classes}, dtype);
      Contexts contexts;
      const std::string what = std::string("core's lattices, ") + core::NameOf(dtype);
      for (const int64_t dimensions : {2, kSmall ? 3 : 5}) {
        in.lattices.emplace_back(Geometry{2, points, dimensions, points * (dimensions + 1)});
        Members& lattice = in.lattices.back();
        draw.Fill(lattice.features, false);
        ExpectOk(core::permutohedral_lattice::Forward(contexts.core(), lattice.features.In(),
                                                      lattice.Out()),
                 what);
      }
      in.Draw(draw);
      Results actual(in), expected(in);
      actual.Make(in, contexts.cuda(), what);
      expected.Make(in, contexts.core(), what + ", core");
      actual.ForEach(expected, [&](Array& one, Array& wanted, const char* name) {
        Expect(Near(one, NumbersOf(wanted), dtype, 20), what + ": " + name);
      });
    }
  }
}

void TestOnlyWantedGradientsAreWritten() {
  Draw draw(4);
  Case in = DrawCase(draw, 3, 2);
  Results all(in);
  Contexts contexts;
  all.Make(in, contexts.cuda(), "all gradients");
  for (int wanted = 0; wanted < 3; ++wanted) {
    Results some(in);
    op::Grads grads = {some.grad_q.Out(), some.grad_unary.Out(), some.grad_mixing.Out()};
    core::Buffer* buffers[] = {&grads.q, &grads.unary, &grads.mixing};
    for (int n = 0; n < 3; ++n) {
      if (n != wanted) buffers[n]->data = nullptr;
    }
    ExpectOk(Backward(in.params, contexts.cuda(), in.In(), in.output.In(), in.grad.In(), grads),
             "one gradient");
    Array* expected[] = {&all.grad_q, &all.grad_unary, &all.grad_mixing};
    Array* actual[] = {&some.grad_q, &some.grad_unary, &some.grad_mixing};
    Expect(SameBits(*expected[wanted], *actual[wanted]), "one gradient");
  }
}

void TestTheSameBitsInEachOrderOfThreads() {
  for (const bool diagonal : {true, false}) {
    Draw draw(5);
    op::Params params = {{Normalization::kSymmetric, Normalization::kNone}, diagonal, false};
    const int64_t points = kSmall ? 9 : 150;
    Case in(params, {2, points, 7}, diagonal ? core::DType::kFloat32 : core::DType::kBFloat16);
    for (size_t k = 0; k < 2; ++k) {
      in.lattices.emplace_back(Geometry{2, points, 2, kSmall ? 12 : 50});
      DrawLattice(draw, &in.lattices.back());
    }
    in.Draw(draw);
    Contexts contexts;
    Results first(in);
    cuda_emulator::SetOrder(cuda_emulator::Order::kForward);
    first.Make(in, contexts.cuda(), "orders");
    for (const auto order : {cuda_emulator::Order::kReverse, cuda_emulator::Order::kRandom}) {
      cuda_emulator::SetOrder(order);
      Results again(in);
      again.Make(in, contexts.cuda(), "orders");
      first.ForEach(again, [&](Array& one, Array& other, const char* name) {
        Expect(SameBits(one, other), std::string("orders: bits of ") + name);
      });
    }
  }
}

// --- Errors -------------------------------------------------------------------------------------

class NoWorkspace final : public core::Workspace {
 public:
  void* Allocate(int64_t) override { return nullptr; }
};

void TestBadInputsAreErrors() {
  op::Params params = {{Normalization::kSymmetric}, true, false};
  Case in(params, {1, 4, 3}, core::DType::kFloat16);
  Draw draw(6);
  in.lattices.emplace_back(Geometry{1, 4, 2, 5});
  DrawLattice(draw, &in.lattices[0]);
  in.Draw(draw);
  Results results(in);
  Contexts contexts;
  const auto expect = [&](const op::Params& params, const op::Inputs& inputs, core::Code code) {
    const core::Status of_core = Forward(params, contexts.core(), inputs, results.output.Out());
    for (const core::Status& status :
         {Forward(params, contexts.cuda(), inputs, results.output.Out()),
          Backward(params, contexts.cuda(), inputs, in.output.In(), in.grad.In(),
                   {results.grad_q.Out(), results.grad_unary.Out(), results.grad_mixing.Out()}),
          FeaturesGrad(params, contexts.cuda(), inputs, in.output.In(), in.grad.In(),
                       {results.grad_features[0].Out()})}) {
      Expect(status.code == code && status.message == of_core.message,
             "error: " + status.message + "; core: " + of_core.message);
    }
  };
  constexpr auto kShape = core::Code::kInvalidArgument;
  constexpr auto kType = core::Code::kInvalidType;
  const op::Inputs good = in.In();
  Array few(core::DType::kFloat16, {1, 4, 2}), wide(core::DType::kFloat32, {1, 4, 3});
  Array integers(core::DType::kInt32, {1, 4, 3}), doubles(core::DType::kFloat64, {1, 3});
  op::Inputs bad = good;
  bad.unary = few.In();
  expect(params, bad, kShape);
  bad.unary = wide.In();
  expect(params, bad, kType);
  bad = good;
  bad.q = bad.unary = integers.In();
  expect(params, bad, kType);
  bad = good;
  bad.mixing = doubles.In();
  expect(params, bad, kType);
  bad = good;
  bad.lattices[0].norms = few.In();
  expect(params, bad, kShape);
  op::Params matrix = params;
  matrix.diagonal = false;
  expect(matrix, good, kShape);
  params.normalizations.clear();
  expect(params, good, kShape);
  const auto code = [&](const core::ConstBuffer& output, const core::ConstBuffer& grad) {
    return FeaturesGrad(in.params, contexts.cuda(), good, output, grad,
                        {results.grad_features[0].Out()})
        .code;
  };
  Expect(code(few.In(), in.grad.In()) == kShape, "shape of the output");
  Expect(code(wide.In(), in.grad.In()) == kType, "dtype of the output");
  Expect(code(in.output.In(), few.In()) == kShape, "shape of the gradient");
  Expect(code(in.output.In(), wide.In()) == kType, "dtype of the gradient");
  NoWorkspace none;
  Expect(Forward(in.params, cuda::Context{nullptr, none}, good, results.output.Out()).code ==
             core::Code::kResourceExhausted,
         "no memory");
}

}  // namespace

int main() {
  TestDrawnLattices();
  TestSomeNumbersOfClasses();
  TestWhatDoesNotExistContributesNothing();
  TestEmptyInputs();
  TestManyPoints();
  TestLatticesOfCoreGiveWhatCoreGives();
  TestOnlyWantedGradientsAreWritten();
  TestBadInputsAreErrors();
  TestTheSameBitsInEachOrderOfThreads();  // the last: it sets the order
  return Finish();
}
