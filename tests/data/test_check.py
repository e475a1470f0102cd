"""Each wrong batch gets its sentence; right ones pass."""

import numpy as np
import pytest

from kprpe_jax.data.check import check_batch

EXPECTED = {"num_classes": 10, "image_shape": (4, 6, 1), "num_keypoints": 5}


def good_batch() -> dict[str, np.ndarray]:
    return {
        "image": np.zeros((8, 4, 6, 1), np.uint8),
        "label": np.arange(8, dtype=np.int32),
        "keypoints": np.full((8, 5, 2), 0.5, np.float32),
        "id": np.arange(100, 108, dtype=np.int32),
    }


def test_good_batches_pass_with_and_without_ids_and_at_the_limits():
    batch = good_batch()
    batch["label"][:2] = 0, 9
    batch["keypoints"][0, 0] = -1, 2
    check_batch(batch, **EXPECTED)
    del batch["id"]
    check_batch(batch, **EXPECTED)


def put(key, index, value):
    def damage(batch):
        batch[key][index] = value

    return damage


def replace(key, function):
    def damage(batch):
        batch[key] = function(batch[key])

    return damage


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda b: b.pop("keypoints"), r"\['keypoints'\] missing, got \['id', 'image'"),
        (
            replace("image", lambda x: x[:, :3]),
            r"uint8 \[b, 4, 6, 1\]; got .*8, 3, 6, 1",
        ),
        (replace("image", lambda x: x.repeat(3, -1)), r"got uint8 \[8, 4, 6, 3\]"),
        (replace("image", lambda x: x / 255), r"got float64 \[8, 4, 6, 1\]"),
        (replace("keypoints", lambda x: x[:, :4]), r"\[8, 5, 2\]; got \[8, 4, 2\]"),
        (replace("keypoints", lambda x: x[:4]), r"\[8, 5, 2\]; got \[4, 5, 2\]"),
        (replace("label", lambda x: x[:, None]), r"integers \[8\]; got int32 \[8, 1\]"),
        (replace("label", lambda x: x / 1), r"integers \[8\]; got float64 \[8\]"),
        (put("label", 3, 10), r"labels must be 0\.\.9; got \[10\] in .* id \[103\]"),
        (put("label", 2, -1), r"labels must be 0\.\.9; got \[-1\] in .* id \[102\]"),
        (put("label", slice(None), 77), r"\[77, 77, 77, 77, 77, \.\.\. 8 in all\]"),
        (put("keypoints", (4, 1, 0), np.nan), r"finite .*got \[nan\] in .* id \[104\]"),
        (put("keypoints", (5, 1, 0), np.inf), r"finite .*got \[inf\] in .* id \[105\]"),
        (put("keypoints", (6, 4, 1), 2.1), r"\[-1, 2\].*got \[2\.1\] in .* id \[106\]"),
        (put("keypoints", (7, 0, 1), -1.1), r"got \[-1\.1\] in .* id \[107\]"),
    ],
)
def test_wrong_batches_are_described_in_one_sentence(damage, match):
    batch = good_batch()
    damage(batch)
    with pytest.raises(ValueError, match=match) as e:
        check_batch(batch, **EXPECTED)
    assert "\n" not in str(e.value)
