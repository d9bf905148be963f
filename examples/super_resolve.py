"""Enlarge photographs four times, and compare networks with bilinear and bicubic enlarging.

Run `python examples/super_resolve.py`. It trains the three variants of `models.super_resolution` on
patches of 12 photographs inside the packages `scikit-image` and `scikit-learn`, and judges them on
four others, whole ones:

- *auto-encoder*: a bottleneck without skip connections, on the bilinearly enlarged photograph;
- *U-Net*: the same with skip connections, its result added to the enlarged photograph;
- *residual*: residual blocks at low resolution, their sub-pixels added to the enlarged photograph;
- the same, as the mean over the photograph's 8 views, turned and mirrored (Lim et al. 2017, 3.3).

All is done twice, for two ways to make photographs small: anti-aliased, by a bicubic filter widened
to the step (what papers do), and plain bilinear, which reads 4 of 16 pixels (what `tf.image.resize`
does unless told otherwise).

What to expect on the four (two seeds; the 8 views one): made small with anti-aliasing, bicubic
enlarging reaches 28.0 dB, the U-Net 28.7, the residual model 29.1, its 8 views 29.2. The
auto-encoder stays at 25.4 to 26.0, below bilinear enlarging at 27.5: its code has to carry what the
others are handed. Plain bilinear leaves less to recover, since aliases look like details: 27.6,
27.9, 28.1 and 28.2 dB; 25.1 to 25.6 for the auto-encoder, 27.4 for bilinear. All takes some four
minutes on two cores.

The results land in `--output`: `crops_antialiased.png`, `crops_bilinear.png`, `results.json` (each
photograph by itself too) and `results.md`. Images are RGB in [0, 1], clipped but not rounded to 8
bits; 4 pixels along the borders are left out, for all methods alike. PSNR and SSIM are means over
the photographs. The split is by photograph, and nothing was chosen on the four: what had to be
chosen was chosen on a photograph of a cup of coffee.
"""

import argparse
import importlib.util
import json
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops.metrics import MeanPSNR, MeanSSIM
from tfseg_ops.models import super_resolution

SCALE = 4
# The split is by photograph, and the same in every run.
TRAINING = (
    *("brick", "camera", "china", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "motorcycle_left", "motorcycle_right", "retina"),
)
VALIDATION = "coffee"
# With the upper left corner (y, x) of the crop in the picture.
HELD_OUT = {"astronaut": (60, 170), "cat": (90, 130), "flower": (140, 250), "rocket": (150, 275)}
LARGEST_PATCH = 64  # the smallest photograph made small has 75 x 96 pixels
CROP = 96  # height and width of these crops, in pixels
# What makes photographs small: the method of `tf.image.resize`, and whether to anti-alias.
DOWNSCALINGS = {"antialiased": ("bicubic", True), "bilinear": ("bilinear", False)}


class Recipe(NamedTuple):
    """How a model is trained."""

    variant: str  # of `super_resolution`
    learning_rate: float  # the highest
    steps: int = 1  # for each one asked for


# A step of the residual model takes less than half of the time: it gets three for each.
RECIPES = {
    "auto-encoder": Recipe("autoencoder", 1e-3),
    "U-Net": Recipe("unet", 1e-3),
    "residual": Recipe("residual", 2e-3, steps=3),
}


def load_photograph(name: str) -> np.ndarray:
    """A photograph, float32 `[height, width, 3]` in [0, 1], of sizes that `SCALE` divides."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        from skimage import data

        if name.startswith("motorcycle"):
            pixels = data.stereo_motorcycle()[name.endswith("right")]
        else:
            pixels = getattr(data, name)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., np.newaxis], 3, axis=2)
    height, width = (size // SCALE * SCALE for size in pixels.shape[:2])
    return pixels[:height, :width].astype("float32") / 255


def downscale(photograph: np.ndarray, downscaling: str) -> np.ndarray:
    """The photograph `SCALE` times smaller, in [0, 1]."""
    method, antialias = DOWNSCALINGS[downscaling]
    size = [side // SCALE for side in photograph.shape[:2]]
    small = tf.image.resize(photograph, size, method, antialias=antialias)
    return tf.clip_by_value(small, 0.0, 1.0).numpy()


def draw_patch(
    pair: tuple[np.ndarray, np.ndarray], size: int, random: np.random.Generator
) -> list[np.ndarray]:
    """A square of a small photograph and the same of the large one, turned, flipped and tinted.

    Colours change places and strength, since there are few photographs, many of them grey.
    """
    y, x = (random.integers(side - size + 1) for side in pair[0].shape[:2])
    turns, flip = random.integers(4), random.integers(2)
    colours, strength = random.permutation(3), random.uniform(0.5, 1, 3).astype("float32")
    patches = []
    for image, scale in zip(pair, (1, SCALE), strict=True):
        rows, columns = (slice(scale * start, scale * (start + size)) for start in (y, x))
        patch = np.rot90(image[rows, columns], turns)[..., colours] * strength
        patches.append(patch[:, ::-1] if flip else patch)
    return patches


def training_batches(pairs: list, batch: int, size: int, seed: int) -> tf.data.Dataset:
    """Yields batches of small patches and of the large ones, without end."""

    def draw():
        random = np.random.default_rng(seed)
        while True:
            yield tuple(draw_patch(pairs[random.integers(len(pairs))], size, random))

    signature = tuple(tf.TensorSpec([side, side, 3], tf.float32) for side in (size, SCALE * size))
    patches = tf.data.Dataset.from_generator(draw, output_signature=signature)
    return patches.batch(batch).prefetch(2)


def train(
    model: keras.Model,
    batches: tf.data.Dataset,
    validation: tuple,
    epochs: int,
    steps: int,
    peak: float,
) -> float:
    """Trains a model by the mean squared error; returns the seconds that it took."""
    warmup = steps // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        peak / 10,
        warmup_target=peak,
        warmup_steps=warmup,
        decay_steps=epochs * steps - warmup,
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "mse",
        metrics=[MeanPSNR(name="psnr")],
        jit_compile=False,  # slower on CPUs
    )
    verbose = 1 if sys.stdout.isatty() else 2  # a moving bar, or a line for each epoch
    start = time.perf_counter()
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        verbose=verbose,
        shuffle=False,  # the batches are drawn at random already
    )
    return time.perf_counter() - start


def interpolate(small: np.ndarray, method: str) -> np.ndarray:
    """The photograph enlarged by `tf.image.resize`."""
    size = [SCALE * side for side in small.shape[:2]]
    return tf.clip_by_value(tf.image.resize(small, size, method), 0.0, 1.0).numpy()


def apply(model: keras.Model, small: np.ndarray) -> np.ndarray:
    """The photograph enlarged by a model."""
    return tf.clip_by_value(model(small[np.newaxis])[0], 0.0, 1.0).numpy()


def in_all_views(method: Callable, small: np.ndarray) -> np.ndarray:
    """The mean of what a method makes of the photograph as it is, turned and mirrored."""
    enlarged = []
    for turns in range(4):
        for step in (1, -1):
            view = method(np.rot90(small, turns)[:, ::step])
            enlarged.append(np.rot90(view[:, ::step], -turns))
    return np.mean(enlarged, axis=0)


def score(truth: np.ndarray, enlarged: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of a photograph, without `SCALE` pixels along its borders."""
    inside = slice(SCALE, -SCALE)
    pair = [image[np.newaxis, inside, inside] for image in (truth, enlarged)]
    scores = {}
    for name, metric in (("psnr", MeanPSNR()), ("ssim", MeanSSIM())):
        metric.update_state(*pair)
        scores[name] = float(metric.result())
    return scores


def compare(
    photographs: dict[str, np.ndarray], downscaling: str, arguments: argparse.Namespace
) -> tuple[dict[str, dict], dict[str, dict[str, np.ndarray]]]:
    """Trains the models for one way to make photographs small, and judges all methods.

    Returns the row of each method, and the held-out photographs that it enlarged.
    """
    small = {name: downscale(image, downscaling) for name, image in photographs.items()}
    pairs = [(small[name], photographs[name]) for name in TRAINING]
    validation = small[VALIDATION], photographs[VALIDATION]
    methods = {name: partial(interpolate, method=name) for name in ("bilinear", "bicubic")}
    seconds = {}
    for name, recipe in RECIPES.items():
        print(f"\nTraining the {name}, photographs made small: {downscaling}", flush=True)
        keras.utils.set_random_seed(arguments.seed)
        filters = arguments.filters
        if recipe.variant != "residual":
            filters = [filters // 2, filters, 2 * filters]
        model = super_resolution(
            recipe.variant, SCALE, filters=filters, num_blocks=arguments.blocks
        )
        batches = training_batches(pairs, arguments.batch, arguments.patch, arguments.seed)
        one = tuple(image[np.newaxis] for image in validation)
        steps = recipe.steps * arguments.steps
        seconds[name] = train(model, batches, one, arguments.epochs, steps, recipe.learning_rate)
        methods[name] = partial(apply, model)
    methods["residual, 8 views"] = partial(in_all_views, methods["residual"])

    rows, enlarged = {}, {}
    for name, method in methods.items():
        enlarged[name] = {held_out: method(small[held_out]) for held_out in HELD_OUT}
        scores = {key: score(photographs[key], image) for key, image in enlarged[name].items()}
        rows[name] = {
            measure: float(np.mean([one[measure] for one in scores.values()]))
            for measure in ("psnr", "ssim")
        }
        validated = score(validation[1], method(validation[0]))
        rows[name] |= {"validation_psnr": validated["psnr"], "photographs": scores}
        if name in seconds:
            rows[name]["seconds"] = seconds[name]
    return rows, enlarged


def explain(rows: dict[str, dict]) -> str:
    """What the numbers say, in words."""
    psnr = {name: row["psnr"] for name, row in rows.items()}
    learned = [name for name in rows if name not in ("bilinear", "bicubic")]
    # Named by the validation photograph: nothing is chosen on those held out.
    best = max(learned, key=lambda name: rows[name]["validation_psnr"])
    gains = [
        scores["psnr"] - rows["bicubic"]["photographs"][name]["psnr"]
        for name, scores in rows[best]["photographs"].items()
    ]
    text = f"""Best model by validation PSNR: {best}, {psnr[best] - psnr["bicubic"]:+.2f} dB against
        bicubic on the held-out photographs ({min(gains):+.2f} to {max(gains):+.2f}). The
        auto-encoder, whose code has to carry the whole image, is at
        {psnr["auto-encoder"] - psnr["bilinear"]:+.2f} dB against bilinear; the same network with
        skip connections, the U-Net, at {psnr["U-Net"] - psnr["bilinear"]:+.2f}."""
    return textwrap.fill(" ".join(text.split()), 100)


def format_table(rows: dict[str, dict]) -> str:
    """An aligned Markdown table of the rows."""
    table = [["", "PSNR, dB", "SSIM", "validation PSNR, dB", "training, s"]]
    for name, row in rows.items():
        numbers = [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['validation_psnr']:.2f}"]
        table.append([name, *numbers, f"{row['seconds']:.0f}" if "seconds" in row else ""])
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]])
    lines = []
    for name, *numbers in table:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("| " + " | ".join([name.ljust(widths[0]), *cells]) + " |")
    return "\n".join(lines)


def draw_crops(
    path: Path,
    photographs: dict[str, np.ndarray],
    enlarged: dict[str, dict[str, np.ndarray]],
    rows: dict[str, dict],
) -> None:
    """Saves a grid: a row for each held-out photograph, a column for truth and each method."""
    from matplotlib.figure import Figure

    columns = {"truth": photographs, **enlarged}
    figure = Figure(figsize=(2 * len(columns), 2.2 * len(HELD_OUT)), layout="constrained")
    axes = figure.subplots(len(HELD_OUT), len(columns))
    for line, (photograph, (y, x)) in zip(axes, HELD_OUT.items(), strict=True):
        for axis, (method, images) in zip(line, columns.items(), strict=True):
            axis.imshow(images[photograph][y : y + CROP, x : x + CROP], interpolation="nearest")
            title = method
            if method in rows:
                title += f", {rows[method]['photographs'][photograph]['psnr']:.2f} dB"
            axis.set_title(title, fontsize=9)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--downscaling",
        choices=[*DOWNSCALINGS, "both"],
        default="both",
        help="what makes photographs small",
    )
    parser.add_argument("--output", type=Path, default=Path("super_resolve"), help="a folder")
    for option, default, words in (
        ("epochs", 10, "of each model"),
        ("steps", 60, "of an epoch, and three times as many of the residual model"),
        ("batch", 8, "patches of a step"),
        ("patch", 24, "height and width of a small patch, in pixels"),
        ("filters", 32, "of a residual block; half of it at the first level of the others"),
        ("blocks", 8, "residual blocks"),
    ):
        parser.add_argument(f"--{option}", type=int, default=default, help=words)
    parser.add_argument("--seed", type=int, default=0, help="of weights and training batches")
    parser.add_argument("--smoke", action="store_true", help="a tiny run of one epoch")
    arguments = parser.parse_args()
    if arguments.smoke:
        tiny = {"epochs": 1, "steps": 2, "batch": 2, "patch": 8, "filters": 4, "blocks": 1}
        vars(arguments).update(tiny)
    for option in ("epochs", "steps", "batch", "patch", "filters", "blocks"):
        least = 2 if option == "filters" else 1
        if vars(arguments)[option] < least:
            parser.error(f"'--{option}' must be at least {least}, got {vars(arguments)[option]}")
    both = arguments.downscaling == "both"
    arguments.downscaling = list(DOWNSCALINGS) if both else [arguments.downscaling]
    if arguments.patch > LARGEST_PATCH:
        parser.error(f"'--patch' must be at most {LARGEST_PATCH}, got {arguments.patch}")
    for package in ("skimage", "sklearn", "matplotlib"):  # now, not when the training is over
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'{package} is missing: pip install "tfseg_ops[demo]"')
    return arguments


def main() -> None:
    """Trains the models, compares all methods and writes the results."""
    arguments = parse_arguments()
    photographs = {name: load_photograph(name) for name in (*TRAINING, VALIDATION, *HELD_OUT)}
    tables, parts = {}, []
    arguments.output.mkdir(parents=True, exist_ok=True)
    for downscaling in arguments.downscaling:
        rows, enlarged = compare(photographs, downscaling, arguments)
        tables[downscaling] = rows
        parts += [f"Photographs made small: {downscaling}", format_table(rows), explain(rows)]
        draw_crops(arguments.output / f"crops_{downscaling}.png", photographs, enlarged, rows)

    report = "\n\n".join(parts) + "\n"
    print(f"\n{report}")
    (arguments.output / "results.json").write_text(json.dumps(tables, indent=2) + "\n")
    (arguments.output / "results.md").write_text(report)
    print(f"Written to {arguments.output}: crops_*.png, results.json, results.md")


if __name__ == "__main__":
    main()
