"""Dense CRFs with the names and arguments of pydensecrf, numpy in and numpy out.

A script that says `import pydensecrf.densecrf as dcrf` runs as it is, only faster, with `import
tfseg_ops.postprocess as dcrf` instead, and so do `from tfseg_ops.postprocess import utils` and
`from tfseg_ops.postprocess.utils import unary_from_labels`. Marginals agree to 1e-3. With
`NO_NORMALIZATION` and weights as large as those of normalized kernels logits reach thousands, and
float32 rounds off so much that either library can be 1e-3 to 1e-2 from the same steps in float64 at
a few pixels; of each other they are nearer (1e-3 on 99.99 % of the pixels of a photograph, and the
same labels). What is different:

- Matrices come as numpy arrays `[nlabels, nvar]`, no longer as Eigen matrices to be converted.
- Arrays need not be C-contiguous, nor float32; features have at most 8 dimensions.
- Wrong shapes and labels raise errors that name the argument, where pydensecrf may read beyond the
  end of an array.
- `inference(-1)` is refused, where pydensecrf returns the start.
- `startInference` without a unary gives uniform marginals, where pydensecrf gives an array that is
  not set.
- There is nothing to learn here, as there is not in pydensecrf's Python either, so the kernel types
  (`CONST_KERNEL`, `DIAG_KERNEL`, `FULL_KERNEL`) make no difference.

`ops.dense_crf` and `layers.DenseCRF` have batches and gradients, for training through the CRF.
"""

from tfseg_ops.postprocess import utils
from tfseg_ops.postprocess._types import KernelType, NormalizationType
from tfseg_ops.postprocess.const_unary import ConstUnary
from tfseg_ops.postprocess.dense_crf import DenseCRF
from tfseg_ops.postprocess.dense_crf2d import DenseCRF2D
from tfseg_ops.postprocess.logistic_unary import LogisticUnary

CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL
NO_NORMALIZATION = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = NormalizationType.NORMALIZE_SYMMETRIC

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "LogisticUnary",
    "utils",
]
