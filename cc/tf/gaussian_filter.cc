#include "core/gaussian_filter.h"

#include "tf/adapter.h"
#include "tf/lattice.h"
#if defined(TFSEG_CUDA)
#include "cuda/gaussian_filter.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::gaussian_filter;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;

class GaussianFilterKernel : public OpKernel {
 public:
  explicit GaussianFilterKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &params_.reverse));
  }

 protected:
  op::Params params_;
};

REGISTER_OP("Tfseg>GaussianFilter")
    .Input("values: T")
    .TFSEG_LATTICE_INPUTS.Output("output: T")
    .Attr(TFSEG_FLOAT_ATTR)
    .Attr("reverse: bool = false")
    .SetShapeFn([](InferenceContext* context) {
      core::Shape output;
      TF_RETURN_IF_ERROR(ToStatus(op::InferShape(ToShape(context, context->input(0)),
                                                 ToShape(context, context->input(1)), &output)));
      context->set_output(0, FromShape(context, output));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class GaussianFilter : public GaussianFilterKernel {
 public:
  using GaussianFilterKernel::GaussianFilterKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& values = context->input(0);
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(ToShape(values.shape()),
                                                    ToShape(context->input(1).shape()), &shape)));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &output));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Forward(params_, device.Get(), In(values),
                                             LatticeAt(context, 1), Out(output))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>GaussianFilter"), GaussianFilter);

REGISTER_OP("Tfseg>GaussianFilterFeaturesGrad")
    .Input("values: T")
    .Input("grad: T")
    .TFSEG_LATTICE_INPUTS.Output("grad_features: float")
    .Attr(TFSEG_FLOAT_ATTR)
    .Attr("reverse: bool = false")
    .SetShapeFn([](InferenceContext* context) {
      core::Shape output;
      TF_RETURN_IF_ERROR(ToStatus(op::InferShape(ToShape(context, context->input(0)),
                                                 ToShape(context, context->input(2)), &output)));
      context->set_output(0, context->input(2));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class GaussianFilterFeaturesGrad : public GaussianFilterKernel {
 public:
  using GaussianFilterKernel::GaussianFilterKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* grad_features = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(2).shape(), &grad_features));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(FeaturesGrad(params_, device.Get(), In(context->input(0)),
                                                  LatticeAt(context, 2), In(context->input(1)),
                                                  Out(grad_features))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>GaussianFilterFeaturesGrad"), GaussianFilterFeaturesGrad);

}  // namespace
}  // namespace tfseg::tf
