#include "core/max_pool_with_argmax.h"

#include "xla/handler.h"

namespace tfseg::xla {
namespace {

namespace op = core::max_pool_with_argmax;

ffi::Error MaxPoolWithArgmax(ffi::ThreadPool pool, ffi::AnyBuffer input,
                             ffi::Result<ffi::AnyBuffer> output, ffi::Result<ffi::AnyBuffer> argmax,
                             ffi::Span<const int64_t> ksize, ffi::Span<const int64_t> strides,
                             std::string_view padding, bool include_batch_in_index) {
  const op::Params params{
      {ksize[0], ksize[1]}, {strides[0], strides[1]}, padding == "SAME", include_batch_in_index};
  return Run(pool, [&](const core::Context& context) {
    return op::Forward(params, context, In(input), Out(output), Out(argmax));
  });
}

XLA_FFI_DEFINE_HANDLER(kMaxPoolWithArgmax, MaxPoolWithArgmax,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<ffi::Span<const int64_t>>("ksize")
                           .Attr<ffi::Span<const int64_t>>("strides")
                           .Attr<std::string_view>("padding")
                           .Attr<bool>("include_batch_in_index"));
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), "tfseg_max_pool_with_argmax", "Host",
                         kMaxPoolWithArgmax);

}  // namespace
}  // namespace tfseg::xla
