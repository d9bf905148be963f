// How the TensorFlow ops take permutohedral lattices: nine inputs each, or nine lists of inputs.
#ifndef TFSEG_TF_LATTICE_H_
#define TFSEG_TF_LATTICE_H_

#include "core/permutohedral_lattice.h"
#include "tf/adapter.h"

#define TFSEG_LATTICE_INPUTS         \
  Input("features: float")           \
      .Input("vertices: int32")      \
      .Input("weights: float")       \
      .Input("splat_points: int32")  \
      .Input("splat_weights: float") \
      .Input("splat_offsets: int32") \
      .Input("neighbours: int32")    \
      .Input("norms: float")         \
      .Input("num_vertices: int32")
#define TFSEG_LATTICE_LISTS                         \
  Input("features: num_lattices * float")           \
      .Input("vertices: num_lattices * int32")      \
      .Input("weights: num_lattices * float")       \
      .Input("splat_points: num_lattices * int32")  \
      .Input("splat_weights: num_lattices * float") \
      .Input("splat_offsets: num_lattices * int32") \
      .Input("neighbours: num_lattices * int32")    \
      .Input("norms: num_lattices * float")         \
      .Input("num_vertices: num_lattices * int32")

namespace tfseg::tf {

// The lattice whose members are the inputs number first, first + step, and so on.
inline core::permutohedral_lattice::Lattice LatticeAt(tensorflow::OpKernelContext* context,
                                                      int first, int step = 1) {
  const auto member = [&](int m) { return In(context->input(first + m * step)); };
  return {member(0), member(1), member(2), member(3), member(4),
          member(5), member(6), member(7), member(8)};
}

}  // namespace tfseg::tf

#endif  // TFSEG_TF_LATTICE_H_
