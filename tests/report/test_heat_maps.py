import numpy as np
import pytest

from kprpe_jax.report.heat_maps import framed, heat_map


def test_heat_lies_where_the_weight_is():
    image = np.full((28, 24, 3), 100, np.uint8)
    weights = np.zeros((7, 6))
    weights[0, 5] = 3.0
    got = heat_map(image, weights.ravel(), (7, 6))
    assert got.shape == image.shape
    red, blue = got[..., 0].astype(int), got[..., 2].astype(int)
    assert red[0, -1] > 100 > blue[0, -1]  # the corner itself: half dark red
    assert (red[14:] < 60).all()
    assert (blue[14:] > 100).all()
    # Half of it is the photo.
    assert (heat_map(image, weights.ravel(), (7, 6), share=0.0) == image).all()
    assert (heat_map(image, np.ones(42), (7, 6)) == got[-1, 0]).all()
    for bad in (np.ones(41), np.full(42, np.nan)):
        with pytest.raises(ValueError, match=r"42 finite numbers, .* of \(7, 6\)"):
            heat_map(image, bad, (7, 6))


def test_frame(rng):
    image = rng.integers(0, 256, (8, 6, 3), np.uint8)
    got = framed(image, (1, 2, 3), 2)
    np.testing.assert_array_equal(got[2:-2, 2:-2], image[2:-2, 2:-2])
    assert (got[:2] == [1, 2, 3]).all()
    assert (got[:, -2:] == [1, 2, 3]).all()
