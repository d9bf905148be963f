#include "core/roi_align.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>

#include "numpy/module.h"

namespace tfseg::numpy {
namespace {

namespace op = core::roi_align;

op::Params ParamsOf(std::array<int64_t, 2> output_size, const std::vector<float>& spatial_scales,
                    int64_t sampling_ratio, bool aligned) {
  op::Params params;
  std::copy(output_size.begin(), output_size.end(), params.output_size);
  // Core refuses more than there is room for.
  params.num_levels = static_cast<int>(std::min<size_t>(spatial_scales.size(), 1000));
  std::copy_n(spatial_scales.begin(), std::min<int>(params.num_levels, op::kMaxLevels),
              params.spatial_scales);
  params.sampling_ratio = sampling_ratio;
  params.aligned = aligned;
  return params;
}

// Arrays that stay alive, and what core sees of them.
struct Arrays {
  std::vector<py::array> arrays;
  std::vector<core::ConstBuffer> buffers;
  std::vector<core::Shape> shapes;

  explicit Arrays(const std::vector<py::object>& objects) {
    for (const py::object& object : objects) {
      arrays.push_back(Contiguous(object));
      buffers.push_back(In(arrays.back()));
      shapes.push_back(buffers.back().shape);
    }
  }
};

py::array MultilevelRoiAlign(const std::vector<py::object>& feature_objects,
                             const py::object& boxes_object, const py::object& indices_object,
                             const py::object& levels_object, std::array<int64_t, 2> output_size,
                             const std::vector<float>& spatial_scales, int64_t sampling_ratio,
                             bool aligned) {
  const Arrays features(feature_objects);
  const Arrays rest({boxes_object, indices_object, levels_object});
  const op::Params params = ParamsOf(output_size, spatial_scales, sampling_ratio, aligned);
  core::Shape shape;
  ThrowIfError(op::InferShape(params, features.shapes, rest.shapes[0], rest.shapes[1],
                              rest.shapes[2], &shape));
  py::array output = Empty(shape, features.arrays[0].dtype());
  const auto out = Out(output);
  Run([&](const core::Context& context) {
    return op::Forward(params, context, features.buffers, rest.buffers[0], rest.buffers[1],
                       rest.buffers[2], out);
  });
  return output;
}

py::array RoiAlign(const py::object& features, const py::object& boxes,
                   const py::object& box_indices, std::array<int64_t, 2> output_size,
                   float spatial_scale, int64_t sampling_ratio, bool aligned) {
  const py::object levels = py::module_::import("numpy").attr("zeros_like")(box_indices);
  return MultilevelRoiAlign({features}, boxes, box_indices, levels, output_size, {spatial_scale},
                            sampling_ratio, aligned);
}

// The bins of a gradient; of one with a wrong rank any, since core refuses it.
std::array<int64_t, 2> BinsOf(const core::Shape& grad) {
  if (grad.rank() != 4) return {1, 1};
  return {grad[1], grad[2]};
}

std::vector<py::array> RoiAlignFeaturesGrad(
    const py::object& grad_object, const py::object& boxes_object, const py::object& indices_object,
    const py::object& levels_object, const std::vector<int64_t>& sizes,
    const std::vector<float>& spatial_scales, int64_t sampling_ratio, bool aligned) {
  const Arrays in({grad_object, boxes_object, indices_object, levels_object});
  const op::Params params = ParamsOf(BinsOf(in.shapes[0]), spatial_scales, sampling_ratio, aligned);
  std::vector<int64_t> known;
  // The number that stands for an unknown size in a graph is just a negative one here.
  for (const int64_t size : sizes) known.push_back(std::max<int64_t>(size, -INT64_MAX));
  std::vector<core::Shape> shapes;
  ThrowIfError(op::InferFeaturesGradShapes(params, in.shapes[0], in.shapes[1], in.shapes[2],
                                           in.shapes[3], known, &shapes));
  std::vector<py::array> grads;
  std::vector<core::Buffer> out;
  for (const core::Shape& shape : shapes) {
    grads.push_back(Empty(shape, in.arrays[0].dtype()));
    out.push_back(Out(grads.back()));
  }
  Run([&](const core::Context& context) {
    return op::BackwardToFeatures(params, context, in.buffers[0], in.buffers[1], in.buffers[2],
                                  in.buffers[3], out);
  });
  return grads;
}

py::array RoiAlignBoxesGrad(const py::object& grad_object,
                            const std::vector<py::object>& feature_objects,
                            const py::object& boxes_object, const py::object& indices_object,
                            const py::object& levels_object,
                            const std::vector<float>& spatial_scales, int64_t sampling_ratio,
                            bool aligned) {
  const Arrays features(feature_objects);
  const Arrays in({grad_object, boxes_object, indices_object, levels_object});
  const op::Params params = ParamsOf(BinsOf(in.shapes[0]), spatial_scales, sampling_ratio, aligned);
  core::Shape shape;
  ThrowIfError(op::InferBoxesGradShape(params, in.shapes[0], features.shapes, in.shapes[1],
                                       in.shapes[2], in.shapes[3], &shape));
  py::array grad_boxes = Empty(shape, in.arrays[1].dtype());
  const auto out = Out(grad_boxes);
  Run([&](const core::Context& context) {
    return op::BackwardToBoxes(params, context, in.buffers[0], features.buffers, in.buffers[1],
                               in.buffers[2], in.buffers[3], out);
  });
  return grad_boxes;
}

const Registration registration([](py::module_& module) {
  module.def("roi_align", &RoiAlign, py::arg("features"), py::arg("boxes"), py::arg("box_indices"),
             py::arg("output_size"), py::arg("spatial_scale") = 1.0f, py::arg("sampling_ratio") = 0,
             py::arg("aligned") = true,
             "See tfseg_ops.ops.roi_align. The boxes have the accumulator's dtype.");
  module.def("multilevel_roi_align", &MultilevelRoiAlign, py::arg("features"), py::arg("boxes"),
             py::arg("box_indices"), py::arg("levels"), py::arg("output_size"),
             py::arg("spatial_scales"), py::arg("sampling_ratio") = 0, py::arg("aligned") = true,
             "See tfseg_ops.ops.multilevel_roi_align. The boxes have the accumulator's dtype.");
  module.def("roi_align_features_grad", &RoiAlignFeaturesGrad, py::arg("grad"), py::arg("boxes"),
             py::arg("box_indices"), py::arg("levels"), py::arg("sizes"), py::arg("spatial_scales"),
             py::arg("sampling_ratio") = 0, py::arg("aligned") = true,
             "The gradient of multilevel_roi_align's features; sizes are [batch, height, width, "
             "height, ...].");
  module.def("roi_align_boxes_grad", &RoiAlignBoxesGrad, py::arg("grad"), py::arg("features"),
             py::arg("boxes"), py::arg("box_indices"), py::arg("levels"), py::arg("spatial_scales"),
             py::arg("sampling_ratio") = 0, py::arg("aligned") = true,
             "The gradient of multilevel_roi_align's boxes.");
});

}  // namespace
}  // namespace tfseg::numpy
