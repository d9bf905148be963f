#include "core/soft_dice_sums.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::soft_dice_sums;

op::Activation ActivationOf(const std::string& name) {
  op::Activation activation;
  if (op::FindActivation(name, &activation)) return activation;
  throw py::value_error("soft_dice_sums: 'activation' must be softmax, sigmoid or none, got " +
                        name);
}

// Arguments that stay alive, and what core sees of them.
struct Arguments {
  op::Params params;
  py::array logits, labels, weights, class_weights;

  Arguments(const py::object& logits_object, const py::object& labels_object,
            const py::object& weights_object, const py::object& class_weights_object,
            std::optional<int64_t> ignore_label, const std::string& activation, int power,
            bool dense)
      : logits(Contiguous(logits_object)), labels(Contiguous(labels_object)) {
    params.activation = ActivationOf(activation);
    params.power = power;
    params.dense = dense;
    params.has_weights = !weights_object.is_none();
    params.has_class_weights = !class_weights_object.is_none();
    params.has_ignore_label = ignore_label.has_value();
    params.ignore_label = ignore_label.value_or(0);
    if (params.has_weights) weights = Contiguous(weights_object);
    if (params.has_class_weights) class_weights = Contiguous(class_weights_object);
  }

  op::Inputs Get() const { return {In(logits), In(labels), In(weights), In(class_weights)}; }
};

py::dtype SumsDType(const py::array& logits) {
  return py::dtype(DTypeOf(logits.dtype()) == core::DType::kFloat64 ? "float64" : "float32");
}

py::tuple SoftDiceSums(const py::object& logits, const py::object& labels,
                       const py::object& weights, const py::object& class_weights,
                       std::optional<int64_t> ignore_label, const std::string& activation,
                       int power, bool dense) {
  const Arguments arguments(logits, labels, weights, class_weights, ignore_label, activation, power,
                            dense);
  const op::Inputs inputs = arguments.Get();
  core::Shape sums, totals;
  ThrowIfError(op::InferShape(arguments.params, inputs.logits.shape, inputs.labels.shape,
                              inputs.weights.shape, inputs.class_weights.shape, &sums, &totals));
  const py::dtype dtype = SumsDType(arguments.logits);
  py::array intersection = Empty(sums, dtype), prediction = Empty(sums, dtype);
  py::array target = Empty(sums, dtype);
  py::array cross_entropy = Empty(totals, dtype), weight_sum = Empty(totals, dtype);
  const op::Sums out{Out(intersection), Out(prediction), Out(target), Out(cross_entropy),
                     Out(weight_sum)};
  Run([&](const core::Context& context) {
    return op::Forward(arguments.params, context, inputs, out);
  });
  return py::make_tuple(intersection, prediction, target, cross_entropy, weight_sum);
}

py::array SoftDiceSumsGrad(const py::object& logits, const py::object& labels,
                           const py::object& weights, const py::object& class_weights,
                           std::optional<int64_t> ignore_label, const std::string& activation,
                           int power, bool dense, const py::object& grad_intersection,
                           const py::object& grad_prediction,
                           const py::object& grad_cross_entropy) {
  const Arguments arguments(logits, labels, weights, class_weights, ignore_label, activation, power,
                            dense);
  const op::Inputs inputs = arguments.Get();
  const py::array of_intersection = Contiguous(grad_intersection);
  const py::array of_prediction = Contiguous(grad_prediction);
  const py::array of_cross_entropy = Contiguous(grad_cross_entropy);
  py::array grad_logits = Empty(inputs.logits.shape, arguments.logits.dtype());
  const op::SumsGrad grad{In(of_intersection), In(of_prediction), In(of_cross_entropy)};
  const auto out = Out(grad_logits);
  Run([&](const core::Context& context) {
    return op::Backward(arguments.params, context, inputs, grad, out);
  });
  return grad_logits;
}

const Registration registration([](py::module_& module) {
  module.def("soft_dice_sums", &SoftDiceSums, py::arg("logits"), py::arg("labels"),
             py::arg("weights") = py::none(), py::arg("class_weights") = py::none(),
             py::arg("ignore_label") = py::none(), py::arg("activation") = "softmax",
             py::arg("power") = 1, py::arg("dense") = false,
             "See tfseg_ops.ops.soft_dice_sums. Weights have the accumulator's dtype; dense says "
             "that labels are targets for each class.");
  module.def("soft_dice_sums_grad", &SoftDiceSumsGrad, py::arg("logits"), py::arg("labels"),
             py::arg("weights"), py::arg("class_weights"), py::arg("ignore_label"),
             py::arg("activation"), py::arg("power"), py::arg("dense"),
             py::arg("grad_intersection"), py::arg("grad_prediction"),
             py::arg("grad_cross_entropy"), "The gradient of soft_dice_sums' logits.");
});

}  // namespace
}  // namespace tfseg::numpy
