import jax
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from kprpe_jax.backbones.vit import ViT
from kprpe_jax.report.offsets import plot_offsets
from tests.quick import quick_jit

GRID = (2, 3)
KEYPOINTS = np.array([[[0.2, 0.3], [0.8, 0.6]], [[0.1, 0.1], [0.4, 0.9]]], np.float32)
IMAGES = np.zeros((2, 16, 24, 3), np.float32)


@pytest.fixture(scope="module")
def bias():
    """Offsets of a tiny network whose tables are not zero."""
    vit = ViT(
        image_size=(16, 24), patch_size=8, width=8, depth=2, num_heads=2,
        mlp_ratio=1.0, output_dim=4, position_options={"num_keypoints": 2},
    )  # fmt: skip

    @quick_jit
    def run():
        shapes = jax.eval_shape(vit.init, jax.random.key(0), IMAGES, KEYPOINTS)
        leaves, treedef = jax.tree.flatten(shapes)
        rngs = jax.random.split(jax.random.key(1), len(leaves))
        drawn = [jax.random.normal(r, x.shape) for r, x in zip(rngs, leaves)]  # noqa: B905
        return vit.apply(jax.tree.unflatten(treedef, drawn), KEYPOINTS, method="bias")

    return jax.device_get(run())


@pytest.fixture
def shown(monkeypatch):
    """Catch what `imshow` gets, in order."""
    caught = []
    imshow = plt.Axes.imshow
    monkeypatch.setattr(
        plt.Axes,
        "imshow",
        lambda axes, x, *args, **kwargs: (
            caught.append(np.asarray(x)) or imshow(axes, x, *args, **kwargs)
        ),
    )
    return caught


def test_draws_the_offsets_of_the_query(tmp_path, bias, shown):
    assert [b.shape for b in bias] == [(2, 2, 6, 6)] * 2
    options = dict(grid=GRID, query=(1, 2), layers=(0, 1), heads=(0, 1))
    plot_offsets(bias, IMAGES, KEYPOINTS, tmp_path / "a.png", **options)
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert 300 < pixels.shape[0] < 1000
    assert 800 < pixels.shape[1] < 2000
    assert len(shown) == 2 * (1 + 4)
    for image in range(2):
        row = shown[5 * image : 5 * image + 5]
        np.testing.assert_array_equal(row[0], np.full((16, 24, 3), 0.5))
        pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
        for (layer, head), offsets in zip(pairs, row[1:], strict=True):
            for y in range(2):
                for x in range(3):
                    expected = bias[layer][image, head, 5, 3 * y + x]
                    assert offsets[y, x] == expected


def test_bias_without_keypoints_is_the_same_for_every_image_and_head(tmp_path, shown):
    bias = [np.arange(36.0).reshape(1, 1, 6, 6)]
    options = dict(grid=GRID, query=(0, 1), layers=(0,), heads=(1,))
    plot_offsets(bias, IMAGES, KEYPOINTS, tmp_path / "a.png", **options)
    np.testing.assert_array_equal(shown[1], [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(shown[3], shown[1])


@pytest.mark.parametrize("query", [(2, 0), (0, 3), (-1, 0)])
def test_a_query_outside_the_grid(tmp_path, query):
    with pytest.raises(ValueError, match=r"query must lie on the 2 x 3 grid; got \("):
        plot_offsets(
            [np.zeros((1, 1, 6, 6))], IMAGES, KEYPOINTS, tmp_path / "a.png",
            grid=GRID, query=query, layers=(0,),
        )  # fmt: skip
    assert not any(tmp_path.iterdir())
