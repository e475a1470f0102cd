"""RetinaFace and the differentiable aligner against the official code, in float32.

Bounds are relative to the largest value of each array; the stored outputs carry float32
noise of 3e-5 (raw heads, aligned images).
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.alignment.align import align_faces
from kprpe_jax.detection.detections import decode_detections
from kprpe_jax.detection.nms import suppress_overlaps
from kprpe_jax.detection.priors import (
    Anchors,
    decode_boxes,
    decode_keypoints,
    make_priors,
)
from kprpe_jax.geometry.template import ARCFACE_112
from kprpe_jax.weights import import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4


@pytest.mark.parametrize("case", case_params("retinaface_mnet"))
def test_detector(case):
    case = load_case(case)
    settings = case.options
    model = registry.network("retinaface_mnet025").make(width=settings["out_channel"])
    variables = import_weights(model, case.arrays["param"])
    anchors = Anchors(
        tuple(map(tuple, settings["min_sizes"])), tuple(settings["steps"])
    )
    run = quick_jit(model.apply)
    for name, pixels in case.arrays["in"].items():
        number = name.removeprefix("image_")
        want = {
            key.removesuffix(f"_{number}"): value
            for key, value in case.arrays["out"].items()
            if key.endswith(f"_{number}")
        }
        height, width = size = pixels.shape[:2]
        heads = run(variables, jnp.asarray(pixels[None] / np.float32(127.5) - 1))
        priors = make_priors(size, anchors)
        assert_close(priors, want["priors"], 1e-6, "priors")
        assert_close(heads.boxes, want["raw_bbox"], BOUND, "boxes")
        assert_close(heads.logits, want["class_logits"], BOUND, "logits")
        assert_close(heads.keypoints, want["raw_landmark"], BOUND, "keypoints")

        scale = np.array([width, height], np.float32)
        boxes = decode_boxes(heads.boxes[0], priors) * np.tile(scale, 2)
        points = decode_keypoints(heads.keypoints[0], priors) * scale
        assert_close(boxes, want["decoded_boxes"], BOUND, "decoded boxes")
        assert_close(
            points.reshape(len(priors), -1), want["decoded_landmarks"], BOUND, "points"
        )

        # Suppression itself, from the stored values: the same boxes in the same order.
        kept = suppress_overlaps(
            jnp.asarray(want["decoded_boxes"]),
            jnp.asarray(want["class_softmax"][0, :, 1]),
            max_kept=750,
            extra=1.0,
        )
        index = np.asarray(kept.index)[np.asarray(kept.mask)]
        np.testing.assert_array_equal(index, want["nms_anchor_index"])

        # From pixels on: exactly in order where scores are not a matter of noise.
        faces = decode_detections(
            heads, size, max_faces=750, anchors=anchors, min_score=0.02
        )
        sure = want["nms_scores"] > 0.05
        for ours, theirs, unit in (
            (faces.scores, "nms_scores", 1),
            (faces.boxes, "nms_boxes", np.tile(scale, 2)),
            (faces.keypoints, "nms_landmarks", scale),
        ):
            got = np.asarray(ours[0] * unit).reshape(750, -1)[: sure.sum()]
            stored = want[theirs][sure].reshape(len(got), -1)
            assert_close(got, stored, BOUND, theirs)


@cache
def load_aligner(name):
    """Case, model and variables."""
    case = load_case(name)
    settings = case.options
    model = registry.network("dfa_mobilenet025").make(
        input_size=settings["input_size"],
        output_size=(settings["output_size"],) * 2,
        padding_ratio=settings["input_padding_ratio"],
    )
    return case, model, import_weights(model, case.arrays["param"])


@pytest.mark.parametrize("case", case_params("dfa"))
def test_mixing(case):
    case, model, variables = load_aligner(case)
    want = case.arrays["out"]
    images = jnp.asarray(case.arrays["in"]["x"].transpose(0, 2, 3, 1))

    @quick_jit
    def run(variables, images):
        return model.apply(
            variables,
            images,
            method="find_face",
            capture_intermediates=lambda module, _: (
                module.name in ("fpn", "context2", "context3")
            ),
        )

    (face, heads), state = run(variables, images)
    inner = state["intermediates"]["detector"]
    levels = inner["fpn"]["__call__"][0]
    for n in (2, 3):
        context = inner[f"context{n}"]["__call__"][0]
        for got, key in ((levels[n - 1], "fpn"), (context, "ssh")):
            got = got.transpose(0, 3, 1, 2)
            assert_close(got, want[f"{key}_level{n}"], BOUND, f"{key}_level{n}")
    priors = make_priors((model.input_size,) * 2, model.anchors)
    points = decode_keypoints(heads.keypoints, priors)
    found = {
        "anchors": priors,
        "raw_bbox": heads.boxes,
        "class_logits": heads.logits,
        "class_softmax": jax.nn.softmax(heads.logits),
        "raw_landmark": heads.keypoints,
        "decoded_bbox": decode_boxes(heads.boxes, priors),
        "decoded_landmark": points.reshape(*points.shape[:2], -1),
        "mixer_weights": face.weights,
        "reference_landmark": ARCFACE_112,
    }
    for key, got in found.items():
        assert_close(got, want[key], BOUND, key)
    merged = want["merged"]
    assert_close(face.box, merged[:, :4], BOUND, "merged box")
    assert_close(face.keypoints.reshape(-1, 10), merged[:, 6:], BOUND, "merged points")


@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
@pytest.mark.parametrize("case", case_params("dfa"))
def test_alignment(case, padded):
    case, model, variables = load_aligner(case)
    want, prefix, ratio = case.arrays["out"], "", 0.0
    photos = case.arrays["in"]["x"]
    if padded:
        photos, prefix, ratio = case.arrays["in"]["x112"], "pad_", 0.1
        model = model.clone(padding_ratio=ratio)
    images = jnp.asarray(photos.transpose(0, 2, 3, 1))
    got = quick_jit(model.apply)(variables, images)
    side = images.shape[1]
    border = int(side * ratio)

    def officially(points):
        """Ours, measured from the photo's corner, as the official code has them: with
        the ratio itself where whole pixels were added."""
        inside = (points * side + border) / (side + 2 * border)
        return (inside - 0.5) * (1 + 2 * ratio) + 0.5

    found = {
        "landmark": officially(got.keypoints),
        "aligned_landmark": got.aligned_keypoints,
        "score": got.score[:, None],
        "theta": got.theta,
        "aligned_x": got.images.transpose(0, 3, 1, 2),
        # Divided by the size a second time, and not mapped back.
        "normalized_bbox": (got.box * side + border)
        / (side + 2 * border)
        / model.input_size,
    }
    for key, value in found.items():
        # The photos are noise, a pixel's slope near 1: 2e-6 of the landmarks, which is
        # 3e-4 pixels, are seen in the aligned image.
        bound = 10 * BOUND if key == "aligned_x" else BOUND
        assert_close(value, want[prefix + key], bound, prefix + key)


@pytest.mark.parametrize("case", case_params("dfa"))
def test_alignment_of_the_stored_landmarks(case):
    case, model, _ = load_aligner(case)
    want = case.arrays["out"]
    images = jnp.asarray(case.arrays["in"]["x"].transpose(0, 2, 3, 1))
    align = quick_jit(partial(align_faces, size=model.output_size, align_corners=True))
    got = align(images, jnp.asarray(want["landmark"]))
    assert_close(got.theta, want["theta"], 1e-6, "theta")
    assert_close(got.images.transpose(0, 3, 1, 2), want["aligned_x"], BOUND, "aligned")
