#include "core/max_pool_with_argmax.h"

#include <pybind11/stl.h>

#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::max_pool_with_argmax;

py::tuple MaxPoolWithArgmax(const py::object& input_object, std::array<int64_t, 2> ksize,
                            std::array<int64_t, 2> strides, const std::string& padding,
                            const py::object& output_dtype, bool include_batch_in_index) {
  if (padding != "VALID" && padding != "SAME") {
    throw py::value_error("max_pool_with_argmax: 'padding' must be VALID or SAME, got " + padding);
  }
  const py::array input = Contiguous(input_object);
  const py::dtype index = py::dtype::from_args(output_dtype).attr("newbyteorder")("=");
  const op::Params params{
      {ksize[0], ksize[1]}, {strides[0], strides[1]}, padding == "SAME", include_batch_in_index};
  core::Shape shape;
  ThrowIfError(op::InferShape(params, ShapeOf(input), DTypeOf(index), &shape));
  py::array output = Empty(shape, input.dtype());
  py::array argmax = Empty(shape, index);
  const auto in = In(input);
  const auto out = Out(output), out_argmax = Out(argmax);
  Run([&](const core::Context& context) {
    return op::Forward(params, context, in, out, out_argmax);
  });
  return py::make_tuple(output, argmax);
}

const Registration registration([](py::module_& module) {
  module.def("max_pool_with_argmax", &MaxPoolWithArgmax, py::arg("input"), py::arg("ksize"),
             py::arg("strides"), py::arg("padding"), py::arg("output_dtype") = "int64",
             py::arg("include_batch_in_index") = false, "See tfseg_ops.ops.max_pool_with_argmax.");
});

}  // namespace
}  // namespace tfseg::numpy
