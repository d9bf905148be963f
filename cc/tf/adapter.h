// What the TensorFlow adapters share: tensors as core's arrays, statuses, threads, shapes.
#ifndef TFSEG_TF_ADAPTER_H_
#define TFSEG_TF_ADAPTER_H_

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"
#if defined(TFSEG_CUDA)
#include "cuda/context.h"
#if !defined(TFSEG_CUDA_EMULATED)
#include "tensorflow/core/framework/device_base.h"
#include "xla/stream_executor/stream.h"
#endif
#endif
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

// The attributes that every op has: dtypes as in core/dtypes.h (tests/test_structure.py compares
// them).
#define TFSEG_FLOAT_ATTR "T: {half, bfloat16, float, double}"
#define TFSEG_INDEX_ATTR "Index: {int32, int64}"

namespace tfseg::tf {

inline absl::Status ToStatus(const core::Status& status) {
  switch (status.code) {
    case core::Code::kOk:
      return absl::OkStatus();
    case core::Code::kInvalidArgument:
    case core::Code::kInvalidType:
      return absl::InvalidArgumentError(status.message);
    case core::Code::kResourceExhausted:
      return absl::ResourceExhaustedError(status.message);
    case core::Code::kInternal:
      break;
  }
  return absl::InternalError(status.message);
}

inline core::DType ToDType(tensorflow::DataType dtype) {
  return core::DTypeNamed(dtype == tensorflow::DT_HALF    ? "float16"
                          : dtype == tensorflow::DT_FLOAT ? "float32"
                          : dtype == tensorflow::DT_DOUBLE
                              ? "float64"
                              : tensorflow::DataTypeString(dtype).c_str());
}

inline core::Shape ToShape(const tensorflow::TensorShape& from) {
  core::Shape shape = core::Shape::OfRank(from.dims());
  for (int axis = 0; axis < from.dims(); ++axis) shape.set(axis, from.dim_size(axis));
  return shape;
}

// For shapes that core has found countable.
inline tensorflow::TensorShape FromShape(const core::Shape& from) {
  tensorflow::TensorShape shape;
  for (int axis = 0; axis < from.rank(); ++axis) shape.AddDim(from[axis]);
  return shape;
}

inline core::ConstBuffer In(const tensorflow::Tensor& tensor) {
  return {tensor.data(), ToDType(tensor.dtype()), ToShape(tensor.shape())};
}

inline core::Buffer Out(tensorflow::Tensor* tensor) {
  return {tensor->data(), ToDType(tensor->dtype()), ToShape(tensor->shape())};
}

// TensorFlow's scratch memory, on the device of the kernel.
class Scratch final : public core::Workspace {
 public:
  explicit Scratch(tensorflow::OpKernelContext* context) : context_(context) {}

  void* Allocate(int64_t bytes) override {
    tensors_.emplace_back();
    // An empty tensor has no address, which would look like no memory.
    const bool allocated =
        context_
            ->allocate_temp(tensorflow::DT_INT8, {std::max<int64_t>(1, bytes)}, &tensors_.back())
            .ok();
    return allocated ? tensors_.back().data() : nullptr;
  }

 private:
  tensorflow::OpKernelContext* context_;
  std::vector<tensorflow::Tensor> tensors_;
};

// What a CPU kernel gives to core: the threads that TensorFlow gives to it.
class CpuContext final : public core::ThreadPool {
 public:
  explicit CpuContext(tensorflow::OpKernelContext* context)
      : threads_(*context->device()->tensorflow_cpu_worker_threads()), scratch_(context) {}

  int NumThreads() const override { return threads_.num_threads; }
  void Schedule(void (*task)(void*), void* argument) override {
    threads_.workers->Schedule([task, argument] { task(argument); });
  }

  core::Context Get() { return {*this, scratch_}; }

 private:
  const tensorflow::DeviceBase::CpuWorkerThreads& threads_;
  Scratch scratch_;
};

#if defined(TFSEG_CUDA)
// What a GPU kernel gives to a launcher: its stream. The emulator has none.
class GpuContext final {
 public:
  explicit GpuContext(tensorflow::OpKernelContext* context) : scratch_(context) {
#if !defined(TFSEG_CUDA_EMULATED)
    stream_ = static_cast<CUstream_st*>(
        context->op_device_context()->stream()->platform_specific_handle().stream);
#endif
  }

  cuda::Context Get() { return {stream_, scratch_}; }

 private:
  CUstream_st* stream_ = nullptr;
  Scratch scratch_;
};
#endif

// Registers Kernel<context>, a class template, for every device that has the op. `builder` is
// Name("...") and what else it needs. Emulated CUDA kernels take the place of the CPU's.
#define TFSEG_REGISTER_ON(builder, device, ...) \
  REGISTER_KERNEL_BUILDER(builder.Device(tensorflow::device), __VA_ARGS__)
#if defined(TFSEG_CUDA_EMULATED)
#define TFSEG_REGISTER_KERNELS(builder, Kernel) \
  TFSEG_REGISTER_ON(builder, DEVICE_CPU, Kernel<GpuContext>)
#elif defined(TFSEG_CUDA)
#define TFSEG_REGISTER_KERNELS(builder, Kernel)               \
  TFSEG_REGISTER_ON(builder, DEVICE_CPU, Kernel<CpuContext>); \
  TFSEG_REGISTER_ON(builder, DEVICE_GPU, Kernel<GpuContext>)
#else
#define TFSEG_REGISTER_KERNELS(builder, Kernel) \
  TFSEG_REGISTER_ON(builder, DEVICE_CPU, Kernel<CpuContext>)
#endif

// Shapes of a graph under construction.
inline core::Shape ToShape(tensorflow::shape_inference::InferenceContext* context,
                           tensorflow::shape_inference::ShapeHandle from) {
  if (!context->RankKnown(from)) return core::Shape::UnknownRank();
  core::Shape shape = core::Shape::OfRank(context->Rank(from));
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const auto dim = context->Dim(from, axis);
    shape.set(axis, context->ValueKnown(dim) ? context->Value(dim) : core::kUnknown);
  }
  return shape;
}

inline tensorflow::shape_inference::ShapeHandle FromShape(
    tensorflow::shape_inference::InferenceContext* context, const core::Shape& from) {
  std::vector<tensorflow::shape_inference::DimensionHandle> dims;
  for (int axis = 0; axis < from.rank(); ++axis) {
    dims.push_back(from[axis] == core::kUnknown ? context->UnknownDim()
                                                : context->MakeDim(from[axis]));
  }
  return context->MakeShape(dims);
}

// Reads a list of numbers from a kernel under construction or a graph under construction.
template <int kCount, typename Source>
absl::Status GetNumbers(Source* source, const char* name, int64_t* numbers) {
  std::vector<int64_t> list;
  if (absl::Status status = source->GetAttr(name, &list); !status.ok()) return status;
  if (list.size() != kCount) {
    return absl::InvalidArgumentError("'" + std::string(name) + "' must have " +
                                      std::to_string(kCount) + " numbers, got " +
                                      std::to_string(list.size()));
  }
  std::copy(list.begin(), list.end(), numbers);
  return absl::OkStatus();
}

}  // namespace tfseg::tf

#endif  // TFSEG_TF_ADAPTER_H_
