"""LFW: the list, the archive, and the whole protocol with real weights (slow)."""

import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.evaluation.lfw import (
    LfwPairs,
    embed_mirrored,
    lfw_result,
    read_archive,
    read_lfw_pairs,
)
from kprpe_jax.interop.mobilefacenet import import_weights, published_mobilefacenet

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ARCHIVE = DATA / "lfw" / "lfw_df_aligned112.tar.gz"

LIST = """2\t1
Ann\t1\t2
Ann\t1\tBob\t3
Bob\t3\t12
Cid\t1\tBob\t12
"""


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG")
    return out.getvalue()


def write_archive(path, images):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_list(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(LIST)
    pairs = read_lfw_pairs(path)
    assert pairs.names == [
        "Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0003.jpg",
        "Bob/Bob_0012.jpg", "Cid/Cid_0001.jpg",
    ]  # fmt: skip
    np.testing.assert_array_equal(pairs.first, [0, 0, 2, 4])
    np.testing.assert_array_equal(pairs.second, [1, 2, 3, 3])
    np.testing.assert_array_equal(pairs.same, [True, False, True, False])
    assert pairs.num_folds == 2


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("2\t1\n", "2\t2\n", "must have 8 pairs as its first line says; got 4"),
        ("Bob\t3\t12", "Bob\tx\t12", "line 4 of .* got 'Bob x 12'; repair"),
        ("Bob\t3\t12", "Bob\t3", "line 4 of .* got 'Bob 3'"),
    ],
)
def test_bad_lists(tmp_path, old, new, match):
    path = tmp_path / "pairs.txt"
    path.write_text(LIST.replace(old, new))
    with pytest.raises(ValueError, match=match):
        read_lfw_pairs(path)


def test_archive(tmp_path):
    path = tmp_path / "faces.tar.gz"
    write_archive(path, {"./A/A_0001.jpg": b"one", "B/B_0001.jpg": b"two", "C": b"x"})
    names = ["B/B_0001.jpg", "A/A_0001.jpg"]
    assert read_archive(path, names) == [b"two", b"one"]
    with pytest.raises(
        ValueError, match="all 3 images .* none for 1, such as D/D_0001"
    ):
        read_archive(path, [*names, "D/D_0001.jpg"])


def test_images_are_cut_from_the_middle_scaled_and_mirrored(rng):
    images = rng.integers(0, 256, (5, 6, 8, 3), np.uint8)
    embed = lambda x: x[:, 0, :, 0]  # noqa: E731
    plain, mirrored = embed_mirrored(
        embed, [png(image) for image in images], image_size=(4, 6), batch_size=2
    )
    want = images[:, 1, 1:7, 0] / 127.5 - 1
    np.testing.assert_allclose(plain, want, atol=1e-6)
    np.testing.assert_allclose(mirrored, want[:, ::-1], atol=1e-6)


def test_result_of_separable_people(rng):
    """Twenty people, four folds; all right, whatever the mean is."""
    centers = rng.normal(size=(20, 16))
    embeddings = np.repeat(centers, 2, 0) + rng.normal(0, 0.005, (40, 16)) + 3
    embeddings = embeddings.astype(np.float32)
    first = np.arange(0, 40, 2)
    pairs = LfwPairs(
        [""] * 40,
        np.repeat(first, 2),
        np.stack([first + 1, np.roll(first, 1)], 1).ravel(),
        np.tile([True, False], 20),
        4,
    )
    result = lfw_result(embeddings, pairs)
    assert result.accuracy.mean == result.centered.mean == result.auc == 1
    assert result.eer == 0
    np.testing.assert_array_equal(result.tar.tar, 1)


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"no archive at {ARCHIVE}")
def test_whole_protocol(record_property):
    """The figures that are known of these weights and this archive, to 0.1 points."""
    pairs = read_lfw_pairs(DATA / "lfw" / "pairs.txt")
    assert (len(pairs.names), len(pairs.same)) == (7701, 6000)
    model = published_mobilefacenet()
    variables = import_weights(model, DATA / "weights" / "mobilefacenet.npz")
    encoded = read_archive(ARCHIVE, pairs.names)
    start = time.perf_counter()
    parts = embed_mirrored(
        lambda x: model.apply(variables, x), encoded, image_size=model.image_size
    )
    record_property("photos_per_second", len(encoded) / (time.perf_counter() - start))
    result = lfw_result(np.concatenate(parts, -1), pairs)
    record_property("result", str(result))
    assert 100 * result.centered.mean == pytest.approx(98.97, abs=0.1)
    assert 100 * result.accuracy.mean == pytest.approx(98.82, abs=0.1)
    assert np.isfinite(result.tar.threshold).all()
