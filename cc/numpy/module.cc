#include "numpy/module.h"

#include "core/simd.h"

PYBIND11_MODULE(_core, module) {
  namespace py = pybind11;
  using tfseg::numpy::NumpyThreadPool;
  module.doc() =
      "The core of tfseg_ops on numpy arrays, without TensorFlow. Calls run without the "
      "interpreter "
      "lock: no other thread may change their arrays meanwhile.";
  module.def("level", &tfseg::core::Level,
             "The instruction set of the core library that was loaded.");
  module.def(
      "num_threads", [] { return NumpyThreadPool::Get().NumThreads(); },
      "How many threads a call uses, the caller's included.");
  module.def(
      "set_num_threads", [](int count) { NumpyThreadPool::Get().SetNumThreads(count); },
      py::arg("count"), "Sets how many threads a call uses; below 1 counts as 1.");
  for (const auto add : tfseg::numpy::Registrations()) add(module);
}
