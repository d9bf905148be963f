// The launchers of soft_dice_sums: core's sums and gradients, nothing from pixels whose labels do
// not exist, and the same bits whatever the order of the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>

#include "core/soft_dice_sums.h"
#include "cuda/launch_test.h"
#include "cuda/soft_dice_sums.h"
#include "emulator.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;
namespace op = core::soft_dice_sums;
using op::Activation;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// ThreadSanitizer sees races whatever the size, and takes its time.
#if defined(__SANITIZE_THREAD__)
constexpr bool kSmall = true;
#else
constexpr bool kSmall = false;
#endif

core::DType AccumulatorOf(core::DType dtype) {
  return dtype == core::DType::kFloat64 ? core::DType::kFloat64 : core::DType::kFloat32;
}

// Numbers of any dtype.
bool IsFloat(core::DType dtype) {
  return core::DispatchFloat("test", "dtype", dtype, [](auto) { return core::Status::Ok(); }).ok();
}
void Set(Array& array, int64_t k, double number) {
  WithFloat(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    array.As<T>()[k] = static_cast<T>(static_cast<core::AccumulatorOf<T>>(number));
  });
}
double Get(Array& array, int64_t k) {
  double number = 0;
  WithFloat(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    number = static_cast<double>(static_cast<core::AccumulatorOf<T>>(array.As<T>()[k]));
  });
  return number;
}
// Returns what the dtype has room for.
int64_t SetLabel(Array& array, int64_t k, int64_t label) {
  (void)core::DispatchLabel("test", "dtype", array.dtype(), [&](auto tag) {
    using Label = typename decltype(tag)::type;
    label = array.As<Label>()[k] = static_cast<Label>(label);
    return core::Status::Ok();
  });
  return label;
}

// Numbers that differ by no more than the dtype's rounding, and that of other orders and other
// exponential functions, can explain. NaN is close to NaN only.
bool Close(Array& actual, Array& expected) {
  const core::DType dtype = actual.dtype();
  if (dtype != expected.dtype() || actual.size() != expected.size()) return false;
  const double sums = dtype == core::DType::kFloat64 ? 1e-12 : 5e-6;
  const double rounding = dtype == core::DType::kFloat16    ? 2e-3
                          : dtype == core::DType::kBFloat16 ? 1.6e-2
                                                            : 2 * sums;
  double largest = 1;
  for (int64_t k = 0; k < expected.size(); ++k) {
    const double size = std::fabs(Get(expected, k));
    if (size < kInf) largest = std::max(largest, size);
  }
  bool close = true;
  for (int64_t k = 0; k < actual.size(); ++k) {
    const double x = Get(actual, k), y = Get(expected, k);
    close = close && (x == y || (x != x && y != y) ||
                      std::fabs(x - y) <= rounding * std::fabs(y) + sums * largest);
  }
  return close;
}

bool SameBits(Array& a, Array& b) {
  const auto bytes = static_cast<size_t>(a.size() * core::SizeOf(a.dtype()));
  return a.size() == b.size() && (bytes == 0 || memcmp(a.In().data, b.In().data, bytes) == 0);
}

// Core gets a legal label without weight where the launchers get one that does not exist.
struct Inputs {
  op::Params params;
  Array logits, labels, weights, class_weights, labels_for_core, weights_for_core;
  Array grad_intersection, grad_prediction, grad_cross_entropy;

  Inputs(const op::Params& params, core::DType dtype, core::DType label, const core::Shape& shape)
      : params(params),
        logits(dtype, shape),
        labels(label, params.dense ? shape : PixelsOf(shape)),
        weights(AccumulatorOf(dtype), PixelsOf(shape)),
        class_weights(AccumulatorOf(dtype), {shape[shape.rank() - 1]}),
        labels_for_core(label, labels.shape()),
        weights_for_core(weights.dtype(), weights.shape()),
        grad_intersection(weights.dtype(), {shape[0], classes()}),
        grad_prediction(weights.dtype(), {shape[0], classes()}),
        grad_cross_entropy(weights.dtype(), {shape[0]}) {
    for (int64_t k = 0; k < weights.size(); ++k) SetWeight(k, 1);
    for (int64_t c = 0; c < classes(); ++c) Set(class_weights, c, 1);
  }

  static core::Shape PixelsOf(const core::Shape& shape) {
    core::Shape pixels = core::Shape::OfRank(shape.rank() - 1);
    for (int axis = 0; axis < pixels.rank(); ++axis) pixels.set(axis, shape[axis]);
    return pixels;
  }
  int64_t classes() const { return logits.shape()[logits.shape().rank() - 1]; }
  int64_t num_labels() const { return op::NumLabels(params, classes()); }

  void SetWeight(int64_t k, double weight) {
    Set(weights, k, weight);
    Set(weights_for_core, k, weight);
  }
  // Of a pixel whose weight has been set.
  void SetSparse(int64_t k, int64_t label) {
    label = SetLabel(labels, k, label);
    const bool ignored = params.has_ignore_label && label == params.ignore_label;
    const bool legal = ignored || (label >= 0 && label < num_labels());
    SetLabel(labels_for_core, k, legal ? label : 0);
    if (ignored || !legal) Set(weights_for_core, k, 0);
  }
  void SetDense(int64_t k, double target) {
    for (Array* array : {&labels, &labels_for_core}) {
      if (IsFloat(array->dtype())) {
        Set(*array, k, target);
      } else {
        SetLabel(*array, k, static_cast<int64_t>(target));
      }
    }
  }
  bool Counts(int64_t pixel) { return Get(weights_for_core, pixel) != 0; }

  // As the launchers, or as core, get them.
  op::Inputs For(const cuda::Context&) const {
    return {logits.In(), labels.In(), weights.In(), class_weights.In()};
  }
  op::Inputs For(const core::Context&) const {
    return {logits.In(), labels_for_core.In(), weights_for_core.In(), class_weights.In()};
  }
  op::Params ParamsFor(const cuda::Context&) const { return params; }
  op::Params ParamsFor(const core::Context&) const {
    op::Params weighted = params;
    weighted.has_weights = true;
    return weighted;
  }
  op::SumsGrad Grad() const {
    return {grad_intersection.In(), grad_prediction.In(), grad_cross_entropy.In()};
  }
};

struct Results {
  Array intersection, prediction, target, cross_entropy, weight_sum, grad_logits;

  explicit Results(const Inputs& in)
      : intersection(in.weights.dtype(), in.grad_intersection.shape()),
        prediction(in.weights.dtype(), intersection.shape()),
        target(in.weights.dtype(), intersection.shape()),
        cross_entropy(in.weights.dtype(), in.grad_cross_entropy.shape()),
        weight_sum(in.weights.dtype(), cross_entropy.shape()),
        grad_logits(in.logits.dtype(), in.logits.shape()) {}

  op::Sums Sums() {
    return {intersection.Out(), prediction.Out(), target.Out(), cross_entropy.Out(),
            weight_sum.Out()};
  }

  // With the launchers or with core, whichever has this context.
  template <typename Context>
  void Make(const Inputs& in, const Context& context, const std::string& what) {
    const op::Params params = in.ParamsFor(context);
    ExpectOk(Forward(params, context, in.For(context), Sums()), what + ": forward");
    ExpectOk(Backward(params, context, in.For(context), in.Grad(), grad_logits.Out()),
             what + ": backward");
  }

  template <typename Fn>
  void ForEach(Results& other, Fn&& fn) {
    fn(intersection, other.intersection, "intersection");
    fn(prediction, other.prediction, "prediction");
    fn(target, other.target, "target");
    fn(cross_entropy, other.cross_entropy, "cross entropy");
    fn(weight_sum, other.weight_sum, "weight sum");
    fn(grad_logits, other.grad_logits, "gradient");
  }
};

void Compare(Inputs& in, const std::string& what) {
  Results actual(in), expected(in);
  Contexts contexts;
  actual.Make(in, contexts.cuda(), what);
  expected.Make(in, contexts.core(), what + ", core");
  actual.ForEach(expected, [&](Array& one, Array& wanted, const char* name) {
    Expect(Close(one, wanted), what + ": " + name);
  });
  bool zeros = true;
  for (int64_t k = 0; k < actual.grad_logits.size(); ++k) {
    zeros = zeros && (in.Counts(k / in.classes()) || Get(actual.grad_logits, k) == 0);
  }
  Expect(zeros, what + ": gradient of what does not count");
}

// --- Drawn inputs -------------------------------------------------------------------------------

enum Contents { kUsual, kLarge, kInfinite, kWithNaN, kNumContents };

double DrawLogit(Draw& draw, Activation activation, Contents contents) {
  if (contents == kWithNaN && draw.Coin(50)) return kNaN;
  const double part = static_cast<double>(draw.Number(0, 1 << 20)) / (1 << 20);
  if (activation == Activation::kNone) {
    constexpr double kExtreme[] = {0, 1, 0.5, 1e-9, 1 - 1e-9};
    return contents != kUsual && draw.Coin(3) ? kExtreme[draw.Number(0, 4)] : part;
  }
  const double sign = draw.Coin() ? -1 : 1;
  if (contents == kLarge && draw.Coin(3)) return sign * 1e4;
  if (contents == kInfinite && draw.Coin(3)) return sign * kInf;
  return 8 * part - 4;
}

core::DType DrawLabelDType(Draw& draw, bool dense) {
  constexpr core::DType kAll[] = {
      core::DType::kUInt8,    core::DType::kInt32,   core::DType::kInt64,  core::DType::kFloat16,
      core::DType::kBFloat16, core::DType::kFloat32, core::DType::kFloat64};
  return kAll[draw.Number(0, dense ? 6 : 2)];
}

op::Params DrawParams(Draw& draw) {
  op::Params params;
  params.activation = static_cast<Activation>(draw.Number(0, 2));
  params.power = draw.Coin() ? 1 : 2;
  params.dense = draw.Coin(3);
  params.has_weights = draw.Coin();
  params.has_class_weights = draw.Coin();
  if (!params.dense && draw.Coin()) {
    constexpr int64_t kIgnored[] = {255, 0, 2};
    params.has_ignore_label = true;
    params.ignore_label = kIgnored[draw.Number(0, 2)];
  }
  return params;
}

// Sets everything; one label in eight does not exist, where `illegal`.
void DrawInputs(Draw& draw, Inputs& in, Contents contents, bool illegal) {
  const op::Params& params = in.params;
  const bool none_counts = draw.Coin(20);
  for (int64_t k = 0; k < in.weights.size() && params.has_weights; ++k) {
    in.SetWeight(k, none_counts || draw.Coin(6) ? 0 : static_cast<double>(draw.Number(1, 64)) / 32);
  }
  for (int64_t c = 0; c < in.classes() && params.has_class_weights; ++c) {
    Set(in.class_weights, c, static_cast<double>(draw.Number(0, 64)) / 32);
  }
  const bool wide = in.labels.dtype() == core::DType::kInt64;
  const int64_t wrong[] = {in.num_labels(),
                           254,
                           wide ? int64_t{1} << 32 : 99,
                           std::numeric_limits<int32_t>::min(),
                           -1,
                           wide ? std::numeric_limits<int64_t>::min() : -2};
  const int64_t last_wrong = in.labels.dtype() == core::DType::kUInt8 ? 1 : 5;
  for (int64_t k = 0; k < in.labels.size(); ++k) {
    if (params.dense) {
      in.SetDense(k, draw.Coin(3) ? static_cast<double>(draw.Number(0, 32)) / 32
                                  : static_cast<double>(draw.Number(0, 1)));
    } else if (illegal && draw.Coin(8)) {
      in.SetSparse(k, wrong[draw.Number(0, last_wrong)]);
    } else if (params.has_ignore_label && draw.Coin(5)) {
      in.SetSparse(k, params.ignore_label);
    } else {
      in.SetSparse(k, draw.Number(0, in.num_labels() - 1));
    }
  }
  for (int64_t k = 0; k < in.logits.size(); ++k) {
    const bool counts = in.Counts(k / in.classes());
    Set(in.logits, k, counts ? DrawLogit(draw, params.activation, contents) : kNaN);
    if (!counts && params.dense && IsFloat(in.labels.dtype())) in.SetDense(k, kNaN);
  }
  for (Array* grad : {&in.grad_intersection, &in.grad_prediction, &in.grad_cross_entropy}) {
    draw.Fill(*grad, false);
  }
}

// With few pixels where there are many classes.
core::Shape DrawShape(Draw& draw) {
  constexpr int64_t kClasses[] = {1, 2, 3, 8, 21, 33, 300, 1, 2, 21, 256, 257};
  const int64_t classes = kClasses[draw.Number(0, 11)], batch = draw.Number(1, 3);
  if (draw.Coin(8)) return {batch, classes};
  if (draw.Coin(4)) return {batch, draw.Number(1, 4), draw.Number(1, 5), 2, classes};
  const int64_t rows = draw.Number(1, classes > 21 ? 8 : 20);
  return {batch, rows, draw.Coin() ? 32 : draw.Number(1, 40), classes};
}

void TestDrawnInputs() {
  for (int k = 0; k < kDraws; ++k) {
    Draw draw(3000 + k);
    const op::Params params = DrawParams(draw);
    const core::DType dtype = draw.Float();
    Inputs in(params, dtype, DrawLabelDType(draw, params.dense), DrawShape(draw));
    DrawInputs(draw, in, static_cast<Contents>(k % kNumContents), draw.Coin());
    Compare(in, "draw " + std::to_string(k));
  }
}

// --- Chosen inputs ------------------------------------------------------------------------------

// Around the pixels of a tile and of a part, and the classes that one thread each has.
void TestSizesAroundThoseOfTilesAndBlocks() {
  for (const int64_t classes : {1, 2, 127, 128, 129, 255, 256, 257, 513}) {
    for (const int64_t pixels : {1, 255, 256, 257, 513}) {
      if (pixels * classes > (kSmall ? 17000 : 70000)) continue;
      Draw draw(static_cast<unsigned>(classes * 1000 + pixels));
      op::Params params;
      params.activation = static_cast<Activation>((classes + pixels) % 3);
      params.has_class_weights = true;
      Inputs in(params, core::DType::kFloat32, core::DType::kInt32, {1, pixels, classes});
      DrawInputs(draw, in, kUsual, false);
      Compare(in, std::to_string(pixels) + " pixels of " + std::to_string(classes) + " classes");
    }
  }
}

void TestLabelsThatDoNotExistContributeNothing() {
  for (const Activation activation :
       {Activation::kSoftmax, Activation::kSigmoid, Activation::kNone}) {
    for (const int64_t classes : {1, 5}) {
      Draw draw(1);
      op::Params params;
      params.activation = activation;
      Inputs in(params, core::DType::kFloat16, core::DType::kInt64, {2, 7, classes});
      DrawInputs(draw, in, kUsual, false);
      for (int64_t k = 0; k < 14; ++k) {
        const int64_t wrong[] = {in.num_labels(), -1, int64_t{1} << 32,
                                 std::numeric_limits<int64_t>::max()};
        in.SetSparse(k, wrong[k % 4]);
      }
      for (int64_t k = 0; k < in.logits.size(); ++k) Set(in.logits, k, kNaN);
      Results results(in), same(in);
      Contexts contexts;
      results.Make(in, contexts.cuda(), "no label");
      results.ForEach(same, [&](Array& array, Array&, const char* name) {
        for (int64_t k = 0; k < array.size(); ++k) {
          Expect(Get(array, k) == 0, std::string("no label: ") + name);
        }
      });
    }
  }
}

void TestInfiniteLogitsGiveFiniteResults() {
  for (const Activation activation :
       {Activation::kSoftmax, Activation::kSigmoid, Activation::kNone}) {
    for (const bool dense : {false, true}) {
      op::Params params;
      params.activation = activation;
      params.dense = dense;
      Inputs in(params, core::DType::kFloat32, core::DType::kInt32, {1, 27, 3});
      Draw draw(2);
      DrawInputs(draw, in, kUsual, false);
      constexpr double kValues[] = {-kInf, kInf, 0.25};
      for (int64_t k = 0; k < 27; ++k) {
        for (int64_t c = 0, rest = k; c < 3; ++c, rest /= 3) {
          Set(in.logits, 3 * k + c, kValues[rest % 3]);
        }
      }
      Results results(in), same(in);
      Contexts contexts;
      if (activation != Activation::kNone) Compare(in, "infinite");
      results.Make(in, contexts.cuda(), "infinite");
      results.ForEach(same, [&](Array& array, Array&, const char* name) {
        for (int64_t k = 0; k < array.size(); ++k) {
          Expect(std::isfinite(Get(array, k)), std::string("infinite: ") + name);
        }
      });
    }
  }
}

void TestEmptyInputs() {
  Draw draw(3);
  for (const core::Shape& shape :
       {core::Shape{0, 3}, core::Shape{0, 5, 3}, core::Shape{2, 0, 3}, core::Shape{2, 4, 0, 300}}) {
    for (const bool dense : {false, true}) {
      op::Params params;
      params.dense = dense;
      Inputs in(params, core::DType::kFloat64, core::DType::kUInt8, shape);
      DrawInputs(draw, in, kUsual, false);
      Compare(in, "empty " + shape.ToString());
    }
  }
}

// More parts and images than a warp has lanes, and tiles enough for several parts of each image.
void TestTheSameBitsInEachOrderOfThreads() {
  struct Case {
    core::Shape shape;
    Activation activation;
    bool dense;
  };
  for (const Case& chosen : {Case{{1, kSmall ? 1100 : 17500, 1}, Activation::kSigmoid, false},
                             Case{{2, kSmall ? 520 : 1300, 3}, Activation::kSoftmax, true},
                             Case{{kSmall ? 3 : 40, 21}, Activation::kSoftmax, false},
                             Case{{1, kSmall ? 40 : 300, 270}, Activation::kSoftmax, false}}) {
    for (const core::DType dtype : {core::DType::kBFloat16, core::DType::kFloat32}) {
      if (kSmall && dtype == core::DType::kBFloat16) continue;
      op::Params params;
      params.activation = chosen.activation;
      params.dense = chosen.dense;
      params.has_weights = params.has_class_weights = true;
      Inputs in(params, dtype, core::DType::kUInt8, chosen.shape);
      Draw draw(4);
      DrawInputs(draw, in, kUsual, false);
      const std::string what = "orders " + chosen.shape.ToString();
      Compare(in, what);
      Contexts contexts;
      Results first(in);
      cuda_emulator::SetOrder(cuda_emulator::Order::kForward);
      first.Make(in, contexts.cuda(), what);
      for (const auto order : {cuda_emulator::Order::kReverse, cuda_emulator::Order::kRandom}) {
        cuda_emulator::SetOrder(order);
        Results again(in);
        again.Make(in, contexts.cuda(), what);
        first.ForEach(again, [&](Array& one, Array& other, const char* name) {
          Expect(SameBits(one, other), what + ": bits of " + name);
        });
      }
    }
  }
}

// Parts so long that sums are moved to doubles on the way.
void TestLargeHalfImageLosesNothing() {
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  op::Params params;
  params.activation = Activation::kSigmoid;
  Inputs in(params, core::DType::kFloat16, core::DType::kUInt8, {1, 1024 * 9 * 256 + 77, 1});
  Draw draw(5);
  DrawInputs(draw, in, kUsual, false);
  Compare(in, "large image");
#endif
}

// --- Errors -------------------------------------------------------------------------------------

class NoWorkspace final : public core::Workspace {
 public:
  void* Allocate(int64_t) override { return nullptr; }
};

void TestBadInputsAreErrors() {
  constexpr auto kShape = core::Code::kInvalidArgument;
  constexpr auto kType = core::Code::kInvalidType;
  op::Params params;
  params.has_weights = params.has_class_weights = true;
  Inputs in(params, core::DType::kFloat16, core::DType::kInt32, {2, 5, 3});
  Results results(in);
  Contexts contexts;
  const op::Inputs good = in.For(contexts.cuda());
  const auto expect = [&](const op::Params& params, const op::Inputs& inputs, core::Code code,
                          const std::string& words) {
    const core::Status of_core = Forward(params, contexts.core(), inputs, results.Sums());
    for (const core::Status& status :
         {Forward(params, contexts.cuda(), inputs, results.Sums()),
          Backward(params, contexts.cuda(), inputs, in.Grad(), results.grad_logits.Out())}) {
      Expect(status.code == code && status.message == of_core.message &&
                 status.message.find(words) != std::string::npos,
             "error: " + words + ": " + status.message);
    }
  };
  Array shorter(core::DType::kInt32, {2, 4}), floats(core::DType::kFloat32, {2, 5});
  Array doubles(core::DType::kFloat64, {2, 5}), classes(core::DType::kFloat32, {2});
  Array halves(core::DType::kFloat16, {3}), integers(core::DType::kInt32, {2, 5, 3});
  op::Inputs bad = good;
  bad.labels = shorter.In();
  expect(params, bad, kShape, "'labels' must have shape [2, 5]");
  bad.labels = floats.In();
  expect(params, bad, kType, "'labels' must be uint8");
  bad = good;
  bad.weights = classes.In();
  expect(params, bad, kShape, "'weights' must have shape");
  bad.weights = doubles.In();
  expect(params, bad, kType, "'weights' must be float32, got float64");
  bad = good;
  bad.class_weights = classes.In();
  expect(params, bad, kShape, "'class_weights' must have shape");
  bad.class_weights = halves.In();
  expect(params, bad, kType, "'class_weights' must be float32, got float16");
  bad = good;
  bad.logits = integers.In();
  expect(params, bad, kType, "'logits' must be float16");
  op::Params cubes = params;
  cubes.power = 3;
  expect(cubes, good, kShape, "'power'");
  op::Params dense = params;
  dense.dense = true;
  bad = good;
  bad.labels = {nullptr, core::DType::kBool, {2, 5, 3}};
  expect(dense, bad, kType, "'labels' must be");
}

void TestBadGradientsAreErrors() {
  Inputs in({}, core::DType::kFloat32, core::DType::kInt32, {2, 5, 3});
  Results results(in);
  Contexts contexts;
  Array short_one(core::DType::kFloat32, {2}), wide(core::DType::kFloat64, {2, 3});
  Array wide_one(core::DType::kFloat64, {2}), long_one(core::DType::kFloat32, {3});
  const auto code = [&](const op::SumsGrad& grad) {
    const auto in_cuda = in.For(contexts.cuda());
    return Backward(in.params, contexts.cuda(), in_cuda, grad, results.grad_logits.Out()).code;
  };
  const op::SumsGrad good = in.Grad();
  constexpr auto kShape = core::Code::kInvalidArgument;
  constexpr auto kType = core::Code::kInvalidType;
  Expect(code({short_one.In(), good.prediction, good.cross_entropy}) == kShape, "intersection");
  Expect(code({good.intersection, short_one.In(), good.cross_entropy}) == kShape, "prediction");
  Expect(code({good.intersection, good.prediction, long_one.In()}) == kShape, "cross entropy");
  Expect(code({wide.In(), good.prediction, good.cross_entropy}) == kType, "wide intersection");
  Expect(code({good.intersection, wide.In(), good.cross_entropy}) == kType, "wide prediction");
  Expect(code({good.intersection, good.prediction, wide_one.In()}) == kType, "wide entropy");
  NoWorkspace none;
  const cuda::Context context{nullptr, none};
  Expect(Forward(in.params, context, in.For(context), results.Sums()).code ==
             core::Code::kResourceExhausted,
         "no memory");
}

}  // namespace

int main() {
  TestDrawnInputs();
  TestSizesAroundThoseOfTilesAndBlocks();
  TestLabelsThatDoNotExistContributeNothing();
  TestInfiniteLogitsGiveFiniteResults();
  TestEmptyInputs();
  TestLargeHalfImageLosesNothing();
  TestBadInputsAreErrors();
  TestBadGradientsAreErrors();
  TestTheSameBitsInEachOrderOfThreads();  // the last: it sets the order
  return Finish();
}
