"""ANME against Eq. 1 written out."""

import numpy as np
import pytest

from kprpe_jax.evaluation.alignment_strength import alignment_nme
from kprpe_jax.evaluation.evaluators.aligned_recognition import rank_1


def test_equals_the_equation(rng):
    faces = rng.random((5, 4, 2)) * 100
    d = np.mean([np.sqrt(((f[2] - f[0]) ** 2).sum()) for f in faces])
    total = 0.0
    for s in range(4):
        mean = sum(f[s] for f in faces) / 5
        for face in faces:
            total += np.sqrt(((face[s] - mean) ** 2).sum()) / d
    assert alignment_nme(faces, eyes=(0, 2)) == pytest.approx(total / 20)


def test_invariants(rng):
    faces = rng.random((6, 5, 2))
    value = alignment_nme(faces, eyes=(0, 1))
    assert alignment_nme(3 * faces + 7, eyes=(0, 1)) == pytest.approx(value)
    assert alignment_nme(faces[:1], eyes=(0, 1)) == 0  # one face is aligned with itself
    same = np.tile(faces[:1], (4, 1, 1))
    assert alignment_nme(same, eyes=(0, 1)) == pytest.approx(0, abs=1e-12)
    closer = faces.mean(0) + 0.5 * (faces - faces.mean(0))
    assert alignment_nme(closer, eyes=(0, 1)) < value


def test_faults_are_one_sentence(rng):
    with pytest.raises(ValueError, match=r"of at least one face; got \(0, 5, 2\)"):
        alignment_nme(np.zeros((0, 5, 2)), eyes=(0, 1))
    faces = rng.random((3, 5, 2))
    with pytest.raises(ValueError, match="they coincide in every face"):
        alignment_nme(faces, eyes=(1, 1))
    faces[2, 0, 0] = np.inf
    with pytest.raises(ValueError, match="got others in 1 faces, such as 2;"):
        alignment_nme(faces, eyes=(0, 1))


def test_rank_1_has_one_gallery_image_a_person():
    embeddings = np.array([[1, 0], [0, 1], [2, 0.1], [1, 2], [0, 3], [0, 0]], float)
    labels = np.array([7, 9, 7, 7, 9, 9])
    # Probes: row 2 right, row 3 wrong (nearer to 9), row 4 right; row 5 is a tie, which
    # the first of the gallery wins.
    assert rank_1(embeddings, labels) == 0.5
    strangers = np.concatenate([embeddings, 9 * embeddings[:2]])
    assert rank_1(strangers, np.append(labels, [-1, -1])) == 0.5
    with pytest.raises(ValueError, match="someone must have two images; got 2 images"):
        rank_1(embeddings[:2], labels[:2])
