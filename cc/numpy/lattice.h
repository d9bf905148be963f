// Lattices as Python has them: tuples of nine arrays.
#ifndef TFSEG_NUMPY_LATTICE_H_
#define TFSEG_NUMPY_LATTICE_H_

#include <array>
#include <string>

#include "core/permutohedral_lattice.h"
#include "numpy/module.h"

namespace tfseg::numpy {

// The arrays stay alive with it.
class LatticeArrays {
 public:
  LatticeArrays(const char* op, const std::string& argument, const py::object& object) {
    constexpr int kMembers = core::permutohedral_lattice::kNumMembers;
    if (!py::isinstance<py::sequence>(object) || py::len(object) != kMembers) {
      throw py::value_error(std::string(op) + ": '" + argument +
                            "' must be what permutohedral_lattice returned");
    }
    const auto members = py::reinterpret_borrow<py::sequence>(object);
    for (int k = 0; k < kMembers; ++k) arrays_[k] = Contiguous(members[k]);
  }

  core::permutohedral_lattice::Lattice Get() const {
    return {In(arrays_[0]), In(arrays_[1]), In(arrays_[2]), In(arrays_[3]), In(arrays_[4]),
            In(arrays_[5]), In(arrays_[6]), In(arrays_[7]), In(arrays_[8])};
  }

 private:
  std::array<py::array, core::permutohedral_lattice::kNumMembers> arrays_;
};

}  // namespace tfseg::numpy

#endif  // TFSEG_NUMPY_LATTICE_H_
