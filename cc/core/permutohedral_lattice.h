// The permutohedral lattice: the sparse grid on which a Gaussian filter of scattered points takes
// time linear in their number. Adams, Baek & Davis 2010, "Fast high-dimensional filtering using the
// permutohedral lattice"; the embedding, blur and scale are those of Krähenbühl & Koltun 2011,
// "Efficient inference in fully connected CRFs with Gaussian edge potentials", so that results can
// be compared with theirs.
//
// A lattice says, for each image of a batch, which vertices surround each point in feature space
// and with which weights. Features are in units of the kernel's standard deviation.
#ifndef TFSEG_CORE_PERMUTOHEDRAL_LATTICE_H_
#define TFSEG_CORE_PERMUTOHEDRAL_LATTICE_H_

#include <cstdint>

#include "core/dtypes.h"
#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"

namespace tfseg::core::permutohedral_lattice {

inline constexpr int kMostDimensions = 8;
// Beyond it float32 cannot place a point in its simplex.
inline constexpr float kLargestFeature = 1e5f;

struct Geometry {
  int64_t batch, points, dimensions;
  int64_t bound;  // vertices for which there is room, per image; as built, points * corners

  int64_t corners() const { return dimensions + 1; }  // of a simplex
};

// The members of a lattice, in the order in which all adapters pass them. `B` is ConstBuffer or
// Buffer (or Shape).
template <typename B>
struct Members {
  B features;  // [batch, points, dimensions], float32
  B vertices;  // [batch, points, corners], int32: around each point, by remainder 0 .. dimensions
  B weights;   // [batch, points, corners], float32: barycentric, of these vertices
  B splat_points;   // [batch, points * corners], int32: the points of each vertex, vertex after
                    // vertex, points in rising order
  B splat_weights;  // [batch, points * corners], float32: of these
  B splat_offsets;  // [batch, bound + 1], int32: where in them each vertex begins; from
                    // num_vertices on points * corners
  B neighbours;     // [batch, corners, bound, 2], int32: along each axis of the blur, the vertex
                    // before and after, or -1. Not written from num_vertices on
  B norms;          // [batch, points], float32: the filter of ones
  B num_vertices;   // [batch], int32
};
inline constexpr int kNumMembers = 9;
using Lattice = Members<ConstBuffer>;

// features [batch, points, dimensions] -> the shapes of the members. Unknown parts stay unknown.
// At most 2^31 - 1 weights an image.
TFSEG_API Status InferShape(const Shape& features, Members<Shape>* shapes);

// Builds all members but the features, which is ignored. Vertices are numbered by their first
// appearance, points in order, remainders in order: no matter how many threads. A feature that is
// not finite or larger than kLargestFeature is an error.
TFSEG_API Status Forward(const Context& context, const ConstBuffer& features,
                         const Members<Buffer>& out);

// For the ops that read lattices: checks shapes and dtypes of all members against each other (but
// not the indices within, which must be tested where they are followed). `argument` names the
// lattice in errors: "lattice", "lattices[1]".
TFSEG_API Status CheckLattice(const char* op, const std::string& argument, const Lattice& lattice,
                              Geometry* geometry);

}  // namespace tfseg::core::permutohedral_lattice

#endif  // TFSEG_CORE_PERMUTOHEDRAL_LATTICE_H_
