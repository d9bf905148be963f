// What the XLA handlers share. They include only the light typed-FFI header; cc/xla/adapter.cc
// holds what TensorFlow's compiler needs.
#ifndef TFSEG_XLA_HANDLER_H_
#define TFSEG_XLA_HANDLER_H_

#include <string>

#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"
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

// XLA's threads on the CPU.
class HandlerThreads final : public core::ThreadPool {
 public:
  explicit HandlerThreads(ffi::ThreadPool& pool) : pool_(pool) {}
  int NumThreads() const override { return static_cast<int>(pool_.num_threads()); }
  void Schedule(void (*task)(void*), void* argument) override {
    pool_.Schedule([task, argument] { task(argument); });
  }

 private:
  ffi::ThreadPool& pool_;
};

// Runs fn(context) on XLA's threads. ffi::ScratchAllocator fails on the CPU, so scratch comes from
// the heap.
template <typename Fn>
ffi::Error Run(ffi::ThreadPool& pool, Fn&& fn) {
  HandlerThreads threads(pool);
  core::HeapWorkspace workspace;
  return ToError(fn(core::Context{threads, workspace}));
}

}  // namespace tfseg::xla

#endif  // TFSEG_XLA_HANDLER_H_
