"""The contact sheet shows every image, point and title in its place."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kprpe_jax.report import contact_sheet
from kprpe_jax.report.contact_sheet import plot_contact_sheet


def test_images_points_and_titles_are_in_their_places(tmp_path, rng, monkeypatch):
    images = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    points = rng.uniform(size=(2, 3, 4, 2))
    points[0] = np.nan
    kept = []
    monkeypatch.setattr(contact_sheet.plt, "close", kept.append)
    plot_contact_sheet(
        images,
        tmp_path / "sheet.png",
        points=points,
        row_titles=["a", "b"],
        column_titles=["x", "y", "z"],
    )
    axes = np.reshape(kept[0].axes, (2, 3))
    for place, axis in np.ndenumerate(axes):
        np.testing.assert_array_equal(axis.images[0].get_array(), images[place])
        drawn = np.ma.getdata(axis.collections[0].get_offsets())
        np.testing.assert_array_equal(drawn, points[place])
    assert [axis.get_title() for axis in axes[0]] == ["x", "y", "z"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["a", "b"]
    monkeypatch.undo()
    plt.close(kept[0])
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("images", "more", "match"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), {}, r"uint8 \[R, C, H, W, 3\]; got uint8"),
        (np.zeros((1, 2, 8, 8, 3)), {}, "got float64"),
        (
            np.zeros((1, 2, 8, 8, 3), np.uint8),
            {"points": np.zeros((2, 1, 5, 2))},
            r"points must be \[1, 2, K, 2\]",
        ),
        (
            np.zeros((1, 2, 8, 8, 3), np.uint8),
            {"row_titles": ["a", "b"]},
            "row_titles must be none or 1; got 2",
        ),
    ],
)
def test_bad_arguments(tmp_path, images, more, match):
    with pytest.raises(ValueError, match=match):
        plot_contact_sheet(images, tmp_path / "sheet.png", **more)
    assert not list(tmp_path.iterdir())
