"""The t-SNE picture: neighbours stay together, the same seed gives it again, errors are named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tfseg_ops.visualize import tsne_plot

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

LABELS = np.repeat([3, 5, 8], 12)
# Three groups far apart, in the shape of convolutional codes.
CODES = np.random.default_rng(0).normal(size=[36, 2, 2, 3]) + 20 * LABELS[:, None, None, None]


def test_groups_of_codes_are_groups_in_the_plane() -> None:
    positions, _ = tsne_plot(CODES, perplexity=5)
    assert positions.shape == (36, 2)
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(distances, np.inf)
    # One point may be caught on the wrong side at the start.
    assert np.mean(LABELS[distances.argmin(1)] == LABELS) > 0.9


def test_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    codes = CODES[:, 0, 0, :1]  # of one number: here the seed draws the first positions
    first, _ = tsne_plot(codes, seed=1)
    np.testing.assert_array_equal(first, tsne_plot(codes, seed=1)[0])
    assert not np.array_equal(first, tsne_plot(codes, seed=2)[0])


def test_each_label_has_its_points_and_a_place_in_the_legend() -> None:
    names = np.array(["three", "five", "eight"])[np.searchsorted([3, 5, 8], LABELS)]
    positions, figure = tsne_plot(CODES, names, title="codes")
    (axes,) = figure.axes
    assert axes.get_title() == "codes"
    names_shown = axes.get_legend().get_texts()
    assert [text.get_text() for text in names_shown] == ["eight", "five", "three"]
    for name, points in zip(["eight", "five", "three"], axes.collections, strict=True):
        np.testing.assert_array_equal(points.get_offsets(), positions[names == name])
    assert len({tuple(points.get_facecolor()[0]) for points in axes.collections}) == 3


def test_many_numbers_are_colours_on_a_scale() -> None:
    _, figure = tsne_plot(CODES, np.arange(36) / 7)
    axes, scale = figure.axes
    np.testing.assert_array_equal(axes.collections[0].get_array(), np.arange(36) / 7)
    assert scale.get_ylim() == (0, 5)
    assert axes.get_legend() is None


@pytest.mark.parametrize("name", ["codes.png", "new/folder/codes.png", "codes"])
def test_png_is_written_where_a_path_is_given(tmp_path: Path, name: str) -> None:
    tsne_plot(CODES[:5], path=tmp_path / name)
    (file,) = (path for path in tmp_path.rglob("codes*"))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_pyplot_is_left_alone() -> None:
    import matplotlib.pyplot

    tsne_plot(CODES[:5])
    assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize("count", [4, 5, 8])
def test_perplexity_is_taken_down_for_few_codes(count: int) -> None:
    assert np.isfinite(tsne_plot(CODES[:count], perplexity=30)[0]).all()


def test_equal_codes_do_not_fail() -> None:
    assert np.isfinite(tsne_plot(np.ones((6, 3)))[0]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"codes": CODES[:3]},
            r"'codes' must have shape \[points, ...\] with at least 4 points, got \[3, 2, 2, 3\]",
        ),
        ({"codes": CODES[:, 0, 0, 0]}, r"'codes' must have shape .*, got \[36\]"),
        ({"codes": CODES[:, :0]}, r"'codes' must have shape .*, got \[36, 0, 2, 3\]"),
        ({"codes": np.where(CODES.min() < CODES, CODES, np.nan)}, "'codes' must be finite"),
        ({"labels": LABELS[:-1]}, r"'labels' must have shape \[36\], got \[35\]"),
        ({"labels": np.eye(36)}, r"'labels' must have shape \[36\], got \[36, 36\]"),
        ({"labels": [f"{i}" for i in range(36)]}, "'labels' must be at most 20 or numbers, got 36"),
        ({"perplexity": 0}, "'perplexity' must be positive and finite, got 0"),
        ({"seed": -1}, r"'seed' must lie in \[0, 4294967295\], got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"tsne_plot: {message}"):
        tsne_plot(**{"codes": CODES, **arguments})


@pytest.mark.parametrize("package", ["sklearn.manifold", "matplotlib.figure"])
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        tsne_plot(CODES)
