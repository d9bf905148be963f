#include "core/gaussian_filter.h"

#include "numpy/lattice.h"
#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::gaussian_filter;

py::array GaussianFilter(const py::object& values_object, const py::object& lattice_object,
                         bool reverse) {
  const py::array values = Contiguous(values_object);
  const LatticeArrays arrays("gaussian_filter", "lattice", lattice_object);
  const auto lattice = arrays.Get();
  core::Shape shape;
  ThrowIfError(op::InferShape(ShapeOf(values), lattice.features.shape, &shape));
  py::array output = Empty(shape, values.dtype());
  const auto in = In(values);
  const auto out = Out(output);
  Run([&](const core::Context& context) {
    return op::Forward({reverse}, context, in, lattice, out);
  });
  return output;
}

py::array GaussianFilterFeaturesGrad(const py::object& values_object,
                                     const py::object& lattice_object,
                                     const py::object& grad_object, bool reverse) {
  const py::array values = Contiguous(values_object), grad = Contiguous(grad_object);
  const LatticeArrays arrays("gaussian_filter", "lattice", lattice_object);
  const auto lattice = arrays.Get();
  core::Shape shape;
  ThrowIfError(op::InferShape(ShapeOf(values), lattice.features.shape, &shape));
  py::array grad_features = Empty(lattice.features.shape, py::dtype("float32"));
  const auto in = In(values), upstream = In(grad);
  const auto out = Out(grad_features);
  Run([&](const core::Context& context) {
    return op::FeaturesGrad({reverse}, context, in, lattice, upstream, out);
  });
  return grad_features;
}

const Registration registration([](py::module_& module) {
  module.def("gaussian_filter", &GaussianFilter, py::arg("values"), py::arg("lattice"),
             py::arg("reverse") = false,
             "See tfseg_ops.ops.gaussian_filter; reverse is the transpose.");
  module.def("gaussian_filter_features_grad", &GaussianFilterFeaturesGrad, py::arg("values"),
             py::arg("lattice"), py::arg("grad"), py::arg("reverse") = false,
             "The gradient of gaussian_filter's features.");
});

}  // namespace
}  // namespace tfseg::numpy
