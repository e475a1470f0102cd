"""What augmentation costs: images/s and memory of each recipe, inside one program.

To compare with a training step, see `vit_position` on the same machine.
"""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness
from kprpe_jax.data.augmentation.recipe import PRESETS, augment

BASELINE = "none"  # bytes to floats, and nothing else


def run(batch_size: int, *, size: int = 112, rounds: int = 7) -> dict[str, Any]:
    """Benchmark every preset.

    Args:
      batch_size: images a call.
      size: side of the images in pixels.
      rounds: timed calls of each preset.
    Returns: preset -> `harness.summarise` and `harness.program_size`.
    """
    rng = jax.random.key(0)
    shape = (batch_size, size, size, 3)
    images = jax.random.randint(rng, shape, 0, 256).astype(jnp.uint8)
    keypoints = jax.random.uniform(rng, (batch_size, 5, 2))
    programs = {
        name: jax.jit(augment, static_argnames="recipe")
        .lower(rng, images, keypoints, recipe)
        .compile()
        for name, recipe in PRESETS.items()
    }
    calls = {
        name: lambda program=program: program(rng, images, keypoints)
        for name, program in programs.items()
    }
    seconds = harness.time_variants(calls, rounds=rounds)
    summary = harness.summarise(seconds, baseline=BASELINE, items=batch_size)
    for name, program in programs.items():
        summary[name] |= harness.program_size(program)
    settings = dict(batch_size=batch_size, size=size, rounds=rounds)
    harness.record("augmentation", settings, summary)
    return summary
