#include "core/gaussian_filter.h"

#include "xla/handler.h"
#include "xla/lattice.h"
#if defined(TFSEG_CUDA)
#include "cuda/gaussian_filter.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::gaussian_filter;

template <typename DeviceContext>
ffi::Error GaussianFilter(DeviceContext device, ffi::AnyBuffer values, ffi::RemainingArgs lattice,
                          ffi::Result<ffi::AnyBuffer> output, bool reverse) {
  const auto members = BuffersOf(lattice);
  if (!members.has_value()) return members.error();
  return ToError(
      Forward(op::Params{reverse}, device.Get(), In(values), LatticeAt(*members, 0), Out(output)));
}

template <typename DeviceContext>
ffi::Error GaussianFilterFeaturesGrad(DeviceContext device, ffi::AnyBuffer values,
                                      ffi::AnyBuffer grad, ffi::RemainingArgs lattice,
                                      ffi::Result<ffi::AnyBuffer> grad_features, bool reverse) {
  const auto members = BuffersOf(lattice);
  if (!members.has_value()) return members.error();
  return ToError(FeaturesGrad(op::Params{reverse}, device.Get(), In(values), LatticeAt(*members, 0),
                              In(grad), Out(grad_features)));
}

TFSEG_REGISTER_HANDLERS(
    "tfseg_gaussian_filter", GaussianFilter,
    .Arg<ffi::AnyBuffer>().RemainingArgs().Ret<ffi::AnyBuffer>().Attr<bool>("reverse"));

TFSEG_REGISTER_HANDLERS(
    "tfseg_gaussian_filter_features_grad", GaussianFilterFeaturesGrad,
    .Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().RemainingArgs().Ret<ffi::AnyBuffer>().Attr<bool>(
        "reverse"));

}  // namespace
}  // namespace tfseg::xla
