#include "core/mean_field_step.h"

#include <cstdint>
#include <string>
#include <vector>

#include "tf/adapter.h"
#include "tf/lattice.h"
#if defined(TFSEG_CUDA)
#include "cuda/mean_field_step.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::mean_field_step;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;

// Inputs: q, unary, mixing, then for each member of the lattices a list.
constexpr int kFirstMember = 3;

template <typename Source>
absl::Status GetParams(Source* source, op::Params* params) {
  std::vector<int64_t> normalizations;
  TF_RETURN_IF_ERROR(source->GetAttr("normalizations", &normalizations));
  int64_t num_lattices = 0;
  TF_RETURN_IF_ERROR(source->GetAttr("num_lattices", &num_lattices));
  if (static_cast<int64_t>(normalizations.size()) != num_lattices) {
    return absl::InvalidArgumentError("mean_field_step: 'normalizations' must have " +
                                      std::to_string(num_lattices) + " numbers, got " +
                                      std::to_string(normalizations.size()));
  }
  params->normalizations.clear();
  for (const int64_t number : normalizations) {
    if (number < 0 || number > 3) {
      return absl::InvalidArgumentError(
          "mean_field_step: 'normalizations' must lie in [0, 3], got " + std::to_string(number));
    }
    params->normalizations.push_back(static_cast<op::Normalization>(number));
  }
  TF_RETURN_IF_ERROR(source->GetAttr("diagonal", &params->diagonal));
  return source->GetAttr("logits", &params->logits);
}

absl::Status InferShape(InferenceContext* context, core::Shape* output) {
  op::Params params;
  TF_RETURN_IF_ERROR(GetParams(context, &params));
  std::vector<core::Shape> features;
  for (size_t k = 0; k < params.normalizations.size(); ++k) {
    features.push_back(ToShape(context, context->input(kFirstMember + static_cast<int>(k))));
  }
  return ToStatus(op::InferShape(params, ToShape(context, context->input(0)),
                                 ToShape(context, context->input(1)),
                                 ToShape(context, context->input(2)), features, output));
}

#define TFSEG_STEP_INPUTS Input("q: T").Input("unary: T").Input("mixing: Sum").TFSEG_LATTICE_LISTS
#define TFSEG_STEP_ATTRS                 \
  Attr(TFSEG_FLOAT_ATTR)                 \
      .Attr("Sum: {float, double}")      \
      .Attr("num_lattices: int >= 0")    \
      .Attr("normalizations: list(int)") \
      .Attr("diagonal: bool = true")     \
      .Attr("logits: bool = false")

class MeanFieldStepKernel : public OpKernel {
 public:
  explicit MeanFieldStepKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetParams(context, &params_));
  }

 protected:
  int num_lattices() const { return static_cast<int>(params_.normalizations.size()); }
  // The number of the first input behind the lattices.
  int first_behind() const {
    return kFirstMember + core::permutohedral_lattice::kNumMembers * num_lattices();
  }

  op::Inputs InputsOf(OpKernelContext* context) const {
    op::Inputs inputs{In(context->input(0)), In(context->input(1)), In(context->input(2)), {}};
    for (int k = 0; k < num_lattices(); ++k) {
      inputs.lattices.push_back(LatticeAt(context, kFirstMember + k, num_lattices()));
    }
    return inputs;
  }

  op::Params params_;
};

REGISTER_OP("Tfseg>MeanFieldStep")
    .TFSEG_STEP_INPUTS.Output("output: T")
    .TFSEG_STEP_ATTRS.SetShapeFn([](InferenceContext* context) {
      core::Shape output;
      TF_RETURN_IF_ERROR(InferShape(context, &output));
      context->set_output(0, FromShape(context, output));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class MeanFieldStep : public MeanFieldStepKernel {
 public:
  using MeanFieldStepKernel::MeanFieldStepKernel;

  void Compute(OpKernelContext* context) override {
    const op::Inputs inputs = InputsOf(context);
    std::vector<core::Shape> features;
    for (const auto& lattice : inputs.lattices) features.push_back(lattice.features.shape);
    core::Shape shape;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(params_, inputs.q.shape, inputs.unary.shape,
                                                    inputs.mixing.shape, features, &shape)));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, FromShape(shape), &output));
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Forward(params_, device.Get(), inputs, Out(output))));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MeanFieldStep"), MeanFieldStep);

REGISTER_OP("Tfseg>MeanFieldStepGrad")
    .TFSEG_STEP_INPUTS.Input("output: T")
    .Input("grad: T")
    .Output("grad_q: T")
    .Output("grad_unary: T")
    .Output("grad_mixing: Sum")
    .TFSEG_STEP_ATTRS.SetShapeFn([](InferenceContext* context) {
      core::Shape output;
      TF_RETURN_IF_ERROR(InferShape(context, &output));
      for (int n = 0; n < kFirstMember; ++n) context->set_output(n, context->input(n));
      return absl::OkStatus();
    });

template <typename DeviceContext>
class MeanFieldStepGrad : public MeanFieldStepKernel {
 public:
  using MeanFieldStepKernel::MeanFieldStepKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* grads[kFirstMember];
    for (int n = 0; n < kFirstMember; ++n) {
      OP_REQUIRES_OK(context, context->allocate_output(n, context->input(n).shape(), &grads[n]));
    }
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Backward(params_, device.Get(), InputsOf(context),
                                              In(context->input(first_behind())),
                                              In(context->input(first_behind() + 1)),
                                              {Out(grads[0]), Out(grads[1]), Out(grads[2])})));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MeanFieldStepGrad"), MeanFieldStepGrad);

REGISTER_OP("Tfseg>MeanFieldStepFeaturesGrad")
    .TFSEG_STEP_INPUTS.Input("output: T")
    .Input("grad: T")
    .Output("grad_features: num_lattices * float")
    .TFSEG_STEP_ATTRS.SetShapeFn([](InferenceContext* context) {
      core::Shape output;
      TF_RETURN_IF_ERROR(InferShape(context, &output));
      for (int k = 0; k < context->num_outputs(); ++k) {
        context->set_output(k, context->input(kFirstMember + k));
      }
      return absl::OkStatus();
    });

template <typename DeviceContext>
class MeanFieldStepFeaturesGrad : public MeanFieldStepKernel {
 public:
  using MeanFieldStepKernel::MeanFieldStepKernel;

  void Compute(OpKernelContext* context) override {
    std::vector<core::Buffer> grads;
    for (int k = 0; k < num_lattices(); ++k) {
      Tensor* grad = nullptr;
      OP_REQUIRES_OK(context,
                     context->allocate_output(k, context->input(kFirstMember + k).shape(), &grad));
      grads.push_back(Out(grad));
    }
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(FeaturesGrad(params_, device.Get(), InputsOf(context),
                                                  In(context->input(first_behind())),
                                                  In(context->input(first_behind() + 1)), grads)));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>MeanFieldStepFeaturesGrad"), MeanFieldStepFeaturesGrad);

#undef TFSEG_STEP_ATTRS
#undef TFSEG_STEP_INPUTS

}  // namespace
}  // namespace tfseg::tf
