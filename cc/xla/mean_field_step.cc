#include "core/mean_field_step.h"

#include <cstdint>
#include <vector>

#include "xla/handler.h"
#include "xla/lattice.h"
#if defined(TFSEG_CUDA)
#include "cuda/mean_field_step.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::mean_field_step;

op::Params ParamsOf(ffi::Span<const int64_t> normalizations, bool diagonal, bool logits) {
  op::Params params;
  // The shape function has seen to their range.
  for (const int64_t number : normalizations) {
    params.normalizations.push_back(static_cast<op::Normalization>(number));
  }
  params.diagonal = diagonal;
  params.logits = logits;
  return params;
}

// `rest` begins with a list for each member of the lattices.
op::Inputs InputsOf(const op::Params& params, const ffi::AnyBuffer& q, const ffi::AnyBuffer& unary,
                    const ffi::AnyBuffer& mixing, const std::vector<core::ConstBuffer>& rest) {
  op::Inputs inputs{In(q), In(unary), In(mixing), {}};
  const size_t num_lattices = params.normalizations.size();
  for (size_t k = 0; k < num_lattices; ++k) {
    inputs.lattices.push_back(LatticeAt(rest, k, num_lattices));
  }
  return inputs;
}

template <typename DeviceContext>
ffi::Error MeanFieldStep(DeviceContext device, ffi::AnyBuffer q, ffi::AnyBuffer unary,
                         ffi::AnyBuffer mixing, ffi::RemainingArgs rest,
                         ffi::Result<ffi::AnyBuffer> output, int64_t /*num_lattices*/,
                         ffi::Span<const int64_t> normalizations, bool diagonal, bool logits) {
  const op::Params params = ParamsOf(normalizations, diagonal, logits);
  const auto buffers = BuffersOf(rest);
  if (!buffers.has_value()) return buffers.error();
  return ToError(
      Forward(params, device.Get(), InputsOf(params, q, unary, mixing, *buffers), Out(output)));
}

template <typename DeviceContext>
ffi::Error MeanFieldStepGrad(DeviceContext device, ffi::AnyBuffer q, ffi::AnyBuffer unary,
                             ffi::AnyBuffer mixing, ffi::RemainingArgs rest,
                             ffi::Result<ffi::AnyBuffer> grad_q,
                             ffi::Result<ffi::AnyBuffer> grad_unary,
                             ffi::Result<ffi::AnyBuffer> grad_mixing, int64_t /*num_lattices*/,
                             ffi::Span<const int64_t> normalizations, bool diagonal, bool logits) {
  const op::Params params = ParamsOf(normalizations, diagonal, logits);
  const auto buffers = BuffersOf(rest);
  if (!buffers.has_value()) return buffers.error();
  const core::ConstBuffer& output = (*buffers)[buffers->size() - 2];
  return ToError(Backward(params, device.Get(), InputsOf(params, q, unary, mixing, *buffers),
                          output, buffers->back(),
                          {Out(grad_q), Out(grad_unary), Out(grad_mixing)}));
}

template <typename DeviceContext>
ffi::Error MeanFieldStepFeaturesGrad(DeviceContext device, ffi::AnyBuffer q, ffi::AnyBuffer unary,
                                     ffi::AnyBuffer mixing, ffi::RemainingArgs rest,
                                     ffi::RemainingRets grad_features, int64_t /*num_lattices*/,
                                     ffi::Span<const int64_t> normalizations, bool diagonal,
                                     bool logits) {
  const op::Params params = ParamsOf(normalizations, diagonal, logits);
  const auto buffers = BuffersOf(rest);
  if (!buffers.has_value()) return buffers.error();
  const auto grads = BuffersOf(grad_features);
  if (!grads.has_value()) return grads.error();
  const core::ConstBuffer& output = (*buffers)[buffers->size() - 2];
  return ToError(FeaturesGrad(params, device.Get(), InputsOf(params, q, unary, mixing, *buffers),
                              output, buffers->back(), *grads));
}

// The inputs and attributes that the three share.
#define TFSEG_STEP_INPUTS \
  Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().RemainingArgs()
#define TFSEG_STEP_ATTRIBUTES                           \
  Attr<int64_t>("num_lattices")                         \
      .Attr<ffi::Span<const int64_t>>("normalizations") \
      .Attr<bool>("diagonal")                           \
      .Attr<bool>("logits")

TFSEG_REGISTER_HANDLERS("tfseg_mean_field_step", MeanFieldStep,
                        .TFSEG_STEP_INPUTS.Ret<ffi::AnyBuffer>().TFSEG_STEP_ATTRIBUTES);

TFSEG_REGISTER_HANDLERS("tfseg_mean_field_step_grad", MeanFieldStepGrad,
                        .TFSEG_STEP_INPUTS.Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .TFSEG_STEP_ATTRIBUTES);

TFSEG_REGISTER_HANDLERS("tfseg_mean_field_step_features_grad", MeanFieldStepFeaturesGrad,
                        .TFSEG_STEP_INPUTS.RemainingRets().TFSEG_STEP_ATTRIBUTES);

#undef TFSEG_STEP_ATTRIBUTES
#undef TFSEG_STEP_INPUTS

}  // namespace
}  // namespace tfseg::xla
