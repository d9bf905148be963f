#include "core/soft_dice_sums.h"

#include <string_view>

#include "xla/handler.h"
#if defined(TFSEG_CUDA)
#include "cuda/soft_dice_sums.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::soft_dice_sums;

op::Params ParamsOf(std::string_view activation, int64_t power, bool dense, bool has_weights,
                    bool has_class_weights, bool has_ignore_label, int64_t ignore_label) {
  op::Params params;
  op::FindActivation(activation, &params.activation);
  params.power = static_cast<int>(power);
  params.dense = dense;
  params.has_weights = has_weights;
  params.has_class_weights = has_class_weights;
  params.has_ignore_label = has_ignore_label;
  params.ignore_label = ignore_label;
  return params;
}

template <typename DeviceContext>
ffi::Error SoftDiceSums(DeviceContext device, ffi::AnyBuffer logits, ffi::AnyBuffer labels,
                        ffi::AnyBuffer weights, ffi::AnyBuffer class_weights,
                        ffi::Result<ffi::AnyBuffer> intersection,
                        ffi::Result<ffi::AnyBuffer> prediction, ffi::Result<ffi::AnyBuffer> target,
                        ffi::Result<ffi::AnyBuffer> cross_entropy,
                        ffi::Result<ffi::AnyBuffer> weight_sum, std::string_view activation,
                        int64_t power, bool dense, bool has_weights, bool has_class_weights,
                        bool has_ignore_label, int64_t ignore_label) {
  const op::Params params = ParamsOf(activation, power, dense, has_weights, has_class_weights,
                                     has_ignore_label, ignore_label);
  const op::Inputs inputs{In(logits), In(labels), In(weights), In(class_weights)};
  const op::Sums sums{Out(intersection), Out(prediction), Out(target), Out(cross_entropy),
                      Out(weight_sum)};
  return ToError(Forward(params, device.Get(), inputs, sums));
}

template <typename DeviceContext>
ffi::Error SoftDiceSumsGrad(DeviceContext device, ffi::AnyBuffer logits, ffi::AnyBuffer labels,
                            ffi::AnyBuffer weights, ffi::AnyBuffer class_weights,
                            ffi::AnyBuffer grad_intersection, ffi::AnyBuffer grad_prediction,
                            ffi::AnyBuffer grad_cross_entropy,
                            ffi::Result<ffi::AnyBuffer> grad_logits, std::string_view activation,
                            int64_t power, bool dense, bool has_weights, bool has_class_weights,
                            bool has_ignore_label, int64_t ignore_label) {
  const op::Params params = ParamsOf(activation, power, dense, has_weights, has_class_weights,
                                     has_ignore_label, ignore_label);
  const op::Inputs inputs{In(logits), In(labels), In(weights), In(class_weights)};
  const op::SumsGrad grad{In(grad_intersection), In(grad_prediction), In(grad_cross_entropy)};
  return ToError(Backward(params, device.Get(), inputs, grad, Out(grad_logits)));
}

// The inputs and attributes that the two share.
#define TFSEG_SUMS_INPUTS \
  Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>()
#define TFSEG_SUMS_ATTRIBUTES          \
  Attr<std::string_view>("activation") \
      .Attr<int64_t>("power")          \
      .Attr<bool>("dense")             \
      .Attr<bool>("has_weights")       \
      .Attr<bool>("has_class_weights") \
      .Attr<bool>("has_ignore_label")  \
      .Attr<int64_t>("ignore_label")

TFSEG_REGISTER_HANDLERS("tfseg_soft_dice_sums", SoftDiceSums,
                        .TFSEG_SUMS_INPUTS.Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .TFSEG_SUMS_ATTRIBUTES);

TFSEG_REGISTER_HANDLERS("tfseg_soft_dice_sums_grad", SoftDiceSumsGrad,
                        .TFSEG_SUMS_INPUTS.Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .TFSEG_SUMS_ATTRIBUTES);

#undef TFSEG_SUMS_ATTRIBUTES
#undef TFSEG_SUMS_INPUTS

}  // namespace
}  // namespace tfseg::xla
