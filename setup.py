"""Drives CMake and packages the libraries that it builds.

Metadata stands in pyproject.toml; here is what depends on the TensorFlow that the build sees.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import time

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.dist import Distribution

ROOT = pathlib.Path(__file__).resolve().parent
PACKAGE = "tfseg_ops"


def tensorflow_distribution() -> tuple[str, str]:
    """Returns the name ("tensorflow", "tensorflow-cpu") and version that the build sees."""
    for name in importlib.metadata.packages_distributions().get("tensorflow", []):
        if name.startswith("tensorflow"):
            return name, importlib.metadata.version(name)
    raise SystemExit(
        "tfseg_ops: building needs TensorFlow: install it first, or build without "
        "--no-build-isolation"
    )


def requirements() -> list[str]:
    """Returns the runtime requirements: a custom op works only with its own TensorFlow minor."""
    name, version = tensorflow_distribution()
    minor = ".".join(version.split(".")[:2])
    return [f"{name}=={minor}.*", "numpy"]


class CMakeBuild(build_ext):
    """Builds all libraries by CMake into the wheel's package folder, or in place if editable."""

    def run(self) -> None:
        """Configures, builds the ops, then the XLA library, whose failure is only reported."""
        import pybind11

        started = time.monotonic()
        name, version = tensorflow_distribution()
        spec = importlib.util.find_spec("tensorflow")
        locations = spec.submodule_search_locations if spec else None
        if not locations:
            raise SystemExit("tfseg_ops: the installed TensorFlow has no package folder")
        output = (
            ROOT / PACKAGE if self.inplace else pathlib.Path(self.build_lib).resolve() / PACKAGE
        )
        # The CUDA sources on the CPU are for tests, so for those who work on the package.
        emulator = os.environ.get("TFSEG_EMULATOR", "AUTO" if self.inplace else "OFF")
        # One build folder for each Python and TensorFlow: two of them must not share object files.
        tag = f"cp{sys.version_info.major}{sys.version_info.minor}-tf{version}"
        build = pathlib.Path(os.environ.get("TFSEG_BUILD_DIR", ROOT / "build" / tag)).resolve()
        build.mkdir(parents=True, exist_ok=True)
        self._forget_other_nvcc(build)
        self._run(
            "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
            f"-DTFSEG_TENSORFLOW={locations[0]}",
            f"-DTFSEG_OUTPUT={output}",
            f"-DTFSEG_CUDA={os.environ.get('TFSEG_CUDA', 'AUTO')}",
            f"-DTFSEG_EMULATOR={emulator}",
            f"-DTFSEG_WERROR={os.environ.get('TFSEG_WERROR', 'OFF')}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            # Where pip built in isolation before, the cache names a ninja that is gone.
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja', path=self._path())}",
        )  # fmt: skip
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        self._run("cmake", "--build", str(build), "--parallel", jobs)
        try:
            self._run("cmake", "--build", str(build), "--parallel", jobs, "--target", "_tfseg_xla")
        except subprocess.CalledProcessError:
            (output / "_tfseg_xla.so").unlink(missing_ok=True)
            print(
                "tfseg_ops: warning: the XLA library could not be built against TensorFlow "
                f"{version}; the ops will work, but not under jit_compile=True",
                file=sys.stderr,
            )
        if not (build / "emulator.txt").read_text():
            self._run(
                "cmake", "--build", str(build), "--parallel", jobs, "--target", "tfseg_emulated"
            )  # fmt: skip
        info = {
            "distribution": name,
            "tensorflow": version,
            "python": ".".join(map(str, sys.version_info[:3])),
            "compiler": self._compiler(build),
            "source": str(ROOT),
            "emulator": (build / "emulator.txt").read_text(),
            **dict(line.split("=", 1) for line in (build / "cuda.txt").read_text().splitlines()),
        }
        (output / "_build_info.py").write_text(
            f'"""Written by setup.py."""\n\nBUILD_INFO = {info!r}\n'
        )
        print(f"tfseg_ops: built for TensorFlow {version} in {time.monotonic() - started:.0f} s")

    def get_outputs(self) -> list[str]:
        """Returns the built files, for the installer's record."""
        output = pathlib.Path(self.build_lib) / PACKAGE
        return [
            str(p) for p in output.rglob("*") if p.suffix == ".so" or p.name == "_build_info.py"
        ]

    def get_output_mapping(self) -> dict[str, str]:
        """Returns nothing: an editable build already writes into the source tree."""
        return {}

    @staticmethod
    def _run(*command: str) -> None:
        print("+", " ".join(command), flush=True)
        subprocess.run(command, check=True, env={**os.environ, "PATH": CMakeBuild._path()})

    @staticmethod
    def _forget_other_nvcc(build: pathlib.Path) -> None:
        """Lets CMake look again where the CUDA compiler of an earlier build is not this one's."""
        cache = build / "CMakeCache.txt"
        if not cache.exists():
            return
        for line in cache.read_text().splitlines():
            name, _, value = line.partition("=")
            if name.startswith("CMAKE_CUDA_COMPILER:") and (
                not os.path.exists(value) or os.environ.get("CUDACXX", value) != value
            ):
                cache.unlink()
                shutil.rmtree(build / "CMakeFiles", ignore_errors=True)

    @staticmethod
    def _path() -> str:
        """Returns PATH with the tools of this environment, which may not be activated, in front."""
        return os.pathsep.join(
            [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
        )

    @staticmethod
    def _compiler(build: pathlib.Path) -> str:
        lines = (build / "CMakeCache.txt").read_text().splitlines()
        path = next(
            line.split("=", 1)[1] for line in lines if line.startswith("CMAKE_CXX_COMPILER:")
        )
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        return version.stdout.splitlines()[0]


class BinaryDistribution(Distribution):
    """Marks the wheel as built for one platform and Python."""

    def has_ext_modules(self) -> bool:
        """Returns True: the libraries are not pure Python."""
        return True


setup(
    install_requires=requirements(),
    ext_modules=[Extension(f"{PACKAGE}._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    distclass=BinaryDistribution,
)
