"""Render images of synthetic people, with their keypoints, landmarks and quality.

    faces = render_faces(0, identities, indices)
    faces.images, faces.keypoints, faces.quality

Everything depends on (seed, identity, index) alone. Pure JAX: it runs inside a compiled
step on an accelerator, or on a CPU (`source`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic import anatomy, nuisance
from kprpe_jax.data.synthetic.degrade import degrade
from kprpe_jax.data.synthetic.identity import (
    Identity,
    person_key,
    sample_identity,
)
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS, landmarks
from kprpe_jax.data.synthetic.nuisance import Severity, Shot
from kprpe_jax.data.synthetic.pose import Pose, make_pose, to_frame
from kprpe_jax.data.synthetic.rendering import render_face


class RenderedFaces(NamedTuple):
    """Rendered faces and what is known about them.

    images: uint8 [B, S, S, 3], RGB.
    keypoints: float32 [B, 5, 2], fractions of width and height.
    landmarks: float32 [B, 84, 2], the same; see `landmarks`.
    identity: int32 [B].
    quality: float32 [B] in 0..1; see `nuisance.quality`.
    shot: nuisances [B].
    """

    images: jax.Array
    keypoints: jax.Array
    landmarks: jax.Array
    identity: jax.Array
    quality: jax.Array
    shot: Shot


def render_faces(
    seed: int | jax.Array,
    identity: jax.Array,
    index: jax.Array,
    *,
    severity: Severity = Severity(),  # noqa: B008 (a tuple of numbers)
    size: int = 112,
    layout: str = "aligned",
) -> RenderedFaces:
    """Render images of people.

    Args:
      seed: of all people and images.
      identity: int32 [B], numbers of the people.
      index: int32 [B], numbers of the images of each.
      severity: of the nuisances; at 0 all images of a person are the same, frontal
        and aligned.
      size: S, pixels.
      layout: "aligned" or "free" (anywhere in the frame, for detection).
    Raises: ValueError: shapes that differ, a size below 8, an unknown layout.
    """
    _check(identity, index, size, layout)
    shot = sample_shots(seed, identity, index, severity=severity, layout=layout)
    return render(seed, identity, shot, size=size)


def sample_shots(
    seed: int | jax.Array,
    identity: jax.Array,
    index: jax.Array,
    *,
    severity: Severity,
    layout: str,
) -> Shot:
    """Sample the nuisances alone; arguments as `render_faces`, results [B]."""

    def one(identity: jax.Array, index: jax.Array) -> Shot:
        key = jax.random.fold_in(person_key(seed, identity), index + 1)
        shot = nuisance.sample_shot(key, severity, layout=layout)
        return jax.tree.map(jnp.asarray, shot)

    return jax.vmap(one)(jnp.asarray(identity), jnp.asarray(index))


def render(
    seed: int | jax.Array, identity: jax.Array, shot: Shot, *, size: int = 112
) -> RenderedFaces:
    """Render people under given nuisances.

    Args:
      seed: of the people.
      identity: int32 [B].
      shot: nuisances [B], from `sample_shots`, changed at will.
      size: S, pixels.
    """

    def pose_and_points(person: Identity, shot: Shot) -> tuple[Pose, jax.Array]:
        face = anatomy.express(person, shot)
        pose = make_pose(person, face, shot)
        return pose, to_frame(pose, landmarks(face)) / 112

    def render_one(pose: Pose, shot: Shot) -> jax.Array:
        image = degrade(render_face(pose, shot, size=size), shot)
        return jnp.round(image * 255).astype(jnp.uint8).transpose(1, 2, 0)

    identity = jnp.asarray(identity, jnp.int32)
    people = jax.vmap(lambda i: sample_identity(seed, i))(identity)
    poses, points = jax.vmap(pose_and_points)(people, shot)
    # In turn, a face stays in a CPU's cache, and a sharp one is not softened.
    images = jax.lax.platform_dependent(
        poses,
        shot,
        cpu=lambda *batch: jax.lax.map(lambda args: render_one(*args), batch),
        default=jax.vmap(render_one),
    )
    return RenderedFaces(
        *(images, points[:, KEYPOINTS], points),
        *(identity, nuisance.quality(shot), shot),
    )


def _check(identity: jax.Array, index: jax.Array, size: int, layout: str) -> None:
    shapes = jnp.shape(identity), jnp.shape(index)
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(
            "render_faces: identity and index must both be [B]; got "
            f"{shapes[0]} and {shapes[1]}; give a number of each for every image"
        )
    if size < 8:
        raise ValueError(
            f"render_faces: size must be at least 8 pixels; got {size}; 112 is usual"
        )
    if layout not in nuisance.LAYOUTS:
        raise ValueError(
            f"render_faces: layout must be one of {nuisance.LAYOUTS}; got {layout!r}; "
            "choose one of these"
        )
