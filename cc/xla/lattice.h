// How the XLA handlers take permutohedral lattices: among the remaining arguments.
#ifndef TFSEG_XLA_LATTICE_H_
#define TFSEG_XLA_LATTICE_H_

#include <vector>

#include "core/permutohedral_lattice.h"
#include "xla/handler.h"

namespace tfseg::xla {

// The lattice whose members are the buffers number first, first + step, and so on. The shape
// functions have seen to their number.
inline core::permutohedral_lattice::Lattice LatticeAt(const std::vector<core::ConstBuffer>& buffers,
                                                      size_t first, size_t step = 1) {
  const auto member = [&](size_t m) { return buffers[first + m * step]; };
  return {member(0), member(1), member(2), member(3), member(4),
          member(5), member(6), member(7), member(8)};
}

}  // namespace tfseg::xla

#endif  // TFSEG_XLA_LATTICE_H_
