// What the numpy adapters share. Each <op>.cc adds its functions to the module _core by a
// Registration.
#ifndef TFSEG_NUMPY_MODULE_H_
#define TFSEG_NUMPY_MODULE_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "core/shape.h"
#include "core/status.h"
#include "numpy/thread_pool.h"

namespace tfseg::numpy {

namespace py = pybind11;

using RegisterFunction = void (*)(py::module_&);
inline std::vector<RegisterFunction>& Registrations() {
  static std::vector<RegisterFunction> functions;
  return functions;
}
struct Registration {
  explicit Registration(RegisterFunction function) { Registrations().push_back(function); }
};

// Raises ValueError, TypeError or MemoryError with core's own words.
inline void ThrowIfError(const core::Status& status) {
  if (status.code == core::Code::kResourceExhausted) {
    PyErr_SetString(PyExc_MemoryError, status.message.c_str());
    throw py::error_already_set();
  }
  if (status.code == core::Code::kInvalidType) throw py::type_error(status.message);
  if (!status.ok()) throw py::value_error(status.message);
}

inline core::Shape ShapeOf(const py::array& array) {
  core::Shape shape = core::Shape::OfRank(static_cast<int>(array.ndim()));
  for (int axis = 0; axis < array.ndim(); ++axis) shape.set(axis, array.shape(axis));
  return shape;
}

// bfloat16 is no numpy dtype of its own: ml_dtypes registers it, and its name is what can be asked.
inline core::DType DTypeOf(const py::dtype& dtype) {
  return core::DTypeNamed(py::str(dtype.attr("name")).cast<std::string>().c_str());
}

// A C-contiguous array in native byte order, copied only where the given one is not.
inline py::array Contiguous(const py::object& object) {
  const py::module_ numpy = py::module_::import("numpy");
  py::array array = numpy.attr("ascontiguousarray")(object);
  if (array.ndim() != numpy.attr("ndim")(object).cast<int>()) array = array.reshape({});
  if (!array.dtype().attr("isnative").cast<bool>()) {
    array = array.attr("astype")(array.dtype().attr("newbyteorder")("="));
  }
  return array;
}

inline core::ConstBuffer In(const py::array& array) {
  return {array.data(), DTypeOf(array.dtype()), ShapeOf(array)};
}

inline py::array Empty(const core::Shape& shape, const py::dtype& dtype) {
  std::vector<py::ssize_t> sizes;
  for (int axis = 0; axis < shape.rank(); ++axis) sizes.push_back(shape[axis]);
  return py::array(dtype, sizes);
}

inline core::Buffer Out(py::array& array) {
  return {array.mutable_data(), DTypeOf(array.dtype()), ShapeOf(array)};
}

// Runs fn(context) on the module's threads, without the interpreter lock.
template <typename Fn>
void Run(Fn&& fn) {
  core::Status status;
  {
    const py::gil_scoped_release release;
    core::HeapWorkspace workspace;
    status = fn(core::Context{NumpyThreadPool::Get(), workspace});
  }
  ThrowIfError(status);
}

}  // namespace tfseg::numpy

#endif  // TFSEG_NUMPY_MODULE_H_
