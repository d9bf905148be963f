"""The permutohedral lattice of points: what Gaussian filters of them are computed on."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _crf_checks, _library, _portable
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice, build


def permutohedral_lattice(features: Any) -> Lattice:
    """Builds the sparse grid on which points of a feature space are filtered in linear time.

    The simplices of the permutohedral lattice tile the space of d dimensions; each point is written
    as a weighted mean of the d + 1 vertices around it. `ops.gaussian_filter` and
    `ops.mean_field_step` take the lattice as often as wanted; it depends on the features alone.
    Features are in units of the kernel's standard deviation: pixel positions over 80 and colours
    over 13, say. Each image of the batch has a lattice of its own.

    The lattice is a named tuple of nine tensors, `features` first. Their shapes are static where
    those of the features are (there is room for `points * (d + 1)` vertices), so it crosses
    `tf.function` and XLA. Only the member `features` carries a gradient: filters give it that of
    the Gaussian kernel, by which the piecewise constant structure of the lattice is left out.

    Vertices are numbered by their first appearance, so that the lattice is the same for any number
    of threads. Identical points share their vertices. No points make an empty lattice.

    Args:
        features: `[batch, points, d]`, d from 1 to 8, any floating dtype; computed in float32.

    Returns:
        A `Lattice`: features, vertices, weights, splat_points, splat_weights, splat_offsets,
        neighbours, norms (the filter of ones, `[batch, points]`) and num_vertices (`[batch]`).

    Raises:
        TypeError: the features are not floating.
        ValueError, tf.errors.InvalidArgumentError: another shape, or (at run time) a feature that
            is not finite or over 100000 in size; in 7 and 8 dimensions also an image whose features
            spread so wide that a vertex needs more than 128 bits (not inside
            `tfseg_ops.portable()`). Under XLA this runs on compiled kernels only, not inside
            `portable()`.

    Example:
        >>> lattice = permutohedral_lattice(features / sdev)
        >>> smooth = gaussian_filter(values, lattice) / lattice.norms[..., None]

    References:
        Adams, Baek & Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
        section 3.
        Krähenbühl & Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials", section 3.2.
    """
    checked = _crf_checks.features(features)
    if _portable.is_portable():
        return build(checked)
    members = _library.load_ops().tfseg_permutohedral_lattice(features=tf.stop_gradient(checked))
    return Lattice(checked, *members)


# Its gradient goes another way: from the filters straight to the lattice's features.
tf.no_gradient("Tfseg>PermutohedralLattice")
