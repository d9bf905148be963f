#include "core/max_pool_with_argmax.h"

#include <string>

#include "tf/adapter.h"
#if defined(TFSEG_CUDA)
#include "cuda/max_pool_with_argmax.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::max_pool_with_argmax;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;

template <typename Source>
absl::Status GetParams(Source* source, op::Params* params) {
  TF_RETURN_IF_ERROR(GetNumbers<2>(source, "ksize", params->ksize));
  TF_RETURN_IF_ERROR(GetNumbers<2>(source, "strides", params->strides));
  std::string padding;
  TF_RETURN_IF_ERROR(source->GetAttr("padding", &padding));
  params->same_padding = padding == "SAME";
  return source->GetAttr("include_batch_in_index", &params->include_batch_in_index);
}

absl::Status InferShape(InferenceContext* context) {
  op::Params params;
  tensorflow::DataType index;
  TF_RETURN_IF_ERROR(GetParams(context, &params));
  TF_RETURN_IF_ERROR(context->GetAttr("Index", &index));
  core::Shape output;
  TF_RETURN_IF_ERROR(ToStatus(
      op::InferShape(params, ToShape(context, context->input(0)), ToDType(index), &output)));
  context->set_output(0, FromShape(context, output));
  context->set_output(1, context->output(0));
  return absl::OkStatus();
}

REGISTER_OP("Tfseg>MaxPoolWithArgmax")
    .Input("input: T")
    .Output("output: T")
    .Output("argmax: Index")
    .Attr(TFSEG_FLOAT_ATTR)
    .Attr(TFSEG_INDEX_ATTR)
    .Attr("ksize: list(int) >= 2")
    .Attr("strides: list(int) >= 2")
    .Attr("padding: {'VALID', 'SAME'}")
    .Attr("include_batch_in_index: bool = false")
    .SetShapeFn(InferShape);

template <typename DeviceContext>
class MaxPoolWithArgmax : public OpKernel {
 public:
  explicit MaxPoolWithArgmax(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(params_, ToShape(input.shape()),
                                                    ToDType(output_type(1)), &shape)));
    Tensor* output = nullptr;
    Tensor* argmax = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &output));
    OP_REQUIRES_OK(context, context->allocate_output(1, FromShape(shape), &argmax));
    DeviceContext device(context);
    OP_REQUIRES_OK(context,
                   ToStatus(Forward(params_, device.Get(), In(input), Out(output), Out(argmax))));
  }

 private:
  op::Params params_;
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MaxPoolWithArgmax"), MaxPoolWithArgmax);

}  // namespace
}  // namespace tfseg::tf
