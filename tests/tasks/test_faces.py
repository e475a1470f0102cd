"""Masks that faces wear in training; landmarks that are missing go along."""

import io

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.configs import fine_tune_masked
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import Record, RecordSource
from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.landmarks import MIRROR, landmarks
from kprpe_jax.geometry.template import FACE_POINTS
from kprpe_jax.tasks import faces
from tests.quick import quick_jit
from tests.tasks import synthetic_people, tiny


def test_a_share_of_the_faces_with_keypoints_wears_masks(rng):
    count = 64
    batch = {
        "image": rng.integers(0, 256, (count, 28, 28, 3)).astype(np.uint8),
        "keypoints": np.tile(np.float32(FACE_POINTS), (count, 1, 1)),
        "has_keypoints": np.arange(count) % 4 > 0,
    }
    wear = quick_jit(faces._wear_masks)
    plain = batch["image"] / np.float32(127.5) - 1
    for share, low, high in ((0.0, 0, 0), (0.5, 10, 38), (1.0, 48, 48)):
        got = np.asarray(wear(jax.random.key(1), batch, share))
        changed = np.abs(got - plain).max((1, 2, 3)) > 1e-5
        assert low <= changed.sum() <= high
        assert not changed[::4].any()
        np.testing.assert_allclose(got[:, :12], plain[:, :12], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("augmentation.mask_prob", 1.5), ("data.num_keypoints", 68)],
)
def test_masks_that_cannot_be_drawn(field, value):
    config = fine_tune_masked.get_config("mobilefacenet")
    config.augmentation.changes.spatial.flip_prob = 0.0
    config.update_from_flattened_dict({field: value})
    with pytest.raises(
        ValueError, match=r"mask_prob must lie in 0\.\.1, and be 0 wher"
    ):
        faces.augmentation(config, tiny.one_device())


def test_missing_landmarks_go_along_with_a_flip(rng):
    config = synthetic_people.make_config()
    with config.unlocked():
        config.augmentation.changes = ConfigDict(dict(spatial=dict(flip_prob=1.0)))
    mask = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    batch = {
        "image": rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8),
        "keypoints": rng.random((2, 5, 2)).astype(np.float32),
        "keypoint_mask": mask,
    }
    augmented = faces.augmentation(config, tiny.one_device())
    _, points = quick_jit(augmented)(batch, jax.random.key(0))
    np.testing.assert_array_equal(np.isfinite(points[..., 0]), mask[:, FACE_MIRROR])
    want = batch["keypoints"][:, FACE_MIRROR] * (-1, 1) + (1, 0)
    known = mask[:, FACE_MIRROR]
    np.testing.assert_allclose(np.asarray(points)[known], want[known], atol=1e-6)


def test_flips_by_what_the_training_images_show(tmp_path):
    """29 landmarks, whose order is known to nobody."""
    chosen = np.union1d(np.arange(0, 68, 5), MIRROR[np.arange(0, 68, 5)])
    face = np.asarray(landmarks(Identity()))[chosen] / 112 + (0.5, 0)
    points = face + np.random.default_rng(0).normal(0, 0.01, (20, *face.shape))
    points = points.astype(np.float32)
    points[::3, 4] = np.nan
    image = io.BytesIO()
    Image.new("RGB", (32, 32)).save(image, "PNG")
    records = [Record(str(i), image.getvalue(), i) for i in range(20)]
    source = RecordSource(lambda start: iter(records[start:]), state="s")
    table = Landmarks({str(i): i for i in range(20)}, points, "fraction")
    where = dict(name="dense", data_dir=tmp_path, origin={})
    write_dataset(source, landmarks=table, **where)
    config = synthetic_people.make_config()
    fields = {"dir": str(tmp_path), "name": "dense", "points": "landmarks"}
    config.data.update(fields | {"num_keypoints": len(chosen)})
    order = np.array(faces._seen_mirror(config))
    np.testing.assert_array_equal(chosen[order], MIRROR[chosen])
    read = faces.open_people(config, "train")
    assert not read.has_keypoints()[::3].any()
    assert read[0]["has_keypoints"]
    assert read[0]["keypoint_mask"].sum() == len(chosen) - 1
    needing = faces.open_people(config, "train", needs_keypoints=True)
    assert len(needing[1]["keypoints"]) == len(chosen)
    with pytest.raises(ValueError, match="every image must have keypoints where"):
        needing[0]
