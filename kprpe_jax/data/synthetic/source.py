"""Rows of synthetic faces by number, for the loader: nothing is stored."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from kprpe_jax.data.rows import RandomAccessRows
from kprpe_jax.data.synthetic.faces import render_faces
from kprpe_jax.data.synthetic.nuisance import LAYOUTS, Severity

_CHUNK = 32  # faces rendered at once; one program, whatever is asked for


class FaceSource(RandomAccessRows):
    """Faces rendered when they are read, with the access of `store.StoredRows`.

    Row i is image i % images_per_identity of person first_identity + i //
    images_per_identity. Its fields: image uint8 [S, S, 3]; label int32, the person's
    number; keypoints float32 [5, 2] and landmarks float32 [84, 2], fractions of width
    and height; quality float32; id int32, the row's number.

    Args:
      num_identities: people.
      images_per_identity: images of each.
      seed: of all people and images.
      difficulty: severity of every nuisance: 0 = none, 1 = ordinary, 2 = hard.
      size: S, pixels.
      layout: "aligned" or "free".
      first_identity: number of the first person; data sets of one seed share no
        person if their ranges do not meet.
    Raises: ValueError: counts below 1, a negative difficulty, an unknown layout.
    """

    def __init__(
        self,
        *,
        num_identities: int,
        images_per_identity: int,
        seed: int = 0,
        difficulty: float = 1.0,
        size: int = 112,
        layout: str = "aligned",
        first_identity: int = 0,
    ):
        counts = num_identities, images_per_identity
        if min(counts) < 1 or first_identity < 0 or difficulty < 0 or size < 8:
            raise ValueError(
                "FaceSource: num_identities and images_per_identity must be at least "
                "1, first_identity and difficulty not negative, size at least 8; got "
                f"{counts}, {first_identity}, {difficulty}, {size}; change them"
            )
        if layout not in LAYOUTS:
            raise ValueError(
                f"FaceSource: layout must be one of {LAYOUTS}; got {layout!r}; choose "
                "one of these"
            )
        self._counts = counts
        self._first_identity = first_identity
        self._seed = seed
        self._severity = Severity(*[np.float32(difficulty)] * len(Severity._fields))
        self._form = {"size": size, "layout": layout}

    def __len__(self) -> int:
        return self._counts[0] * self._counts[1]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows."""
        ids = np.asarray(rows, np.int64)
        if ids.size and not (0 <= ids.min() and ids.max() < len(self)):
            raise IndexError(f"rows {ids.min()} .. {ids.max()} of {len(self)}")
        chunks = range(0, len(ids), _CHUNK)
        return [row for at in chunks for row in self._render(ids[at : at + _CHUNK])]

    def _render(self, ids: np.ndarray) -> list[dict[str, np.ndarray]]:
        # Always the same number of faces: another would be another program.
        padded = np.resize(ids, _CHUNK)
        place, index = (
            part.astype(np.int32) for part in divmod(padded, self._counts[1])
        )
        label = np.int32(self._first_identity) + place
        faces = jax.device_get(
            _renderer(**self._form)(
                np.uint32(self._seed),
                label,
                index,
                self._severity,
            )
        )
        return [
            {
                "image": faces.images[i],
                "label": label[i],
                "keypoints": faces.keypoints[i],
                "landmarks": faces.landmarks[i],
                "quality": faces.quality[i],
                "id": np.int32(ids[i]),
            }
            for i in range(len(ids))
        ]


@functools.cache
def _renderer(size: int, layout: str):
    """The compiled renderer of a form, on the CPU: this is the host's work."""
    cpu = jax.local_devices(backend="cpu")[0]
    render = jax.jit(
        lambda seed, identity, index, severity: render_faces(
            seed, identity, index, severity=severity, size=size, layout=layout
        ),
        # Quicker by a tenth where the processor has such registers.
        compiler_options={"xla_cpu_prefer_vector_width": 512},
    )

    def on_cpu(*args):
        with jax.default_device(cpu):
            return render(*args)

    return on_cpu
