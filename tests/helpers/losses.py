"""Every loss by its name, for tests that hold for all of them."""

from tfseg_ops import losses

LOSSES = {name: getattr(losses, name) for name in losses.__all__}
# What is one minus an overlap, and takes what they share.
OVERLAPS = ["GeneralizedDice", "SoftDice", "SoftDiceCrossEntropy", "SoftJaccard", "Tversky"]
