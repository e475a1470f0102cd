"""Synthetic faces: the same anywhere, alike for one person, covered where they say."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data.synthetic.faces import render_faces
from kprpe_jax.data.synthetic.nuisance import Severity, Shot, quality
from kprpe_jax.data.synthetic.sequences import render_sequence

PEOPLE = np.arange(16)


@pytest.mark.slow
def test_form(render, ordinary):
    faces = render(PEOPLE, 1, ordinary)
    assert faces.images.shape == (16, 112, 112, 3)
    assert faces.images.dtype == np.uint8
    assert faces.keypoints.shape == (16, 5, 2)
    assert faces.landmarks.shape == (16, 84, 2)
    np.testing.assert_array_equal(faces.identity, PEOPLE)
    assert ((faces.quality >= 0) & (faces.quality <= 1)).all()
    assert all(np.isfinite(field).all() for field in faces.shot)


@pytest.mark.slow
def test_batch_composition_does_not_matter(render, ordinary):
    faces = render(PEOPLE, 5, ordinary)
    order = np.array([7, 3, 3, 0, *range(4, 16)])
    shuffled = render(order, 5, ordinary)
    np.testing.assert_array_equal(shuffled.images, faces.images[order])
    np.testing.assert_array_equal(shuffled.landmarks, faces.landmarks[order])
    # A clean face is the same alone and among damaged ones.
    clean = render(PEOPLE, 0)
    mixed = render(PEOPLE, 0, noise=np.where(PEOPLE < 8, 0.1, 0))
    np.testing.assert_array_equal(mixed.images[8:], clean.images[8:])
    assert (mixed.images[:8] != clean.images[:8]).mean() > 0.5


@pytest.mark.slow
def test_seed_identity_and_index_each_matter(render, ordinary):
    images = render(PEOPLE, 0, ordinary).images
    for other in (
        render(PEOPLE + 100, 0, ordinary),
        render(PEOPLE, 1, ordinary),
        render(PEOPLE, 0, ordinary, seed=1),
    ):
        assert (np.abs(other.images - images.astype(int)).mean((1, 2, 3)) > 3).all()


@pytest.mark.slow
def test_same_people_are_nearer_in_plain_pixels(render):
    light = [np.float32(0.15)] * len(Severity._fields)
    a, b = (render(PEOPLE, i, light).images.astype(float) for i in (0, 1))
    distance = np.abs(a[:, None] - b[None]).mean((2, 3, 4))
    same = np.diag(distance)
    assert same.mean() < 0.7 * distance[~np.eye(16, dtype=bool)].mean()
    assert np.mean(distance.argmin(1) == PEOPLE) > 0.7
    still = [render(PEOPLE, i).images for i in (0, 1)]
    np.testing.assert_array_equal(*still)  # severity 0


@pytest.mark.slow
def test_mask_and_sunglasses_cover_what_they_say(render):
    bare = render(PEOPLE, 0)
    covers = {"mask": [33, 51, 57, 66, 8], "sunglasses": [37, 39, 41, 81, 82]}
    spares = {"mask": [19, 24, 81, 82, 37], "sunglasses": [57, 66, 33, 8, 74]}
    for name, covered in covers.items():
        worn = render(PEOPLE, 0, **{name: 1.0}, mask_tone=0.5)
        changed = np.abs(worn.images.astype(int) - bare.images).sum(-1) > 0
        x, y = np.moveaxis((bare.landmarks * 112 - [0, 0.8]).clip(0, 111), -1, 0)
        at = changed[PEOPLE[:, None], y.astype(int), x.astype(int)]
        assert at[:, covered].all(), name
        assert not at[:, spares[name]].any(), name


def test_crop_blackens_its_share(render):
    faces = render(PEOPLE, 0, crop_x=-0.25, crop_y=0.5)
    assert not faces.images[:, :, :28].any()
    assert not faces.images[:, 56:].any()
    assert faces.images[:, :56, 28:].any((1, 2, 3)).all()


def test_blur_and_few_pixels_take_detail_and_noise_adds_it(render):
    def detail(**change):
        images = render(PEOPLE, 0, **change).images.astype(float)
        return np.abs(np.diff(images, axis=2)).mean((1, 2, 3))

    assert (detail(blur=0.7) > detail(blur=2.0)).all()
    assert (detail() > detail(blur=0.7)).all()
    assert (detail(resolution=0.5) > detail(resolution=0.2)).all()
    assert (detail() > detail(resolution=0.5)).all()
    assert (detail(noise=0.05) > detail()).all()


def test_quality_falls_with_every_nuisance():
    measure = jax.jit(quality)
    assert measure(Shot()) == 1
    for name, values in {
        "blur": [0, 1, 3],
        "noise": [0, 0.02, 0.1],
        "resolution": [1, 0.5, 0.1],
        "yaw": [0, -0.2, -0.5],
        "pitch": [0, 0.2, 0.4],
        "gain": [0, 0.3, 0.6],
        "crop_x": [0, -0.1, -0.3],
        "crop_y": [0, 0.1, 0.3],
        "mask": [0, 1],
        "sunglasses": [0, 1],
    }.items():
        scores = [float(measure(Shot(**{name: float(v)}))) for v in values]
        assert scores == sorted(scores, reverse=True), name
        assert len(set(scores)) == len(values), name
        assert min(scores) > 0, name


def test_free_faces_lie_anywhere_within_the_frame(render):
    points = render(PEOPLE, 0, layout="free").landmarks
    # The chin of the largest faces may touch the border.
    assert ((points > -0.05) & (points < 1.05)).all()
    assert points.mean(1).std(0).min() > 0.05
    height = points[:, 8, 1] - points[:, 74, 1]
    assert height.max() > 1.5 * height.min()


@pytest.mark.slow
def test_sequences_are_smooth_and_vary_in_quality(ordinary):
    film = jax.jit(render_sequence, static_argnames=("num_frames", "size"))
    faces = jax.device_get(
        film(0, 3, 0, num_frames=24, severity=Severity(*ordinary), size=32)
    )
    step = np.linalg.norm(np.diff(faces.keypoints, axis=0), axis=-1)
    assert 0 < step.max() * 112 < 6
    assert np.ptp(faces.quality) > 0.05
    assert len(np.unique(faces.shot.grain)) == 24
    for name in ("mask", "background_light", "sunglasses"):
        assert len(np.unique(getattr(faces.shot, name))) == 1
    with pytest.raises(ValueError, match="num_frames must be at least 2; got 1"):
        render_sequence(0, 3, 0, num_frames=1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"index": jnp.zeros(3, int)}, r"both be \[B\]; got \(2,\) and \(3,\)"),
        ({"size": 4}, "at least 8 pixels; got 4"),
        ({"layout": "fre"}, "one of .*; got 'fre'"),
    ],
)
def test_bad_arguments(change, match):
    good = {"identity": jnp.zeros(2, int), "index": jnp.zeros(2, int)}
    with pytest.raises(ValueError, match=f"^render_faces: .*{match}"):
        render_faces(0, **{**good, **change})


PROGRAM = """
import hashlib, sys
from kprpe_jax.data.synthetic.source import FaceSource
source = FaceSource(num_identities=3, images_per_identity=4, size=32)
rows = source.__getitems__([int(i) for i in sys.argv[1:]])
for row in rows:
    print(hashlib.sha256(b"".join(row[k].tobytes() for k in sorted(row))).hexdigest())
"""


@pytest.mark.slow
def test_processes_agree():
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *rows],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for rows in (["0", "5", "11"], ["11", "5"])
    ]
    assert runs[1] == runs[0][:0:-1]
