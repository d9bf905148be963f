#include "core/soft_dice_sums.h"

#include <string>

#include "tf/adapter.h"
#if defined(TFSEG_CUDA)
#include "cuda/soft_dice_sums.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::soft_dice_sums;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;

template <typename Source>
absl::Status GetParams(Source* source, op::Params* params) {
  std::string activation;
  TF_RETURN_IF_ERROR(source->GetAttr("activation", &activation));
  op::FindActivation(activation, &params->activation);
  TF_RETURN_IF_ERROR(source->GetAttr("power", &params->power));
  TF_RETURN_IF_ERROR(source->GetAttr("dense", &params->dense));
  TF_RETURN_IF_ERROR(source->GetAttr("has_weights", &params->has_weights));
  TF_RETURN_IF_ERROR(source->GetAttr("has_class_weights", &params->has_class_weights));
  TF_RETURN_IF_ERROR(source->GetAttr("has_ignore_label", &params->has_ignore_label));
  return source->GetAttr("ignore_label", &params->ignore_label);
}

absl::Status InferShape(InferenceContext* context, core::Shape* sums, core::Shape* totals) {
  op::Params params;
  TF_RETURN_IF_ERROR(GetParams(context, &params));
  const auto shape = [&](int input) { return ToShape(context, context->input(input)); };
  return ToStatus(op::InferShape(params, shape(0), shape(1), shape(2), shape(3), sums, totals));
}

// The inputs and attributes that the op and its gradient share.
#define TFSEG_SUMS_INPUTS \
  Input("logits: T").Input("labels: Label").Input("weights: Sum").Input("class_weights: Sum")
#define TFSEG_SUMS_ATTRS                                                   \
  Attr(TFSEG_FLOAT_ATTR)                                                   \
      .Attr("Label: {uint8, int32, int64, half, bfloat16, float, double}") \
      .Attr("Sum: {float, double}")                                        \
      .Attr("activation: {'softmax', 'sigmoid', 'none'} = 'softmax'")      \
      .Attr("power: int = 1")                                              \
      .Attr("dense: bool = false")                                         \
      .Attr("has_weights: bool = false")                                   \
      .Attr("has_class_weights: bool = false")                             \
      .Attr("has_ignore_label: bool = false")                              \
      .Attr("ignore_label: int = 0")

template <typename DeviceContext>
class SoftDiceSumsKernel : public OpKernel {
 public:
  explicit SoftDiceSumsKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

 protected:
  static op::Inputs InputsOf(OpKernelContext* context) {
    return {In(context->input(0)), In(context->input(1)), In(context->input(2)),
            In(context->input(3))};
  }

  // The shapes of the sums, or why there are none.
  absl::Status CheckedShapes(OpKernelContext* context, core::Shape* sums,
                             core::Shape* totals) const {
    const op::Inputs inputs = InputsOf(context);
    return ToStatus(op::InferShape(params_, inputs.logits.shape, inputs.labels.shape,
                                   inputs.weights.shape, inputs.class_weights.shape, sums, totals));
  }

  op::Params params_;
};

REGISTER_OP("Tfseg>SoftDiceSums")
    .TFSEG_SUMS_INPUTS.Output("intersection: Sum")
    .Output("prediction: Sum")
    .Output("target: Sum")
    .Output("cross_entropy: Sum")
    .Output("weight_sum: Sum")
    .TFSEG_SUMS_ATTRS.SetShapeFn([](InferenceContext* context) {
      core::Shape sums, totals;
      TF_RETURN_IF_ERROR(InferShape(context, &sums, &totals));
      for (int n = 0; n < 5; ++n) context->set_output(n, FromShape(context, n < 3 ? sums : totals));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class SoftDiceSums : public SoftDiceSumsKernel<DeviceContext> {
 public:
  using SoftDiceSumsKernel<DeviceContext>::SoftDiceSumsKernel;

  void Compute(OpKernelContext* context) override {
    core::Shape sums, totals;
    OP_REQUIRES_OK(context, this->CheckedShapes(context, &sums, &totals));
    Tensor* outputs[5];
    for (int n = 0; n < 5; ++n) {
      OP_REQUIRES_OK(context,
                     context->allocate_output(n, FromShape(n < 3 ? sums : totals), &outputs[n]));
    }
    const op::Sums out{Out(outputs[0]), Out(outputs[1]), Out(outputs[2]), Out(outputs[3]),
                       Out(outputs[4])};
    DeviceContext device(context);
    OP_REQUIRES_OK(context,
                   ToStatus(Forward(this->params_, device.Get(), this->InputsOf(context), out)));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>SoftDiceSums"), SoftDiceSums);

REGISTER_OP("Tfseg>SoftDiceSumsGrad")
    .TFSEG_SUMS_INPUTS.Input("grad_intersection: Sum")
    .Input("grad_prediction: Sum")
    .Input("grad_cross_entropy: Sum")
    .Output("grad_logits: T")
    .TFSEG_SUMS_ATTRS.SetShapeFn([](InferenceContext* context) {
      core::Shape sums, totals;
      TF_RETURN_IF_ERROR(InferShape(context, &sums, &totals));
      context->set_output(0, context->input(0));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class SoftDiceSumsGrad : public SoftDiceSumsKernel<DeviceContext> {
 public:
  using SoftDiceSumsKernel<DeviceContext>::SoftDiceSumsKernel;

  void Compute(OpKernelContext* context) override {
    core::Shape sums, totals;
    OP_REQUIRES_OK(context, this->CheckedShapes(context, &sums, &totals));
    Tensor* grad_logits = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &grad_logits));
    const op::SumsGrad grad{In(context->input(4)), In(context->input(5)), In(context->input(6))};
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Backward(this->params_, device.Get(), this->InputsOf(context),
                                              grad, Out(grad_logits))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>SoftDiceSumsGrad"), SoftDiceSumsGrad);

#undef TFSEG_SUMS_ATTRS
#undef TFSEG_SUMS_INPUTS

}  // namespace
}  // namespace tfseg::tf
