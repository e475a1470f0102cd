import numpy as np
import pytest

from kprpe_jax.report.landmarks import plot_landmarks


def test_draws_photos_of_several_sizes_with_and_without_points(tmp_path, rng):
    photos = [rng.uniform(-1, 1, size=(h, w, 3)) for h, w in ((20, 30), (40, 10))]
    path = tmp_path / "faces.png"
    points = rng.uniform(size=(7, 2))
    plot_landmarks([(photos[0], points), (photos[1], None)], path, columns=1)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert np.isfinite(points).all()
    with pytest.raises(ValueError, match="there must be photos; got none"):
        plot_landmarks([], path)
