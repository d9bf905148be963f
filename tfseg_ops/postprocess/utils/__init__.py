"""What pydensecrf's `utils` has: unary energies from labels or softmax, features of kernels.

The same numbers, to the last bit. Arguments that make no sense raise errors here.
"""

from tfseg_ops.postprocess.utils.compute_unary import compute_unary
from tfseg_ops.postprocess.utils.create_pairwise_bilateral import create_pairwise_bilateral
from tfseg_ops.postprocess.utils.create_pairwise_gaussian import create_pairwise_gaussian
from tfseg_ops.postprocess.utils.softmax_to_unary import softmax_to_unary
from tfseg_ops.postprocess.utils.unary_from_labels import unary_from_labels
from tfseg_ops.postprocess.utils.unary_from_softmax import unary_from_softmax

__all__ = [
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]
