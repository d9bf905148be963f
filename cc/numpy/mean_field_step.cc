#include "core/mean_field_step.h"

#include <string>
#include <vector>

#include "numpy/lattice.h"
#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::mean_field_step;

op::Normalization NormalizationOf(const std::string& name) {
  if (name == "none") return op::Normalization::kNone;
  if (name == "before") return op::Normalization::kBefore;
  if (name == "after") return op::Normalization::kAfter;
  if (name == "symmetric") return op::Normalization::kSymmetric;
  throw py::value_error(
      "mean_field_step: 'normalization' must be none, before, after or symmetric, got " + name);
}

// Arguments that stay alive, and what core sees of them.
struct Arguments {
  op::Params params;
  op::Inputs inputs;
  py::array q, unary, mixing;
  std::vector<LatticeArrays> lattices;

  Arguments(const py::object& q_object, const py::object& unary_object,
            const py::sequence& lattice_objects, const py::object& mixing_object,
            const py::sequence& normalizations, bool logits)
      : q(Contiguous(q_object)),
        unary(Contiguous(unary_object)),
        mixing(Contiguous(mixing_object)) {
    params.diagonal = mixing.ndim() < 3;
    params.logits = logits;
    for (const auto& name : normalizations) {
      params.normalizations.push_back(NormalizationOf(py::cast<std::string>(name)));
    }
    inputs.q = In(q);
    inputs.unary = In(unary);
    inputs.mixing = In(mixing);
    for (const auto& lattice : lattice_objects) {
      const std::string name = "lattices[" + std::to_string(lattices.size()) + "]";
      lattices.emplace_back("mean_field_step", name, py::reinterpret_borrow<py::object>(lattice));
      inputs.lattices.push_back(lattices.back().Get());
    }
  }

  core::Shape Check() const {
    std::vector<core::Shape> features;
    for (const auto& lattice : inputs.lattices) features.push_back(lattice.features.shape);
    core::Shape output;
    ThrowIfError(op::InferShape(params, inputs.q.shape, inputs.unary.shape, inputs.mixing.shape,
                                features, &output));
    return output;
  }
};

// The array to write to: `object`, or a fresh one for None.
py::array OutputFor(const Arguments& arguments, const py::object& object) {
  const core::Shape shape = arguments.Check();
  if (object.is_none()) return Empty(shape, arguments.q.dtype());
  const auto refuse = [](const char* rule) {
    throw py::value_error(std::string("mean_field_step: 'out' must ") + rule);
  };
  if (!py::isinstance<py::array>(object)) refuse("be a numpy array");
  const auto out = py::reinterpret_borrow<py::array>(object);
  if (!out.dtype().is(arguments.q.dtype()) && !out.dtype().equal(arguments.q.dtype())) {
    refuse("have the dtype of 'q'");
  }
  if (ShapeOf(out).ToString() != shape.ToString()) refuse("have the shape of 'q'");
  if (!out.writeable() || (out.flags() & py::array::c_style) == 0) {
    refuse("be writeable and contiguous");
  }
  const py::object shares = py::module_::import("numpy").attr("may_share_memory");
  for (const py::array* input : {&arguments.q, &arguments.unary}) {
    if (shares(out, *input).cast<bool>()) refuse("share no memory with 'q' and 'unary'");
  }
  return out;
}

py::array MeanFieldStep(const py::object& q, const py::object& unary, const py::sequence& lattices,
                        const py::object& mixing, const py::sequence& normalizations, bool logits,
                        const py::object& out_object) {
  const Arguments arguments(q, unary, lattices, mixing, normalizations, logits);
  py::array output = OutputFor(arguments, out_object);
  const auto out = Out(output);
  Run([&](const core::Context& context) {
    return op::Forward(arguments.params, context, arguments.inputs, out);
  });
  return output;
}

py::tuple MeanFieldStepGrad(const py::object& q, const py::object& unary,
                            const py::sequence& lattices, const py::object& mixing,
                            const py::sequence& normalizations, const py::object& output_object,
                            const py::object& grad_object, bool logits) {
  const Arguments arguments(q, unary, lattices, mixing, normalizations, logits);
  const py::array output = Contiguous(output_object), grad = Contiguous(grad_object);
  const core::Shape shape = arguments.Check();
  py::array grad_q = Empty(shape, arguments.q.dtype());
  py::array grad_unary = Empty(shape, arguments.q.dtype());
  py::array grad_mixing = Empty(arguments.inputs.mixing.shape, arguments.mixing.dtype());
  const auto in = In(output), upstream = In(grad);
  const op::Grads grads{Out(grad_q), Out(grad_unary), Out(grad_mixing)};
  Run([&](const core::Context& context) {
    return op::Backward(arguments.params, context, arguments.inputs, in, upstream, grads);
  });
  return py::make_tuple(grad_q, grad_unary, grad_mixing);
}

py::list MeanFieldStepFeaturesGrad(const py::object& q, const py::object& unary,
                                   const py::sequence& lattices, const py::object& mixing,
                                   const py::sequence& normalizations,
                                   const py::object& output_object, const py::object& grad_object,
                                   bool logits) {
  const Arguments arguments(q, unary, lattices, mixing, normalizations, logits);
  const py::array output = Contiguous(output_object), grad = Contiguous(grad_object);
  (void)arguments.Check();
  py::list results;
  std::vector<core::Buffer> grads;
  for (const auto& lattice : arguments.inputs.lattices) {
    py::array result = Empty(lattice.features.shape, py::dtype("float32"));
    grads.push_back(Out(result));
    results.append(result);
  }
  const auto in = In(output), upstream = In(grad);
  Run([&](const core::Context& context) {
    return op::FeaturesGrad(arguments.params, context, arguments.inputs, in, upstream, grads);
  });
  return results;
}

const Registration registration([](py::module_& module) {
  module.def("mean_field_step", &MeanFieldStep, py::arg("q"), py::arg("unary"), py::arg("lattices"),
             py::arg("mixing"), py::arg("normalizations"), py::arg("logits") = false,
             py::arg("out") = py::none(),
             "See tfseg_ops.ops.mean_field_step. mixing has the accumulator's dtype, shape "
             "[lattices, classes] or [lattices, classes, classes].");
  module.def("mean_field_step_grad", &MeanFieldStepGrad, py::arg("q"), py::arg("unary"),
             py::arg("lattices"), py::arg("mixing"), py::arg("normalizations"), py::arg("output"),
             py::arg("grad"), py::arg("logits") = false,
             "The gradients of mean_field_step's q, unary and mixing.");
  module.def("mean_field_step_features_grad", &MeanFieldStepFeaturesGrad, py::arg("q"),
             py::arg("unary"), py::arg("lattices"), py::arg("mixing"), py::arg("normalizations"),
             py::arg("output"), py::arg("grad"), py::arg("logits") = false,
             "The gradients of the features of mean_field_step's lattices.");
});

}  // namespace
}  // namespace tfseg::numpy
