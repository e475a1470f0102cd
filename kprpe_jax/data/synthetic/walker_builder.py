"""The TFDS data set of walkers: people to train on, and others to test on."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
import tqdm

from kprpe_jax.data.gait_rows import GaitRows, GaitSequence
from kprpe_jax.data.synthetic.walker_frames import WalkFrames, WalkSeverity, render_walk

_ASPECT = 11 / 16  # width over height, as 44 x 64


class SyntheticWalkers(GaitRows, skip_registration=True):
    """Walkers with the rows of `GaitRows`; those of a person stand together.

    Walker number i of a seed is always the same; the split "test" begins where "train"
    ends, so no person is in both. The first half of each person's sequences are probes.
    The metadata hold the arguments, which by default are those of configs/gait.py.

    Args:
      num_identities: people of the split "train".
      num_test_identities: of the split "test".
      sequences_per_identity: of each, at least 2.
      num_frames: of a sequence, from which missing ones are taken; at least 2.
      seed: of all people and sequences.
      difficulty: severity of every nuisance: 0 = none, 1 = ordinary, 2 = hard.
      size: height in pixels; the width is 11/16 of it.
      **kwargs: of the TFDS builder.
    Raises: ValueError: numbers below these.
    """

    def __init__(
        self,
        *,
        num_identities: int = 100,
        num_test_identities: int = 100,
        sequences_per_identity: int = 6,
        num_frames: int = 16,
        seed: int = 0,
        difficulty: float = 1.0,
        size: int = 32,
        **kwargs,
    ):
        lowest = min(num_identities, num_test_identities) < 1 or difficulty < 0
        if lowest or min(sequences_per_identity, num_frames) < 2 or size < 16:
            raise ValueError(
                "SyntheticWalkers: identities must be at least 1, sequences and frames "
                "at least 2, difficulty not negative, size at least 16; got "
                f"{(num_identities, num_test_identities)}, {sequences_per_identity}, "
                f"{num_frames}, {difficulty}, {size}; change them"
            )
        shape = (size, round(_ASPECT * size))
        settings = {
            "sequences_per_identity": sequences_per_identity,
            "num_frames": num_frames,
            "seed": seed,
            "difficulty": difficulty,
            "size": size,
        }

        def people(first: int, count: int) -> Iterator[GaitSequence]:
            render = _renderer(num_frames, shape)
            severity = WalkSeverity(*[np.float32(difficulty)] * 6)
            people = range(first, first + count)
            for identity in tqdm.tqdm(people, unit=" people", disable=None):
                for number in range(sequences_per_identity):
                    walk = render(np.uint32(seed), identity, number, severity)
                    is_probe = number < sequences_per_identity // 2
                    yield _sequence(walk, f"{identity}/{number}", is_probe)

        super().__init__(
            size=shape,
            splits={
                "train": lambda: people(0, num_identities),
                "test": lambda: people(num_identities, num_test_identities),
            },
            description="Synthetic silhouettes of walking people.",
            metadata={
                "num_identities": num_identities,
                "num_test_identities": num_test_identities,
                **settings,
            },
            **kwargs,
        )


def _sequence(walk: WalkFrames, key: str, is_probe: bool) -> GaitSequence:
    kept = walk.kept.copy()
    kept[0] |= not kept.any()  # a sequence has a frame
    return GaitSequence(
        key=key,
        identity=key.split("/")[0],
        silhouettes=walk.silhouettes[kept],
        keypoints=walk.keypoints[kept],
        joint_mask=walk.joint_mask[kept],
        is_probe=is_probe,
    )


@functools.cache
def _renderer(num_frames: int, size: tuple[int, int]):
    """The compiled renderer of a form, on the CPU: this is the host's work."""
    cpu = jax.local_devices(backend="cpu")[0]
    render = jax.jit(functools.partial(render_walk, num_frames=num_frames, size=size))

    def on_cpu(seed, identity, number, severity) -> WalkFrames:
        with jax.default_device(cpu):
            return jax.device_get(render(seed, identity, number, severity=severity))

    return on_cpu
