"""A dense CRF over any points."""

import operator
from typing import Any

import numpy as np

from tfseg_ops import _library
from tfseg_ops.postprocess import _arrays
from tfseg_ops.postprocess._types import KernelType, NormalizationType
from tfseg_ops.postprocess.const_unary import ConstUnary
from tfseg_ops.postprocess.logistic_unary import LogisticUnary


class DenseCRF:
    """A dense CRF over points with features of one's own: pixels, voxels, anything.

    Marginals `Q` minimise the KL divergence to

        p(x) = exp(-sum_i U[x_i, i] - sum_{i < j} sum_k compat_k[x_i, x_j] k_k(f_i, f_j)) / Z

    by mean-field steps, the Gaussian kernels `k_k` filtered on a permutohedral lattice. See
    `ops.mean_field_step`, and `tfseg_ops.postprocess` for what differs from pydensecrf.

    Args:
        nvar: the number of points.
        nlabels: the number of labels.

    Raises:
        ImportError: the package was not built.

    Example:
        >>> crf = DenseCRF(nvar=depth * height * width, nlabels=2)
        >>> crf.setUnaryEnergy(unary_from_softmax(probabilities))
        >>> crf.addPairwiseEnergy(create_pairwise_gaussian((1, 3, 3), volume.shape), compat=3)
        >>> labels = np.argmax(crf.inference(5), axis=0).reshape(volume.shape)

    References:
        Krähenbühl & Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge
        potentials"; 2013, "Parameter learning and convergent inference for dense random fields".
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._core = _library.load_core()
        self._nvar = self._positive("nvar", nvar)
        self._nlabels = self._positive("nlabels", nlabels)
        self._unary: np.ndarray | None = None  # logits: energies with the other sign
        self._lattices: list[tuple[np.ndarray, ...]] = []
        self._mixings: list[np.ndarray] = []  # of each lattice, [nlabels] or a matrix
        self._normalizations: list[str] = []

    def setUnary(self, u: ConstUnary | LogisticUnary) -> None:
        """Sets the energies of a `ConstUnary` or `LogisticUnary`."""
        if not isinstance(u, ConstUnary | LogisticUnary):
            where = self._where("setUnary")
            raise TypeError(f"{where}: 'u' must be a ConstUnary or LogisticUnary, got {type(u)}")
        self._set_energies(self._where("setUnary"), u.energies)

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:
        """Sets the energy of each label at each point.

        Args:
            u: negative logarithms of probabilities, `[nlabels, nvar]`.
            f: features `[d, nvar]`, if the energies are `u f` with `u` of `[nlabels, d]`.
        """
        self._set_energies(
            self._where("setUnaryEnergy"), u if f is None else LogisticUnary(u, f).energies
        )

    def addPairwiseEnergy(
        self,
        features: Any,
        compat: Any,
        kernel: int = KernelType.DIAG_KERNEL,
        normalization: int = NormalizationType.NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds a Gaussian kernel of features, and builds its lattice.

        Args:
            features: `[d, nvar]`, in units of the kernel's standard deviation; `d` at most 8.
            compat: how labels of near points go together. A number is the weight `w` of a Potts
                model, which rewards equal labels: `-w` if they are, else 0. `[nlabels]` is a
                diagonal matrix and `[nlabels, nlabels]` a matrix of penalties, made symmetric;
                both have the opposite sign of the number.
            kernel: one of the `*_KERNEL`, which make no difference.
            normalization: one of the `NORMALIZE_*` or `NO_NORMALIZATION`.
        """
        where = self._where("addPairwiseEnergy")
        features = _arrays.real(where, "features", features, ["d", self._nvar])
        self._add_kernel(where, _arrays.points_first(features), compat, kernel, normalization)

    def inference(self, niter: int) -> np.ndarray:
        """Returns the marginals after so many steps.

        Args:
            niter: at least 0, which gives the softmax of the unary.

        Returns:
            Probabilities `[nlabels, nvar]`, float32, points being contiguous in memory.
        """
        where = self._where("inference")
        if not _arrays.real(where, "niter", niter, []) >= 0:
            raise ValueError(f"{where}: 'niter' must not be negative, got {niter}")
        q, spare = self._start(), None
        mixing = self._mixing()
        for _ in range(int(niter)):
            q, spare = self._step(q, mixing, out=spare), q
        return q[0].T

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns `Q`, `[nlabels, nvar]`, before the first step, and two arrays for nothing.

        `Q` is the softmax of the unary; without one it is uniform.
        """
        return self._start()[0].T, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: np.ndarray, tmp1: Any = None, tmp2: Any = None) -> None:
        """Does one step in place.

        Args:
            Q: what `startInference` returned, or another floating array; it receives the new
                marginals.
            tmp1: not used.
            tmp2: not used.
        """
        where = self._where("stepInference")
        if not isinstance(Q, np.ndarray):
            raise TypeError(f"{where}: 'Q' must be a numpy array to write to, got {type(Q)}")
        if Q.dtype.kind != "f":  # others would cut marginals off
            raise TypeError(f"{where}: 'Q' must be a floating array, got {Q.dtype}")
        Q[...] = self._step(self._points_first(where, Q), self._mixing())[0].T

    def klDivergence(self, Q: Any) -> float:
        """Returns the divergence from `Q` to the CRF as pydensecrf has it.

            sum_i sum_l Q[l, i] (log Q[l, i] + U[l, i] + sum_k (compat_k K_k Q)[l, i])

        It lacks the constant log Z, and the last term counts each pair of points twice and each
        point with itself, so it need not fall in every step.
        """
        q = self._points_first(self._where("klDivergence"), Q)
        logits = self._step(q, self._mixing(), logits=True)
        difference = np.log(np.maximum(q, np.float32(1e-20)))
        difference -= logits
        return float(np.einsum("bpc,bpc->", q, difference, dtype=np.float64))

    def _where(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _positive(self, argument: str, value: int) -> int:
        name = type(self).__name__
        try:
            size = operator.index(value)
        except TypeError:
            raise TypeError(f"{name}: '{argument}' must be an int, got {value!r}") from None
        if size < 1:
            raise ValueError(f"{name}: '{argument}' must be at least 1, got {size}")
        return size

    def _set_energies(self, where: str, energies: Any) -> None:
        energies = _arrays.real(where, "u", energies, [self._nlabels, self._nvar])
        self._unary = _arrays.points_first(energies, -1.0)

    def _points_first(self, where: str, q: Any) -> np.ndarray:
        """Returns marginals as core takes them; those that we returned are not copied."""
        q = _arrays.real(where, "Q", q, [self._nlabels, self._nvar])
        return np.ascontiguousarray(q.T, np.float32)[np.newaxis]

    def _add_kernel(
        self, where: str, features: np.ndarray, compat: Any, kernel: int, normalization: int
    ) -> None:
        """Adds a kernel of features `[1, nvar, d]`."""
        mixing = self._mixing_of(where, compat)
        KernelType(kernel)  # it must exist
        name = NormalizationType(normalization).core_name
        self._lattices.append(self._core.permutohedral_lattice(features))
        self._mixings.append(mixing)
        self._normalizations.append(name)

    def _mixing_of(self, where: str, compat: Any) -> np.ndarray:
        """Returns what the filtered marginals are multiplied by: minus the compatibility."""
        if np.ndim(compat) == 0:
            return np.full(self._nlabels, _arrays.real(where, "compat", compat, []), np.float32)
        if np.ndim(compat) > 2:
            shape = list(np.shape(compat))
            raise ValueError(f"{where}: 'compat' must have at most 2 dimensions, got {shape}")
        array = _arrays.real(where, "compat", compat, [self._nlabels] * np.ndim(compat))
        array = array.astype(np.float32)
        return -array if array.ndim == 1 else -(array + array.T) / 2

    def _mixing(self) -> np.ndarray:
        """Returns all of them, diagonals unless one is a matrix."""
        if all(mixing.ndim == 1 for mixing in self._mixings):
            return np.array(self._mixings, np.float32).reshape(-1, self._nlabels)
        return np.stack([np.diag(m) if m.ndim == 1 else m for m in self._mixings])

    def _logits(self) -> np.ndarray:
        if self._unary is None:
            return np.zeros((1, self._nvar, self._nlabels), np.float32)
        return self._unary

    def _start(self) -> np.ndarray:
        unary = self._logits()
        none = np.empty((0, self._nlabels), np.float32)
        return self._core.mean_field_step(unary, unary, [], none, [])

    def _step(
        self,
        q: np.ndarray,
        mixing: np.ndarray,
        logits: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        return self._core.mean_field_step(
            q, self._logits(), self._lattices, mixing, self._normalizations, logits, out
        )
