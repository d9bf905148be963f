#include "core/max_unpool.h"

#include <algorithm>

#include "xla/handler.h"

namespace tfseg::xla {
namespace {

namespace op = core::max_unpool;

ffi::Error MaxUnpool(ffi::ThreadPool pool, ffi::AnyBuffer input, ffi::AnyBuffer argmax,
                     ffi::Result<ffi::AnyBuffer> output, bool include_batch_in_index,
                     ffi::Span<const int64_t> windows) {
  op::Params params;
  params.include_batch_in_index = include_batch_in_index;
  params.check_windows = windows.size() == 4;
  if (params.check_windows) {
    std::copy(windows.begin(), windows.begin() + 2, params.ksize);
    std::copy(windows.begin() + 2, windows.end(), params.strides);
  }
  return Run(pool, [&](const core::Context& context) {
    return op::Forward(params, context, In(input), In(argmax), Out(output));
  });
}

XLA_FFI_DEFINE_HANDLER(kMaxUnpool, MaxUnpool,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<bool>("include_batch_in_index")
                           .Attr<ffi::Span<const int64_t>>("windows"));
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), "tfseg_max_unpool", "Host", kMaxUnpool);

ffi::Error MaxUnpoolGrad(ffi::ThreadPool pool, ffi::AnyBuffer grad, ffi::AnyBuffer argmax,
                         ffi::Result<ffi::AnyBuffer> grad_input, bool include_batch_in_index) {
  op::Params params;
  params.include_batch_in_index = include_batch_in_index;
  return Run(pool, [&](const core::Context& context) {
    return op::Backward(params, context, In(grad), In(argmax), Out(grad_input));
  });
}

XLA_FFI_DEFINE_HANDLER(kMaxUnpoolGrad, MaxUnpoolGrad,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<bool>("include_batch_in_index"));
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), "tfseg_max_unpool_grad", "Host", kMaxUnpoolGrad);

}  // namespace
}  // namespace tfseg::xla
