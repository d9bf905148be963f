#include "core/permutohedral_lattice.h"

#include "xla/handler.h"
#if defined(TFSEG_CUDA)
#include "cuda/permutohedral_lattice.h"
#endif

namespace tfseg::xla {
namespace {

namespace op = core::permutohedral_lattice;

template <typename DeviceContext>
ffi::Error PermutohedralLattice(
    DeviceContext device, ffi::AnyBuffer features, ffi::Result<ffi::AnyBuffer> vertices,
    ffi::Result<ffi::AnyBuffer> weights, ffi::Result<ffi::AnyBuffer> splat_points,
    ffi::Result<ffi::AnyBuffer> splat_weights, ffi::Result<ffi::AnyBuffer> splat_offsets,
    ffi::Result<ffi::AnyBuffer> neighbours, ffi::Result<ffi::AnyBuffer> norms,
    ffi::Result<ffi::AnyBuffer> num_vertices) {
  const op::Members<core::Buffer> out{{},
                                      Out(vertices),
                                      Out(weights),
                                      Out(splat_points),
                                      Out(splat_weights),
                                      Out(splat_offsets),
                                      Out(neighbours),
                                      Out(norms),
                                      Out(num_vertices)};
  return ToError(Forward(device.Get(), In(features), out));
}

TFSEG_REGISTER_HANDLERS("tfseg_permutohedral_lattice", PermutohedralLattice,
                        .Arg<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>()
                            .Ret<ffi::AnyBuffer>());

}  // namespace
}  // namespace tfseg::xla
