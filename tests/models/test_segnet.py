"""SegNet: the published parameters, the mirror image, and the same step in stock TensorFlow."""

import keras
import numpy as np
import pytest
from helpers.mirrored import (
    DECODER,
    ENCODER,
    assert_a_step_is_the_same_in_stock_tensorflow,
)

from tfseg_ops.models import segnet


def test_has_the_published_parameters() -> None:
    """29.46 million, as Paszke et al. 2016 (ENet) count those of SegNet."""
    model = segnet(12)
    plan = [*ENCODER, *DECODER]
    pairs = zip([3, *plan], [*plan, 12], strict=True)
    kernels = sum(9 * inputs * outputs for inputs, outputs in pairs)
    assert model.count_params() == kernels + 12 + 4 * sum(plan)
    assert round(model.count_params() / 1e6, 2) == 29.46


def test_decoder_mirrors_the_encoder() -> None:
    model = segnet(5, (45, 70, 3), width=1 / 16)
    sizes = [(45, 70), (23, 35), (12, 18), (6, 9), (3, 5), (2, 3)]
    filters = [4, 8, 16, 32, 32]
    for block in range(1, 6):
        pooled = model.get_layer(f"block{block}_pool").output[0]
        unpooled = model.get_layer(f"unpool{block}").output
        assert pooled.shape == (None, *sizes[block], filters[block - 1])
        assert unpooled.shape == (None, *sizes[block - 1], filters[block - 1])
    assert model.output_shape == (None, 45, 70, 5)


def test_values_return_to_where_the_maxima_were() -> None:
    keras.utils.set_random_seed(0)
    model = segnet(2, width=1 / 32)
    image = np.random.default_rng(0).uniform(size=[1, 9, 12, 3]).astype(np.float32)
    outer = keras.Model(
        model.input, [model.get_layer("block1_pool").input, model.get_layer("unpool1").output]
    )
    before, after = (output.numpy() for output in outer(image))
    padded = np.pad(before, [(0, 0), (0, 1), (0, 0), (0, 0)], constant_values=-np.inf)
    windows = padded.reshape(1, 5, 2, 6, 2, -1)
    highest = (windows == windows.max((2, 4), keepdims=True)).reshape(padded.shape)[:, :9]
    assert (after != 0).sum() > 10
    assert highest[after != 0].all()


def test_a_training_step_is_the_same_in_stock_tensorflow() -> None:
    assert_a_step_is_the_same_in_stock_tensorflow(lambda: segnet(3, width=1 / 32))


def test_grey_images_are_taken() -> None:
    assert segnet(2, (8, 8, 1), width=1 / 64)(np.zeros([1, 8, 8, 1])).shape == (1, 8, 8, 2)


def test_images_too_large_for_positions_in_int32_are_refused() -> None:
    with pytest.raises(ValueError, match=r"positions, got int32"):
        segnet(2, (32768, 32769, 3), width=1 / 32)


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_bad_widths_are_refused(width: float) -> None:
    with pytest.raises(ValueError, match=r"^segnet: 'width' must be positive and finite, got"):
        segnet(2, width=width)
