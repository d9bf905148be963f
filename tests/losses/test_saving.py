"""Compiled models with our losses and metrics, saved here and loaded in a fresh process."""

from pathlib import Path

import numpy as np
from helpers.losses import LOSSES
from helpers.processes import run_python
from helpers.segmentation import scenes, segmenter

from tfseg_ops.metrics import BoundaryF1, DiceScore, MeanIoU


def test_compiled_models_are_loaded_and_trained_on_in_a_fresh_process(tmp_path: Path) -> None:
    images, labels, weights = scenes(4)
    for name, kind in LOSSES.items():
        model = segmenter()
        model.compile(
            "sgd",
            kind(ignore_label=255, class_weights=[1, 2, 3], per_image=False),
            weighted_metrics=[
                MeanIoU(3, ignore_label=255),
                DiceScore(3, ignore_label=255, include_background=False),
                BoundaryF1(3, 1, ignore_label=255),
            ],
            jit_compile=False,
        )
        model.fit(images, labels, sample_weight=weights, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        scores = model.evaluate(images, labels, sample_weight=weights, verbose=0)
        np.save(tmp_path / f"{name}.npy", scores)
    output = run_python(
        """
        import pathlib
        import sys
        import keras
        import numpy as np
        import tfseg_ops
        from helpers.segmentation import scenes

        images, labels, weights = scenes(4)
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
            model = keras.models.load_model(path)
            assert type(model.loss) is getattr(tfseg_ops.losses, path.stem)
            scores = model.evaluate(images, labels, sample_weight=weights, verbose=0)
            np.testing.assert_allclose(scores, np.load(path.with_suffix(".npy")), 1e-5)
            before = model.get_weights()[0]
            model.fit(images, labels, sample_weight=weights, verbose=0)
            assert np.abs(model.get_weights()[0] - before).max() > 1e-6
            print(path.stem)
        """,
        tmp_path,
    )
    assert output.split() == sorted(LOSSES)
