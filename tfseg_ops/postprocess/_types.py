"""The two enumerations of pydensecrf, with its numbers."""

import enum

from tfseg_ops._crf_checks import NORMALIZATIONS


class KernelType(enum.IntEnum):
    """Which parameters of a kernel could be learned: none, its diagonal, all."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(enum.IntEnum):
    """Where a kernel is divided by the filter of ones."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3

    @property
    def core_name(self) -> str:
        """The name of it in `ops.mean_field_step`."""
        return NORMALIZATIONS[self]
