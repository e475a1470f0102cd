"""Steps from detection to alignment, with a network that reads keypoints alone."""

import numpy as np

from kprpe_jax.data.aligned_faces import detection_matrix
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.evaluation.evaluators import partly_aligned
from kprpe_jax.evaluation.pairs import sample_pairs
from kprpe_jax.geometry.point_fits import similarity_matrix
from kprpe_jax.geometry.template import face_template
from tests.data.importers.sources import encode
from tests.evaluation.functions import face_data, function_recognizer
from tests.tasks.tiny import one_device

SIZE, PEOPLE, IMAGES = (16, 16), 6, 3


class Rows(list):
    def __getitems__(self, rows):
        return [self[row] for row in rows]


def photos(rng):
    """People are the shape of their points; photos are turned, scaled and shifted."""
    shapes = face_template((60, 60)) + rng.normal(0, 2.5, (PEOPLE, 5, 2))
    rows, points = Rows(), []
    for number in range(PEOPLE * IMAGES):
        angle, scale = rng.uniform(-0.8, 0.8), rng.uniform(0.5, 1.0)
        turn = scale * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        moved = (shapes[number // IMAGES] - 30) @ turn.T + 30 + rng.uniform(-8, 8, 2)
        points.append(moved.astype(np.float32))
        rows.append(
            {
                "image": np.array(encode(np.zeros((60, 60, 3), np.uint8), "PNG")),
                "label": np.int32(number // IMAGES),
                "key": np.array(str(number).encode()),
                "keypoints": points[-1] / 60,
                "has_keypoints": np.bool_(True),
            }
        )
    return rows, np.array(points)


def embed(variables, images, keypoints):
    return (keypoints - face_template(SIZE) / 16).reshape(len(images), -1)


def test_accuracy_at_every_step(rng, monkeypatch):
    rows, points = photos(rng)
    faces = FaceRows(rows, image_size=SIZE)
    pairs = sample_pairs(faces.labels(), count=40, seed=0)
    shares = (0.0, 0.6, 1.0)
    monkeypatch.setattr(partly_aligned, "_open_photos", lambda *_: (faces, pairs))
    evaluate = partly_aligned.build(
        face_data(size=SIZE), dataset="photos", shares=shares, mirror="none"
    )
    results = evaluate(function_recognizer(embed, SIZE), one_device())
    assert results.pop("pairs") == 40
    for share, got in zip(shares, results.values(), strict=True):
        x = []
        for p in points:
            detected = detection_matrix(p, SIZE)
            aligned = similarity_matrix(p, face_template(SIZE))
            matrix = (1 - share) * detected + share * aligned
            moved = p @ matrix[:, :2].T + matrix[:, 2]
            x.append(((moved - face_template(SIZE)) / 16).ravel())
        x = np.array(x) / np.linalg.norm(x, axis=1, keepdims=True)
        score = (x[pairs.first] * x[pairs.second]).sum(1)
        right = []
        for fold in np.array_split(np.arange(40), 10):
            rest = np.setdiff1d(np.arange(40), fold)
            cuts = np.arange(0, 4, 0.01)  # of the squared distance, as published
            accuracy = [
                ((2 - 2 * score[rest] < t) == pairs.same[rest]).mean() for t in cuts
            ]
            cut = cuts[np.argmax(accuracy)]
            right.append(((2 - 2 * score[fold] < cut) == pairs.same[fold]).mean())
        np.testing.assert_allclose(got, np.mean(right), atol=1e-6)
    assert list(results) == ["0", "0.6", "1"]
    assert results["1"] > results["0"] + 0.1  # the shape shows when all lie alike
