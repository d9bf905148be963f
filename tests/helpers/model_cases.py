"""Every reference model, small enough to train in a test."""

from collections.abc import Callable
from typing import Any, NamedTuple


class ModelCase(NamedTuple):
    """How a model is built and what goes in and comes out."""

    build: Callable[[], Any]  # the model, for images of any size
    channels: int = 3  # of the images
    num_classes: int | None = None  # of the logits; None: the model returns images
    scale: int = 1  # output size over input size
    sizes: tuple[tuple[int, int], ...] = ((31, 37), (8, 64), (1, 1))  # that it must take
    training_size: tuple[int, int] = (33, 38)  # of the images in the other tests
    highest: float = 1.0  # grey value of white
    lost: int = 0  # rows of the image at each side for which nothing is returned


def model_cases() -> dict[str, ModelCase]:
    """Returns the cases by their names; TensorFlow is imported here only."""
    from tfseg_ops.layers import DenseCRF
    from tfseg_ops.models import (
        conv_autoencoder,
        deconvnet,
        dense_autoencoder,
        fcn,
        segnet,
        super_resolution,
        unet,
    )

    def small_unet(**options: Any) -> Callable[[], Any]:
        return lambda: unet(3, (None, None, 3), **{"filters": (4, 8), **options})

    crf = DenseCRF(2, num_inference_iterations=2, bilateral_color_sdev=13 / 255)
    return {
        "dense_autoencoder": ModelCase(
            lambda: dense_autoencoder((12, 10, 3), (64, 16)),
            sizes=((12, 10),),
            training_size=(12, 10),
        ),
        "conv_autoencoder": ModelCase(
            lambda: conv_autoencoder((None, None, 3), (8, 16), 4, norm="group")
        ),
        "unet": ModelCase(small_unet(filters=(4, 8, 8)), num_classes=3),
        "unet-unpool-crf": ModelCase(small_unet(unpool=True, crf=crf), num_classes=3),
        "unet-nearest-batch-residual-dilated": ModelCase(
            small_unet(upsampling="nearest", norm="batch", residual=True, dilations=(1, 2)),
            num_classes=3,
        ),
        "unet-bilinear-group": ModelCase(
            small_unet(upsampling="bilinear", norm="group"), num_classes=3
        ),
        "unet-valid-crf": ModelCase(
            small_unet(padding="valid", crf=crf),
            num_classes=3,
            sizes=((34, 38), (20, 64)),
            training_size=(34, 38),
            lost=8,
        ),
        "fcn_32s": ModelCase(lambda: fcn(3, "32s", width=1 / 32), num_classes=3, highest=255.0),
        # A weak CRF: the default one is for networks that know something already.
        "fcn_8s_crf": ModelCase(
            lambda: fcn(3, "8s", width=1 / 32, crf=DenseCRF(2, 2, bilateral_weight=1)),
            num_classes=3,
            highest=255.0,
        ),
        "fcn_16s-same": ModelCase(
            lambda: fcn(3, "16s", width=1 / 32, padding="same"), num_classes=3, highest=255.0
        ),
        "deconvnet": ModelCase(lambda: deconvnet(3, width=1 / 24), num_classes=3),
        "segnet": ModelCase(lambda: segnet(3, width=1 / 32), num_classes=3),
        "super_resolution_autoencoder": ModelCase(
            lambda: super_resolution("autoencoder", 2, filters=(8, 8)), scale=2
        ),
        "super_resolution_unet": ModelCase(
            lambda: super_resolution("unet", 2, filters=(8, 8)), scale=2
        ),
        "super_resolution_residual": ModelCase(
            lambda: super_resolution("residual", 3, filters=8, num_blocks=2), scale=3
        ),
    }
