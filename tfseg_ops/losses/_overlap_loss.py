"""What the losses of overlap share: smoothing, absent classes, background and the mean."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.losses._sums_loss import Sums, SumsLoss


class OverlapLoss(SumsLoss):
    """One minus the mean over the classes of an overlap in [0, 1]."""

    # What `absent` may be.
    _absent_rules: tuple[str, ...] = ("smooth", "skip", "one")

    def __init__(
        self,
        *,
        activation: str = "softmax",
        from_logits: bool = True,
        power: int = 1,
        per_image: bool = True,
        smooth_numerator: float = 1e-6,
        smooth_denominator: float = 1e-6,
        absent: str = "smooth",
        class_weights: Sequence[float] | None = None,
        include_background: bool = True,
        ignore_label: int | None = None,
        sync_replicas: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            activation=activation,
            from_logits=from_logits,
            per_image=per_image,
            class_weights=class_weights,
            ignore_label=ignore_label,
            sync_replicas=sync_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        op = type(self).__name__
        self.power = _checks.power_of_sums(op, power)
        self.smooth_numerator = _checks.not_negative(op, "smooth_numerator", smooth_numerator)
        self.smooth_denominator = _checks.not_negative(op, "smooth_denominator", smooth_denominator)
        if absent not in self._absent_rules:
            _checks.refuse(op, "absent", f"be one of {', '.join(self._absent_rules)}", absent)
        self.absent = absent
        self.include_background = _checks.boolean(op, "include_background", include_background)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "power": self.power,
            "smooth_numerator": self.smooth_numerator,
            "smooth_denominator": self.smooth_denominator,
            "absent": self.absent,
            "include_background": self.include_background,
        }

    def _overlap(self, sums: Sums) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns numerator and denominator of each class `[images, classes]`, not smoothed."""
        raise NotImplementedError

    def _losses(self, sums: Sums) -> tf.Tensor:
        overlap = self._smoothed_ratio(*self._overlap(sums))
        losses = 1 - overlap
        present = sums.target > 0
        weights = tf.ones_like(losses)
        if self.absent == "one":
            losses = tf.where(present, losses, 0)
        elif self.absent == "skip":
            weights = tf.cast(present, losses.dtype)
        return self._mean_of_classes(losses, self._without_background(weights))

    def _smoothed_ratio(self, numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
        """Returns the ratio; nothing over nothing is 0."""
        return tf.math.divide_no_nan(
            numerator + self.smooth_numerator, denominator + self.smooth_denominator
        )

    def _without_background(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns the weights of classes with 0 for the first one, if it is left out."""
        if self.include_background:
            return weights
        rule = "be True where there is one class"
        if weights.shape[-1] == 1:
            _checks.refuse(type(self).__name__, "include_background", rule, False)
        classes = tf.range(tf.shape(weights)[-1])
        if weights.shape[-1] is None:  # compiled to nothing by XLA
            words = f"{type(self).__name__}: 'include_background' must {rule}, got False"
            tf.debugging.Assert(tf.size(classes) > 1, [words])
        return weights * tf.cast(classes > 0, weights.dtype)
