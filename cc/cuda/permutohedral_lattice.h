// core/permutohedral_lattice.h for lattices that lie on a GPU. They are built on the host.
#ifndef TFSEG_CUDA_PERMUTOHEDRAL_LATTICE_H_
#define TFSEG_CUDA_PERMUTOHEDRAL_LATTICE_H_

#include "core/permutohedral_lattice.h"
#include "cuda/context.h"

namespace tfseg::cuda {

// Copies the features to the host, calls core there with threads of its own, and copies the members
// back: core's bits and core's errors. Waits for the stream before and after, and takes as much of
// the host's memory as the members have. No workspace.
TFSEG_API core::Status Forward(const Context& context, const core::ConstBuffer& features,
                               const core::permutohedral_lattice::Members<core::Buffer>& out);

}  // namespace tfseg::cuda

#endif  // TFSEG_CUDA_PERMUTOHEDRAL_LATTICE_H_
