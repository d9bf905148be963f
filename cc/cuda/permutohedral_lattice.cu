#include <algorithm>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "cuda/launch.h"
#include "cuda/permutohedral_lattice.h"

namespace tfseg::cuda {
namespace {

namespace op = core::permutohedral_lattice;

constexpr char kOp[] = "permutohedral_lattice";

// A launcher is given no threads of the host.
class HostThreads final : public core::ThreadPool {
 public:
  HostThreads() = default;
  HostThreads(const HostThreads&) = delete;
  HostThreads& operator=(const HostThreads&) = delete;
  ~HostThreads() override {
    for (std::thread& thread : threads_) thread.join();
  }

  int NumThreads() const override { return num_threads_; }
  void Schedule(void (*task)(void*), void* argument) override {
    try {
      threads_.emplace_back(task, argument);
    } catch (const std::system_error&) {
      task(argument);  // the system has no more threads to give
    }
  }

 private:
  static constexpr int kMostThreads = 8;
  const int num_threads_ =
      std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMostThreads);
  std::vector<std::thread> threads_;
};

int64_t BytesOf(const core::Buffer& buffer) {
  return buffer.shape.num_elements() * core::SizeOf(buffer.dtype);
}

core::Status Copy(const Context& context, void* to, const void* from, int64_t bytes,
                  cudaMemcpyKind kind) {
  if (bytes == 0) return core::Status::Ok();
  return ToStatus(kOp, cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, context.stream));
}

// All members but the features.
std::vector<core::Buffer*> BuiltOf(op::Members<core::Buffer>* members) {
  return {&members->vertices,      &members->weights,       &members->splat_points,
          &members->splat_weights, &members->splat_offsets, &members->neighbours,
          &members->norms,         &members->num_vertices};
}

// Of the neighbours only those that are there.
core::Status CopyNeighbours(const Context& context, const op::Members<core::Buffer>& built,
                            const op::Members<core::Buffer>& out) {
  const core::Shape& shape = built.neighbours.shape;
  const int64_t corners = shape[1], plane = shape[2] * shape[3];
  for (int64_t k = 0; k < shape[0] * corners; ++k) {
    const int64_t count = int64_t{built.num_vertices.As<int32_t>()[k / corners]} * shape[3];
    TFSEG_RETURN_IF_ERROR(Copy(context, out.neighbours.As<int32_t>() + k * plane,
                               built.neighbours.As<int32_t>() + k * plane,
                               count * static_cast<int64_t>(sizeof(int32_t)),
                               cudaMemcpyHostToDevice));
  }
  return core::Status::Ok();
}

}  // namespace

core::Status Forward(const Context& context, const core::ConstBuffer& features,
                     const op::Members<core::Buffer>& out) {
  op::Members<core::Shape> shapes;
  TFSEG_RETURN_IF_ERROR(op::InferShape(features.shape, &shapes));
  TFSEG_RETURN_IF_ERROR(core::RequireDType(kOp, "features", features.dtype, core::DType::kFloat32));
  core::HeapWorkspace heap;
  const auto allocate = [&](core::Buffer* buffer) {
    const int64_t bytes = BytesOf(*buffer);
    buffer->data = heap.Allocate(bytes);
    if (buffer->data != nullptr) return core::Status::Ok();
    return core::Status::ResourceExhausted(std::string(kOp) + ": no memory for " +
                                           std::to_string(bytes) + " bytes on the host");
  };

  core::Buffer points = {nullptr, features.dtype, features.shape};
  TFSEG_RETURN_IF_ERROR(allocate(&points));
  TFSEG_RETURN_IF_ERROR(
      Copy(context, points.data, features.data, BytesOf(points), cudaMemcpyDeviceToHost));
  op::Members<core::Buffer> built = out;
  for (core::Buffer* member : BuiltOf(&built)) TFSEG_RETURN_IF_ERROR(allocate(member));
  TFSEG_RETURN_IF_ERROR(ToStatus(kOp, cudaStreamSynchronize(context.stream)));

  {
    HostThreads threads;
    const core::Context host = {threads, heap};
    TFSEG_RETURN_IF_ERROR(op::Forward(host, {points.data, points.dtype, points.shape}, built));
  }

  op::Members<core::Buffer> to = out;
  const std::vector<core::Buffer*> from = BuiltOf(&built), on_device = BuiltOf(&to);
  core::Status status = CopyNeighbours(context, built, out);
  for (size_t k = 0; k < from.size() && status.ok(); ++k) {
    if (from[k] == &built.neighbours) continue;
    status =
        Copy(context, on_device[k]->data, from[k]->data, BytesOf(*from[k]), cudaMemcpyHostToDevice);
  }
  // Even after an error: what has been queued reads memory that goes with the heap.
  const core::Status waited = ToStatus(kOp, cudaStreamSynchronize(context.stream));
  return status.ok() ? waited : status;
}

}  // namespace tfseg::cuda
