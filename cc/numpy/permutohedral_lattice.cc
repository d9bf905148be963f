#include "core/permutohedral_lattice.h"

#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::permutohedral_lattice;

py::tuple PermutohedralLattice(const py::object& features_object) {
  const py::array features = Contiguous(features_object);
  op::Members<core::Shape> shapes;
  ThrowIfError(op::InferShape(ShapeOf(features), &shapes));
  const py::dtype ints("int32"), floats("float32");
  py::array vertices = Empty(shapes.vertices, ints);
  py::array weights = Empty(shapes.weights, floats);
  py::array splat_points = Empty(shapes.splat_points, ints);
  py::array splat_weights = Empty(shapes.splat_weights, floats);
  py::array splat_offsets = Empty(shapes.splat_offsets, ints);
  py::array neighbours = Empty(shapes.neighbours, ints);
  py::array norms = Empty(shapes.norms, floats);
  py::array num_vertices = Empty(shapes.num_vertices, ints);
  const auto in = In(features);
  const op::Members<core::Buffer> out{{},
                                      Out(vertices),
                                      Out(weights),
                                      Out(splat_points),
                                      Out(splat_weights),
                                      Out(splat_offsets),
                                      Out(neighbours),
                                      Out(norms),
                                      Out(num_vertices)};
  Run([&](const core::Context& context) { return op::Forward(context, in, out); });
  return py::make_tuple(features, vertices, weights, splat_points, splat_weights, splat_offsets,
                        neighbours, norms, num_vertices);
}

const Registration registration([](py::module_& module) {
  module.def("permutohedral_lattice", &PermutohedralLattice, py::arg("features"),
             "See tfseg_ops.ops.permutohedral_lattice.");
});

}  // namespace
}  // namespace tfseg::numpy
