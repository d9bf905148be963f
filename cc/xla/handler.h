// What the XLA handlers share. They include only the light typed-FFI header; cc/xla/adapter.cc
// holds what TensorFlow's compiler needs.
#ifndef TFSEG_XLA_HANDLER_H_
#define TFSEG_XLA_HANDLER_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"
#if defined(TFSEG_CUDA)
#include "cuda/context.h"
#endif
#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
// From xla/ffi/ffi_api.h, which drags in much of XLA. (XLA_FFI_GetApi is missing in
// TensorFlow 2.20.)
const XLA_FFI_Api* GetXlaFfiApi();
}  // namespace xla::ffi

namespace tfseg::xla {

namespace ffi = ::xla::ffi;

inline ffi::Error ToError(const core::Status& status) {
  switch (status.code) {
    case core::Code::kOk:
      return ffi::Error::Success();
    case core::Code::kInvalidArgument:
    case core::Code::kInvalidType:
      return ffi::Error::InvalidArgument(status.message);
    case core::Code::kResourceExhausted:
      return ffi::Error(ffi::ErrorCode::kResourceExhausted, status.message);
    case core::Code::kInternal:
      break;
  }
  return ffi::Error::Internal(status.message);
}

inline core::DType ToDType(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::F16:
      return core::DType::kFloat16;
    case ffi::DataType::BF16:
      return core::DType::kBFloat16;
    case ffi::DataType::F32:
      return core::DType::kFloat32;
    case ffi::DataType::F64:
      return core::DType::kFloat64;
    case ffi::DataType::S32:
      return core::DType::kInt32;
    case ffi::DataType::S64:
      return core::DType::kInt64;
    case ffi::DataType::U8:
      return core::DType::kUInt8;
    default:
      return core::DType::kUnknownDType;
  }
}

inline core::Shape ToShape(ffi::AnyBuffer::Dimensions dimensions) {
  core::Shape shape = core::Shape::OfRank(static_cast<int>(dimensions.size()));
  for (size_t axis = 0; axis < dimensions.size(); ++axis) {
    shape.set(static_cast<int>(axis), dimensions[axis]);
  }
  return shape;
}

inline core::ConstBuffer In(const ffi::AnyBuffer& buffer) {
  return {buffer.untyped_data(), ToDType(buffer.element_type()), ToShape(buffer.dimensions())};
}

inline core::Buffer Out(ffi::Result<ffi::AnyBuffer>& buffer) {
  return {buffer->untyped_data(), ToDType(buffer->element_type()), ToShape(buffer->dimensions())};
}

// The arguments and results whose number is an attribute's.
inline ffi::ErrorOr<std::vector<core::ConstBuffer>> BuffersOf(const ffi::RemainingArgs& args) {
  std::vector<core::ConstBuffer> buffers;
  for (size_t i = 0; i < args.size(); ++i) {
    auto buffer = args.get<ffi::AnyBuffer>(i);
    if (!buffer.has_value()) return ffi::Unexpected(buffer.error());
    buffers.push_back(In(*buffer));
  }
  return buffers;
}

inline ffi::ErrorOr<std::vector<core::Buffer>> BuffersOf(const ffi::RemainingRets& results) {
  std::vector<core::Buffer> buffers;
  for (size_t i = 0; i < results.size(); ++i) {
    auto buffer = results.get<ffi::AnyBuffer>(i);
    if (!buffer.has_value()) return ffi::Unexpected(buffer.error());
    buffers.push_back(Out(*buffer));
  }
  return buffers;
}

// What a handler gives to core: XLA's threads. ffi::ScratchAllocator fails on the CPU, so scratch
// comes from the heap.
class HostContext final : public core::ThreadPool {
 public:
  explicit HostContext(ffi::ThreadPool pool) : pool_(std::move(pool)) {}

  int NumThreads() const override { return static_cast<int>(pool_.num_threads()); }
  void Schedule(void (*task)(void*), void* argument) override {
    pool_.Schedule([task, argument] { task(argument); });
  }

  core::Context Get() { return {*this, *heap_}; }

 private:
  ffi::ThreadPool pool_;
  std::unique_ptr<core::HeapWorkspace> heap_ = std::make_unique<core::HeapWorkspace>();
};

#if defined(TFSEG_CUDA_EMULATED)
// The emulator has no stream, and its device's memory is the host's.
class GpuContext final {
 public:
  cuda::Context Get() { return {nullptr, *heap_}; }

 private:
  std::unique_ptr<core::HeapWorkspace> heap_ = std::make_unique<core::HeapWorkspace>();
};
#elif defined(TFSEG_CUDA)
// What a handler gives to a launcher: XLA's stream and scratch memory, which XLA takes back in the
// order of the stream.
class GpuContext final : public core::Workspace {
 public:
  GpuContext(CUstream_st* stream, ffi::ScratchAllocator scratch)
      : stream_(stream), scratch_(std::move(scratch)) {}

  void* Allocate(int64_t bytes) override {
    // XLA refuses to be asked for more than 16, and gives whole lines all the same.
    constexpr size_t kAlignment = 16;
    return scratch_.Allocate(static_cast<size_t>(std::max<int64_t>(1, bytes)), kAlignment)
        .value_or(nullptr);
  }

  cuda::Context Get() { return {stream_, *this}; }

 private:
  CUstream_st* stream_;
  ffi::ScratchAllocator scratch_;
};
#endif

// Registers function<context>, a function template, as the handler `name` of every platform that
// has the op. What follows binds its arguments. Emulated CUDA handlers take the place of the
// host's.
#define TFSEG_REGISTER_ON(platform, Context, name, function, ...)      \
  XLA_FFI_DEFINE_HANDLER(k##Context##function, function<Context>,      \
                         ffi::Ffi::Bind().Ctx<Context>() __VA_ARGS__); \
  XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), name, platform, k##Context##function)
#if defined(TFSEG_CUDA_EMULATED)
#define TFSEG_REGISTER_HANDLERS(...) TFSEG_REGISTER_ON("Host", GpuContext, __VA_ARGS__)
#elif defined(TFSEG_CUDA)
#define TFSEG_REGISTER_HANDLERS(...)                   \
  TFSEG_REGISTER_ON("Host", HostContext, __VA_ARGS__); \
  TFSEG_REGISTER_ON("CUDA", GpuContext, __VA_ARGS__)
#else
#define TFSEG_REGISTER_HANDLERS(...) TFSEG_REGISTER_ON("Host", HostContext, __VA_ARGS__)
#endif

}  // namespace tfseg::xla

namespace xla::ffi {

template <>
struct CtxDecoding<tfseg::xla::HostContext> {
  using Type = tfseg::xla::HostContext;
  static std::optional<Type> Decode(const XLA_FFI_Api* api, XLA_FFI_ExecutionContext* context,
                                    DiagnosticEngine& diagnostic) {
    auto pool = CtxDecoding<ThreadPool>::Decode(api, context, diagnostic);
    if (!pool.has_value()) return std::nullopt;
    return Type(*std::move(pool));
  }
};

#if defined(TFSEG_CUDA_EMULATED)
template <>
struct CtxDecoding<tfseg::xla::GpuContext> {
  using Type = tfseg::xla::GpuContext;
  static std::optional<Type> Decode(const XLA_FFI_Api*, XLA_FFI_ExecutionContext*,
                                    DiagnosticEngine&) {
    return Type();
  }
};
#elif defined(TFSEG_CUDA)
template <>
struct CtxDecoding<tfseg::xla::GpuContext> {
  using Type = tfseg::xla::GpuContext;
  static std::optional<Type> Decode(const XLA_FFI_Api* api, XLA_FFI_ExecutionContext* context,
                                    DiagnosticEngine& diagnostic) {
    auto stream = CtxDecoding<PlatformStream<CUstream_st*>>::Decode(api, context, diagnostic);
    auto scratch = CtxDecoding<ScratchAllocator>::Decode(api, context, diagnostic);
    if (!stream.has_value() || !scratch.has_value()) return std::nullopt;
    return Type(*stream, *std::move(scratch));
  }
};
#endif

}  // namespace xla::ffi

#endif  // TFSEG_XLA_HANDLER_H_
