#include "core/max_unpool.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tf/adapter.h"
#if defined(TFSEG_CUDA)
#include "cuda/max_unpool.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::max_unpool;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

template <typename Source>
absl::Status GetParams(Source* source, op::Params* params) {
  TF_RETURN_IF_ERROR(source->GetAttr("include_batch_in_index", &params->include_batch_in_index));
  std::vector<int64_t> windows;
  TF_RETURN_IF_ERROR(source->GetAttr("windows", &windows));
  params->check_windows = !windows.empty();
  if (!params->check_windows) return absl::OkStatus();
  int64_t numbers[4];
  TF_RETURN_IF_ERROR(GetNumbers<4>(source, "windows", numbers));
  std::copy(numbers, numbers + 2, params->ksize);
  std::copy(numbers + 2, numbers + 4, params->strides);
  return absl::OkStatus();
}

absl::Status RequirePair(const core::Shape& output_shape) {
  core::Dim two{nullptr, 2};
  core::ShapeChecker check("max_unpool");
  check.Require("output_shape", output_shape, {&two});
  return ToStatus(check.status());
}

int64_t SizeAt(const Tensor& sizes, int axis) {
  if (sizes.dtype() == tensorflow::DT_INT32) return sizes.flat<int32_t>()(axis);
  // The number that stands for an unknown size in a graph is just a negative one here.
  return std::max<int64_t>(sizes.flat<int64_t>()(axis), -INT64_MAX);
}

absl::Status InferShape(InferenceContext* context) {
  op::Params params;
  TF_RETURN_IF_ERROR(GetParams(context, &params));
  TF_RETURN_IF_ERROR(RequirePair(ToShape(context, context->input(2))));
  core::Shape sizes{core::kUnknown, core::kUnknown};
  if (const Tensor* values = context->input_tensor(2); values != nullptr) {
    sizes = {SizeAt(*values, 0), SizeAt(*values, 1)};
  } else {
    ShapeHandle size;
    TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(2, &size));
    if (context->RankKnown(size)) sizes = ToShape(context, size);
  }
  core::Shape output;
  TF_RETURN_IF_ERROR(
      ToStatus(op::InferShape(params, ToShape(context, context->input(0)),
                              ToShape(context, context->input(1)), sizes[0], sizes[1], &output)));
  context->set_output(0, FromShape(context, output));
  return absl::OkStatus();
}

REGISTER_OP("Tfseg>MaxUnpool")
    .Input("input: T")
    .Input("argmax: Index")
    .Input("output_shape: Size")
    .Output("output: T")
    .Attr(TFSEG_FLOAT_ATTR)
    .Attr(TFSEG_INDEX_ATTR)
    .Attr("Size: {int32, int64} = DT_INT64")
    .Attr("include_batch_in_index: bool = false")
    .Attr("windows: list(int) = []")
    .SetShapeFn(InferShape);

template <typename DeviceContext>
class MaxUnpool : public OpKernel {
 public:
  explicit MaxUnpool(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& size = context->input(2);
    OP_REQUIRES_OK(context, RequirePair(ToShape(size.shape())));
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(params_, ToShape(context->input(0).shape()),
                                                    ToShape(context->input(1).shape()),
                                                    SizeAt(size, 0), SizeAt(size, 1), &shape)));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &output));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Forward(params_, device.Get(), In(context->input(0)),
                                             In(context->input(1)), Out(output))));
  }

 private:
  op::Params params_;
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MaxUnpool").HostMemory("output_shape"), MaxUnpool);

REGISTER_OP("Tfseg>MaxUnpoolGrad")
    .Input("grad: T")
    .Input("argmax: Index")
    .Output("grad_input: T")
    .Attr(TFSEG_FLOAT_ATTR)
    .Attr(TFSEG_INDEX_ATTR)
    .Attr("include_batch_in_index: bool = false")
    .Attr("windows: list(int) = []")
    .SetShapeFn([](InferenceContext* context) {
      core::Shape grad_input;
      TF_RETURN_IF_ERROR(ToStatus(op::InferGradShape(
          ToShape(context, context->input(0)), ToShape(context, context->input(1)), &grad_input)));
      context->set_output(0, FromShape(context, grad_input));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class MaxUnpoolGrad : public OpKernel {
 public:
  explicit MaxUnpoolGrad(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

  void Compute(OpKernelContext* context) override {
    Tensor* grad_input = nullptr;
    core::Shape shape;
    OP_REQUIRES_OK(context,
                   ToStatus(op::InferGradShape(ToShape(context->input(0).shape()),
                                               ToShape(context->input(1).shape()), &shape)));
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &grad_input));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Backward(params_, device.Get(), In(context->input(0)),
                                              In(context->input(1)), Out(grad_input))));
  }

 private:
  op::Params params_;
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MaxUnpoolGrad"), MaxUnpoolGrad);

}  // namespace
}  // namespace tfseg::tf
