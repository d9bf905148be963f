#include "core/max_pool_with_argmax.h"

#include "xla/handler.h"
#if defined(TFSEG_CUDA)
#include "cuda/max_pool_with_argmax.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::max_pool_with_argmax;

template <typename DeviceContext>
ffi::Error MaxPoolWithArgmax(DeviceContext device, ffi::AnyBuffer input,
                             ffi::Result<ffi::AnyBuffer> output, ffi::Result<ffi::AnyBuffer> argmax,
                             ffi::Span<const int64_t> ksize, ffi::Span<const int64_t> strides,
                             std::string_view padding, bool include_batch_in_index) {
  const op::Params params{
      {ksize[0], ksize[1]}, {strides[0], strides[1]}, padding == "SAME", include_batch_in_index};
  return ToError(Forward(params, device.Get(), In(input), Out(output), Out(argmax)));
}

TFSEG_REGISTER_HANDLERS("tfseg_max_pool_with_argmax", MaxPoolWithArgmax,
                        .Arg<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Attr<ffi::Span<const int64_t>>("ksize")
                            .Attr<ffi::Span<const int64_t>>("strides")
                            .Attr<std::string_view>("padding")
                            .Attr<bool>("include_batch_in_index"));

}  // namespace
}  // namespace tfseg::xla
