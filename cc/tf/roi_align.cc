#include "core/roi_align.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tf/adapter.h"
#if defined(TFSEG_CUDA)
#include "cuda/roi_align.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::roi_align;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

template <typename Source>
absl::Status GetParams(Source* source, op::Params* params) {
  TF_RETURN_IF_ERROR(GetNumbers<2>(source, "output_size", params->output_size));
  std::vector<float> scales;
  TF_RETURN_IF_ERROR(source->GetAttr("spatial_scales", &scales));
  int64_t num_levels = 0;
  TF_RETURN_IF_ERROR(source->GetAttr("num_levels", &num_levels));
  if (static_cast<int64_t>(scales.size()) != num_levels) {
    return absl::InvalidArgumentError("roi_align: 'spatial_scales' must have " +
                                      std::to_string(num_levels) + " numbers, got " +
                                      std::to_string(scales.size()));
  }
  // Core refuses more than there is room for.
  params->num_levels = static_cast<int>(scales.size());
  std::copy_n(scales.begin(), std::min<int>(params->num_levels, op::kMaxLevels),
              params->spatial_scales);
  TF_RETURN_IF_ERROR(source->GetAttr("sampling_ratio", &params->sampling_ratio));
  return source->GetAttr("aligned", &params->aligned);
}

// What is known of the inputs from number `first` on.
std::vector<core::Shape> ShapesFrom(InferenceContext* context, int first) {
  std::vector<core::Shape> shapes;
  for (int i = first; i < context->num_inputs(); ++i) {
    shapes.push_back(ToShape(context, context->input(i)));
  }
  return shapes;
}

std::vector<core::ConstBuffer> BuffersOf(const OpInputList& list) {
  std::vector<core::ConstBuffer> buffers;
  for (const Tensor& tensor : list) buffers.push_back(In(tensor));
  return buffers;
}

std::vector<core::Shape> ShapesOf(const OpInputList& list) {
  std::vector<core::Shape> shapes;
  for (const Tensor& tensor : list) shapes.push_back(ToShape(tensor.shape()));
  return shapes;
}

std::vector<int64_t> NumbersOf(const Tensor& tensor) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < tensor.NumElements(); ++i) {
    // The number that stands for an unknown size in a graph is just a negative one here.
    numbers.push_back(tensor.dtype() == tensorflow::DT_INT32
                          ? int64_t{tensor.flat<int32_t>()(i)}
                          : std::max<int64_t>(tensor.flat<int64_t>()(i), -INT64_MAX));
  }
  return numbers;
}

// The inputs and attributes that the three ops share.
#define TFSEG_BOX_INPUTS Input("boxes: Box").Input("box_indices: Index").Input("levels: Index")
#define TFSEG_ROI_ALIGN_ATTRS              \
  Attr(TFSEG_FLOAT_ATTR)                   \
      .Attr(TFSEG_INDEX_ATTR)              \
      .Attr("Box: {float, double}")        \
      .Attr("num_levels: int >= 1")        \
      .Attr("output_size: list(int)")      \
      .Attr("spatial_scales: list(float)") \
      .Attr("sampling_ratio: int = 0")     \
      .Attr("aligned: bool = true")

template <typename DeviceContext>
class RoiAlignKernel : public OpKernel {
 public:
  explicit RoiAlignKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

 protected:
  op::Params params_;
};

REGISTER_OP("Tfseg>RoiAlign")
    .TFSEG_BOX_INPUTS.Input("features: num_levels * T")
    .Output("output: T")
    .TFSEG_ROI_ALIGN_ATTRS.SetShapeFn([](InferenceContext* context) {
      op::Params params;
      TF_RETURN_IF_ERROR(GetParams(context, &params));
      core::Shape output;
      TF_RETURN_IF_ERROR(ToStatus(op::InferShape(
          params, ShapesFrom(context, 3), ToShape(context, context->input(0)),
          ToShape(context, context->input(1)), ToShape(context, context->input(2)), &output)));
      context->set_output(0, FromShape(context, output));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class RoiAlign : public RoiAlignKernel<DeviceContext> {
 public:
  using RoiAlignKernel<DeviceContext>::RoiAlignKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& boxes = context->input(0);
    const Tensor& box_indices = context->input(1);
    const Tensor& levels = context->input(2);
    OpInputList features;
    OP_REQUIRES_OK(context, context->input_list("features", &features));
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(
                                this->params_, ShapesOf(features), ToShape(boxes.shape()),
                                ToShape(box_indices.shape()), ToShape(levels.shape()), &shape)));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &output));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Forward(this->params_, device.Get(), BuffersOf(features),
                                             In(boxes), In(box_indices), In(levels), Out(output))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>RoiAlign"), RoiAlign);

REGISTER_OP("Tfseg>RoiAlignFeaturesGrad")
    .TFSEG_BOX_INPUTS.Input("grad: T")
    .Input("output_shape: Size")  // [batch, height, width of level 0, height, ...]
    .Output("grad_features: num_levels * T")
    .TFSEG_ROI_ALIGN_ATTRS.Attr("Size: {int32, int64} = DT_INT64")
    .SetShapeFn([](InferenceContext* context) {
      op::Params params;
      TF_RETURN_IF_ERROR(GetParams(context, &params));
      std::vector<int64_t> sizes(1 + 2 * params.num_levels, core::kUnknown);
      if (const Tensor* values = context->input_tensor(4); values != nullptr) {
        sizes = NumbersOf(*values);
      } else {
        ShapeHandle size;
        TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(4, &size));
        if (context->RankKnown(size)) {
          for (int axis = 0; axis < context->Rank(size); ++axis) {
            const auto dim = context->Dim(size, axis);
            if (axis < static_cast<int>(sizes.size()) && context->ValueKnown(dim)) {
              sizes[axis] = context->Value(dim);
            }
          }
        }
      }
      std::vector<core::Shape> shapes;
      TF_RETURN_IF_ERROR(ToStatus(op::InferFeaturesGradShapes(
          params, ToShape(context, context->input(3)), ToShape(context, context->input(0)),
          ToShape(context, context->input(1)), ToShape(context, context->input(2)), sizes,
          &shapes)));
      for (size_t level = 0; level < shapes.size(); ++level) {
        context->set_output(static_cast<int>(level), FromShape(context, shapes[level]));
      }
      return absl::OkStatus();
    });

template <typename DeviceContext>
class RoiAlignFeaturesGrad : public RoiAlignKernel<DeviceContext> {
 public:
  using RoiAlignKernel<DeviceContext>::RoiAlignKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& boxes = context->input(0);
    const Tensor& box_indices = context->input(1);
    const Tensor& levels = context->input(2);
    const Tensor& grad = context->input(3);
    std::vector<core::Shape> shapes;
    OP_REQUIRES_OK(context, ToStatus(op::InferFeaturesGradShapes(
                                this->params_, ToShape(grad.shape()), ToShape(boxes.shape()),
                                ToShape(box_indices.shape()), ToShape(levels.shape()),
                                NumbersOf(context->input(4)), &shapes)));
    OpOutputList outputs;
    OP_REQUIRES_OK(context, context->output_list("grad_features", &outputs));
    std::vector<core::Buffer> grad_features;
    for (size_t level = 0; level < shapes.size(); ++level) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context,
                     outputs.allocate(static_cast<int>(level), FromShape(shapes[level]), &output));
      grad_features.push_back(Out(output));
    }
    DeviceContext device(context);
    OP_REQUIRES_OK(context,
                   ToStatus(BackwardToFeatures(this->params_, device.Get(), In(grad), In(boxes),
                                               In(box_indices), In(levels), grad_features)));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>RoiAlignFeaturesGrad").HostMemory("output_shape"),
                       RoiAlignFeaturesGrad);

REGISTER_OP("Tfseg>RoiAlignBoxesGrad")
    .TFSEG_BOX_INPUTS.Input("grad: T")
    .Input("features: num_levels * T")
    .Output("grad_boxes: Box")
    .TFSEG_ROI_ALIGN_ATTRS.SetShapeFn([](InferenceContext* context) {
      op::Params params;
      TF_RETURN_IF_ERROR(GetParams(context, &params));
      core::Shape grad_boxes;
      TF_RETURN_IF_ERROR(ToStatus(op::InferBoxesGradShape(
          params, ToShape(context, context->input(3)), ShapesFrom(context, 4),
          ToShape(context, context->input(0)), ToShape(context, context->input(1)),
          ToShape(context, context->input(2)), &grad_boxes)));
      context->set_output(0, FromShape(context, grad_boxes));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class RoiAlignBoxesGrad : public RoiAlignKernel<DeviceContext> {
 public:
  using RoiAlignKernel<DeviceContext>::RoiAlignKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& boxes = context->input(0);
    const Tensor& box_indices = context->input(1);
    const Tensor& levels = context->input(2);
    const Tensor& grad = context->input(3);
    OpInputList features;
    OP_REQUIRES_OK(context, context->input_list("features", &features));
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferBoxesGradShape(
                                this->params_, ToShape(grad.shape()), ShapesOf(features),
                                ToShape(boxes.shape()), ToShape(box_indices.shape()),
                                ToShape(levels.shape()), &shape)));
    Tensor* grad_boxes = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &grad_boxes));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(BackwardToBoxes(
                                this->params_, device.Get(), In(grad), BuffersOf(features),
                                In(boxes), In(box_indices), In(levels), Out(grad_boxes))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>RoiAlignBoxesGrad"), RoiAlignBoxesGrad);

#undef TFSEG_ROI_ALIGN_ATTRS
#undef TFSEG_BOX_INPUTS

}  // namespace
}  // namespace tfseg::tf
