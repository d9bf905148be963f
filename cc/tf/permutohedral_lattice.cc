#include "core/permutohedral_lattice.h"

#include "tf/adapter.h"
#if defined(TFSEG_CUDA)
#include "cuda/permutohedral_lattice.h"
#endif

namespace tfseg::tf {
namespace {

namespace op = core::permutohedral_lattice;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;

// Calls fn(output, member) for each member that is an output of the op.
template <typename B, typename Fn>
void ForOutputs(op::Members<B>* members, Fn&& fn) {
  B* const outputs[] = {&members->vertices,      &members->weights,       &members->splat_points,
                        &members->splat_weights, &members->splat_offsets, &members->neighbours,
                        &members->norms,         &members->num_vertices};
  int output = 0;
  for (B* member : outputs) fn(output++, member);
}

REGISTER_OP("Tfseg>PermutohedralLattice")
    .Input("features: float")
    .Output("vertices: int32")
    .Output("weights: float")
    .Output("splat_points: int32")
    .Output("splat_weights: float")
    .Output("splat_offsets: int32")
    .Output("neighbours: int32")
    .Output("norms: float")
    .Output("num_vertices: int32")
    .SetShapeFn([](InferenceContext* context) {
      op::Members<core::Shape> shapes;
      TF_RETURN_IF_ERROR(ToStatus(op::InferShape(ToShape(context, context->input(0)), &shapes)));
      ForOutputs(&shapes, [&](int output, core::Shape* shape) {
        context->set_output(output, FromShape(context, *shape));
      });
      return absl::OkStatus();
    });

template <typename DeviceContext>
class PermutohedralLattice : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    op::Members<core::Shape> shapes;
    OP_REQUIRES_OK(context, ToStatus(op::InferShape(ToShape(context->input(0).shape()), &shapes)));
    Tensor* tensors[op::kNumMembers - 1];
    absl::Status status;
    ForOutputs(&shapes, [&](int output, core::Shape* shape) {
      status.Update(context->allocate_output(output, FromShape(*shape), &tensors[output]));
    });
    OP_REQUIRES_OK(context, status);
    op::Members<core::Buffer> out;
    ForOutputs(&out, [&](int output, core::Buffer* buffer) { *buffer = Out(tensors[output]); });
    DeviceContext device(context);
    OP_REQUIRES_OK(context, ToStatus(Forward(device.Get(), In(context->input(0)), out)));
  }
};

TFSEG_REGISTER_KERNELS(Name("Tfseg>PermutohedralLattice"), PermutohedralLattice);

}  // namespace
}  // namespace tfseg::tf
