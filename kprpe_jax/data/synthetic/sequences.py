"""Video frames of a synthetic person: pose, light and quality change smoothly."""

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.faces import RenderedFaces, render, sample_shots
from kprpe_jax.data.synthetic.nuisance import CONSTANT, Severity, Shot

_FIRST_INDEX = 1 << 24  # images from here on belong to sequences
_NUM_KEYFRAMES = 4


def render_sequence(
    seed: int | jax.Array,
    identity: int | jax.Array,
    index: int | jax.Array,
    *,
    num_frames: int,
    severity: Severity = Severity(),  # noqa: B008 (a tuple of numbers)
    size: int = 112,
) -> RenderedFaces:
    """Render a sequence of one person; it depends on (seed, identity, index) alone.

    Four images are rendered as for a data set, and all between them is in motion: pose,
    expression, light, blur, noise and resolution. Background, crop and what covers the
    face stay; the noise is new in each frame.

    Args:
      seed: of all people and images.
      identity: number of the person.
      index: number of the sequence, 0 .. 2**22.
      num_frames: T, at least 2.
      severity: of the nuisances.
      size: S, pixels.
    Returns: faces with T for B, in order of time.
    Raises: ValueError: too few frames.
    """
    if num_frames < 2:
        raise ValueError(
            f"render_sequence: num_frames must be at least 2; got {num_frames}; "
            "render_faces renders single images"
        )
    people = jnp.full(_NUM_KEYFRAMES, identity, jnp.int32)
    indices = _FIRST_INDEX + index * _NUM_KEYFRAMES + jnp.arange(_NUM_KEYFRAMES)
    key_shots = sample_shots(seed, people, indices, severity=severity, layout="aligned")
    shots = _between(key_shots, num_frames)
    return render(seed, jnp.full(num_frames, identity, jnp.int32), shots, size=size)


def _between(key_shots: Shot, num_frames: int) -> Shot:
    """Go from shot to shot, slowly at each."""
    time = jnp.linspace(0, _NUM_KEYFRAMES - 1, num_frames)
    before = jnp.minimum(time.astype(jnp.int32), _NUM_KEYFRAMES - 2)
    share = time - before
    share = share * share * (3 - 2 * share)
    frames = jax.tree.map(lambda x: x[before] * (1 - share), key_shots)
    frames = jax.tree.map(lambda x, y: x + y[before + 1] * share, frames, key_shots)
    kept = {
        name: jnp.full(num_frames, getattr(key_shots, name)[0]) for name in CONSTANT
    }
    grain = key_shots.grain[0] + jnp.arange(num_frames, dtype=jnp.uint32)
    return frames._replace(grain=grain, **kept)
