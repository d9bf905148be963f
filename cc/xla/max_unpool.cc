#include "core/max_unpool.h"

#include <algorithm>

#include "xla/handler.h"
#if defined(TFSEG_CUDA)
#include "cuda/max_unpool.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::max_unpool;

op::Params ParamsOf(bool include_batch_in_index, ffi::Span<const int64_t> windows) {
  op::Params params;
  params.include_batch_in_index = include_batch_in_index;
  params.check_windows = windows.size() == 4;
  if (params.check_windows) {
    std::copy(windows.begin(), windows.begin() + 2, params.ksize);
    std::copy(windows.begin() + 2, windows.end(), params.strides);
  }
  return params;
}

template <typename DeviceContext>
ffi::Error MaxUnpool(DeviceContext device, ffi::AnyBuffer input, ffi::AnyBuffer argmax,
                     ffi::Result<ffi::AnyBuffer> output, bool include_batch_in_index,
                     ffi::Span<const int64_t> windows) {
  const op::Params params = ParamsOf(include_batch_in_index, windows);
  return ToError(Forward(params, device.Get(), In(input), In(argmax), Out(output)));
}

TFSEG_REGISTER_HANDLERS("tfseg_max_unpool", MaxUnpool,
                        .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Attr<bool>("include_batch_in_index")
                            .Attr<ffi::Span<const int64_t>>("windows"));

template <typename DeviceContext>
ffi::Error MaxUnpoolGrad(DeviceContext device, ffi::AnyBuffer grad, ffi::AnyBuffer argmax,
                         ffi::Result<ffi::AnyBuffer> grad_input, bool include_batch_in_index,
                         ffi::Span<const int64_t> windows) {
  const op::Params params = ParamsOf(include_batch_in_index, windows);
  return ToError(Backward(params, device.Get(), In(grad), In(argmax), Out(grad_input)));
}

TFSEG_REGISTER_HANDLERS("tfseg_max_unpool_grad", MaxUnpoolGrad,
                        .Arg<ffi::AnyBuffer>()
                            .Arg<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Attr<bool>("include_batch_in_index")
                            .Attr<ffi::Span<const int64_t>>("windows"));

}  // namespace
}  // namespace tfseg::xla
