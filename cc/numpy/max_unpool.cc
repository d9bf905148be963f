#include "core/max_unpool.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>

#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::max_unpool;

op::Params ParamsOf(bool include_batch_in_index, const std::vector<int64_t>& windows) {
  op::Params params;
  params.include_batch_in_index = include_batch_in_index;
  params.check_windows = !windows.empty();
  if (params.check_windows) {
    if (windows.size() != 4)
      throw py::value_error("max_unpool: 'windows' must have 4 numbers, got " +
                            std::to_string(windows.size()));
    for (int axis = 0; axis < 2; ++axis) {
      params.ksize[axis] = windows[axis];
      params.strides[axis] = windows[2 + axis];
    }
  }
  return params;
}

py::array MaxUnpool(const py::object& input_object, const py::object& argmax_object,
                    std::array<int64_t, 2> output_shape, bool include_batch_in_index,
                    const std::vector<int64_t>& windows) {
  const py::array input = Contiguous(input_object);
  const py::array argmax = Contiguous(argmax_object);
  const op::Params params = ParamsOf(include_batch_in_index, windows);
  core::Shape shape;
  // The number that stands for an unknown size in a graph is just a negative one here.
  for (int64_t& size : output_shape) size = std::max<int64_t>(size, -INT64_MAX);
  ThrowIfError(op::InferShape(params, ShapeOf(input), ShapeOf(argmax), output_shape[0],
                              output_shape[1], &shape));
  py::array output = Empty(shape, input.dtype());
  const auto in = In(input), masks = In(argmax);
  const auto out = Out(output);
  Run([&](const core::Context& context) { return op::Forward(params, context, in, masks, out); });
  return output;
}

py::array MaxUnpoolGrad(const py::object& grad_object, const py::object& argmax_object,
                        bool include_batch_in_index) {
  const py::array grad = Contiguous(grad_object);
  const py::array argmax = Contiguous(argmax_object);
  const op::Params params = ParamsOf(include_batch_in_index, {});
  core::Shape shape;
  ThrowIfError(op::InferGradShape(ShapeOf(grad), ShapeOf(argmax), &shape));
  py::array grad_input = Empty(shape, grad.dtype());
  const auto in = In(grad), masks = In(argmax);
  const auto out = Out(grad_input);
  Run([&](const core::Context& context) { return op::Backward(params, context, in, masks, out); });
  return grad_input;
}

const Registration registration([](py::module_& module) {
  module.def("max_unpool", &MaxUnpool, py::arg("input"), py::arg("argmax"), py::arg("output_shape"),
             py::arg("include_batch_in_index") = false, py::arg("windows") = std::vector<int64_t>(),
             "See tfseg_ops.ops.max_unpool.");
  module.def("max_unpool_grad", &MaxUnpoolGrad, py::arg("grad"), py::arg("argmax"),
             py::arg("include_batch_in_index") = false,
             "The gradient of max_unpool's values: picks grad at the positions that argmax names.");
});

}  // namespace
}  // namespace tfseg::numpy
