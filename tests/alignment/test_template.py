"""Templates of faces, and those of other runs."""

import numpy as np
import pytest

from kprpe_jax.alignment.template import frontal_template, read_template

FACE = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.2, 0.9]])


def test_only_frontal_faces_count():
    turned = FACE + np.float32([[0, 0], [0, 0], [0.06, 0], [0, 0]])  # 0.15 of 0.4
    template = frontal_template(np.stack([FACE, FACE + 0.1, turned]), (0, 1, 2))
    np.testing.assert_allclose(template, FACE + 0.05, atol=1e-6)
    # In the plane they may be turned as they like.
    rotated = (FACE - 0.5) @ np.float32([[0, 1], [-1, 0]]) + 0.5
    template = frontal_template(np.stack([rotated, turned]), (0, 1, 2))
    np.testing.assert_allclose(template, rotated, atol=1e-6)
    # None is frontal: better all than none.
    np.testing.assert_allclose(frontal_template(turned[None], (0, 1, 2)), turned)


def test_eyes_in_one_place_are_no_division_by_zero():
    flat = np.zeros((1, 4, 2), np.float32)
    assert np.isfinite(frontal_template(flat, (0, 1, 2))).all()
    with pytest.raises(ValueError, match=r"at least one face; got \(0, 4, 2\)"):
        frontal_template(np.zeros((0, 4, 2)), (0, 1, 2))


def test_a_template_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "template.npz"
    np.savez(path, template=FACE)
    np.testing.assert_array_equal(read_template(path, 4), FACE)
    with pytest.raises(ValueError, match=r"and \[5, 2\] .*; got \(4, 2\)"):
        read_template(path, 5)
    np.savez(path, template=FACE * np.nan)
    with pytest.raises(ValueError, match="must be finite"):
        read_template(path, 4)
    np.savez(path, points=FACE)
    with pytest.raises(ValueError, match="must hold an array 'template'; got"):
        read_template(path, 4)
    with pytest.raises(ValueError, match="No such file"):
        read_template(tmp_path / "absent.npz", 4)
