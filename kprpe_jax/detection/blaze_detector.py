"""BlazeFace with FaceMesh behind it, for photos of any size."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.core.fingerprint import fingerprint_arrays
from kprpe_jax.core.input_spec import BLACK
from kprpe_jax.detection.blazeface import (
    BlazeFaceFull,
    BlazeFaceShort,
    BlazeOutput,
)
from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import (
    CANVASES,
    MAX_FACES,
    Detector,
    choose_canvases,
)
from kprpe_jax.detection.face_mesh import (
    MESH_POINTS,
    FaceMesh,
    MeshOutput,
    crop_matrix,
    five_points,
    head_pose,
)
from kprpe_jax.detection.nms import merge_overlaps
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.sampling import warp_affine

_MOST_OVERLAP = 0.3  # of two boxes of different faces
_LOOKED_AT = 4  # faces of an aligned image
_SHARED = 3  # first keypoints that both networks have: eyes and nose
_LARGE = 512  # pixels, side of canvases that are looked at in twice the size, too


def blazeface_detector(
    model: BlazeFaceShort | BlazeFaceFull,
    variables: Any,
    mesh: FaceMesh,
    mesh_variables: Any,
    *,
    max_faces: int = MAX_FACES,
    min_score: float = 0.5,
    max_side: int = CANVASES[-1],
    mesh_points: Sequence[int] = (),
    name: str = "BlazeFace",
    license: str = "",  # noqa: A002
) -> Detector:
    """Detect the faces of photos, and their points.

    BlazeFace reads a small copy of the photo, and where that is large one of twice the
    size; FaceMesh then reads each face from the photo itself, turned upright. What
    FaceMesh takes for no face is dropped.

    Args:
      model, variables: BlazeFace.
      mesh, mesh_variables: FaceMesh.
      max_faces: of a photo, those with the best scores.
      min_score: faces must score more, by both networks.
      max_side: larger photos are shrunk to it, in pixels.
      mesh_points: of FaceMesh's 468, that follow the five points as keypoints.
      name, license: of the result.
    Raises: ValueError: a side below 32; a point that the mesh does not have.
    """
    canvases = choose_canvases(CANVASES[1:], max_side)
    if any(not 0 <= point < MESH_POINTS for point in mesh_points):
        raise ValueError(
            f"points of FaceMesh are numbered 0 to {MESH_POINTS - 1}; got "
            f"{[int(x) for x in mesh_points]}; leave out those beyond."
        )
    chosen = np.array(mesh_points, int)

    @jax.jit
    def detect(variables: tuple[Any, Any], images: Array) -> Detections:
        sizes = [1] if images.shape[1] < _LARGE else [1, 2]
        found = [
            _detect(model, variables[0], images, times * model.image_size[0])
            for times in sizes
        ]
        boxes, keypoints, scores = (
            jnp.concatenate(x, 1) for x in zip(*found, strict=True)
        )
        merge = partial(
            merge_overlaps,
            max_kept=max_faces,
            min_score=min_score,
            max_overlap=_MOST_OVERLAP,
        )
        boxes, keypoints, scores, mask = jax.vmap(merge)(boxes, keypoints, scores)
        side = images.shape[1]
        seen = _look_closer(
            lambda x: mesh.apply(variables[1], x),
            images,
            boxes * side,
            keypoints[..., :2, :] * side,
            mask,
            mesh.image_size,
        )
        points = seen.points[..., :2] / side
        points = jnp.concatenate([five_points(points), points[..., chosen, :]], -2)
        mask &= jax.nn.sigmoid(seen.logits) > min_score
        masked = (boxes, points, scores, head_pose(seen.points))
        *fields, poses = (
            jnp.where(_over(mask, x), x, 0).astype(jnp.float32) for x in masked
        )
        return Detections(*fields, mask, poses)

    @jax.jit
    def look_again(variables: tuple[Any, Any], images: Array) -> Detections:
        side = model.image_size[0]
        boxes, keypoints, scores = _detect(model, variables[0], images, side)
        merge = partial(merge_overlaps, max_kept=_LOOKED_AT, min_score=min_score)
        found = jax.vmap(merge)(boxes, keypoints[..., :_SHARED, :], scores)
        # A face that lies is found as such, so its score says nothing of being upright.
        across = found.keypoints[..., 1, :] - found.keypoints[..., 0, :]
        level = across[..., 0] > jnp.abs(across[..., 1])
        return Detections(*found)._replace(mask=found.mask & level)

    both = variables, mesh_variables
    about = model, mesh, max_faces, min_score, max_side, tuple(map(int, mesh_points))
    return Detector(
        name,
        partial(detect, both),
        canvases,
        enlarge=True,
        license=license,
        fingerprint=fingerprint_arrays(about, both),
        second_look=partial(look_again, both),
        max_faces=max_faces,
    )


def decode_blazeface(
    output: BlazeOutput, cells: Sequence[tuple[int, int]], side: int
) -> tuple[Array, Array, Array]:
    """Decode raw outputs.

    Args:
      output: of images of `side` pixels.
      cells: (cells along the side, anchors per cell) of each map.
      side: of the images.
    Returns: boxes [B, A, 4], (left, top, right, bottom), and keypoints [B, A, 6, 2],
      both as fractions of the image; scores [B, A] in 0..1.
    """
    centers = []
    for count, anchors in cells:
        middle = (np.arange(count) + 0.5) / count
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centers.append(np.stack([x, y], -1).reshape(-1, 2).repeat(anchors, 0))
    center = np.concatenate(centers).astype(np.float32)  # [A, 2]
    points = output.offsets.reshape(*output.offsets.shape[:2], -1, 2) / side
    middle, half = points[..., 0, :] + center, points[..., 1, :] / 2
    boxes = jnp.concatenate([middle - half, middle + half], -1)
    keypoints = points[..., 2:, :] + center[:, None]
    return boxes, keypoints, jax.nn.sigmoid(output.logits)


def _detect(
    model: BlazeFaceShort | BlazeFaceFull, variables: Any, images: Array, side: int
) -> tuple[Array, Array, Array]:
    """Run BlazeFace on copies of images of a side."""
    shape = images.shape[0], side, side, images.shape[-1]
    images = jax.image.resize(images, shape, "linear", antialias=True)
    times = side // model.image_size[0]
    cells = [(count * times, anchors) for count, anchors in model.anchors]
    return decode_blazeface(model.apply(variables, images), cells, side)


def _look_closer(
    look: Any,
    images: Array,
    boxes: Array,
    eyes: Array,
    mask: Array,
    size: tuple[int, int],
) -> MeshOutput:
    """Run FaceMesh on each detected face, one of each image at a time.

    Args:
      look: FaceMesh, images to a MeshOutput.
      images: [B, S, S, 3].
      boxes: [B, N, 4], in pixels, the best first.
      eyes: [B, N, 2, 2].
      mask: [B, N], whether there is one.
      size: of the network's images.
    Returns: points [B, N, 468, 3] in pixels of the image, and logits [B, N]; zeros
      behind the last face of the image that has the most.
    """
    batch, count = mask.shape
    matrices = crop_matrix(boxes, eyes, size)  # [B, N, 2, 3]

    def more(state: tuple[Array, Array, Array]) -> Array:
        number = state[0]
        there = jax.lax.dynamic_index_in_dim(mask, jnp.minimum(number, count - 1), 1)
        return (number < count) & there.any()

    def one(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, points, logits = state
        matrix = jax.lax.dynamic_index_in_dim(matrices, number, 1, keepdims=False)
        found = look(warp_affine(images, matrix, out_size=size, outside=BLACK))
        place = affine.apply(matrix, found.points[..., :2])
        scale = jnp.linalg.norm(matrix[:, :, 0], axis=-1)[:, None, None]
        place = jnp.concatenate([place, found.points[..., 2:] * scale], -1)
        return (
            number + 1,
            jax.lax.dynamic_update_index_in_dim(points, place, number, 1),
            jax.lax.dynamic_update_index_in_dim(logits, found.logits, number, 1),
        )

    points = jnp.zeros((batch, count, MESH_POINTS, 3), jnp.float32)
    start = jnp.int32(0), points, jnp.zeros((batch, count), jnp.float32)
    return MeshOutput(*jax.lax.while_loop(more, one, start)[1:])


def _over(mask: Array, values: Array) -> Array:
    """A mask [B, N] with as many axes as values [B, N, ...]."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 2))
