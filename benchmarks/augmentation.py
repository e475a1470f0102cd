"""What augmentation costs: images/s of each recipe, and its share of a training step.

    python -m benchmarks augmentation [--batch-size 32] [--preset small --step-batch 8]

Time of the processor is taken where the device is one, for other work on the machine
changes a clock's. Appends lines to benchmarks/results/.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import harness
from kprpe_jax.augmentation.recipe import PRESETS, augment
from kprpe_jax.backbones.vit import PRESETS as VITS
from kprpe_jax.backbones.vit import ViT

BASELINE = "none"  # bytes to floats, and nothing else


def measure(batch_size: int, *, size: int = 112, rounds: int = 7) -> dict[str, Any]:
    """Benchmark every recipe alone.

    Args:
      batch_size: images a call.
      size: side of the images in pixels.
      rounds: timed calls of each recipe.
    Returns: recipe -> `harness.summarize` and `harness.program_size`.
    """
    rng = jax.random.key(0)
    images, keypoints = _batch(rng, batch_size, size)
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
    settings = dict(batch_size=batch_size, size=size, rounds=rounds)
    return _measure("augmentation", calls, programs, batch_size, settings)


def run_step(preset: str, batch_size: int, *, rounds: int = 7) -> dict[str, Any]:
    """Benchmark training steps of KP-RPE with every recipe inside.

    Args:
      preset: of the ViT.
      batch_size: images of a step.
      rounds: timed steps of each recipe.
    Returns: recipe -> `harness.summarize` and `harness.program_size`; `time_ratio` - 1
      is what augmentation adds to the rest of the step.
    """
    model = ViT(**VITS[preset] | dict(drop_path_rate=0.0, scan=True))
    rng = jax.random.key(0)
    images, keypoints = _batch(rng, batch_size, model.image_size[0])
    variables = jax.jit(model.init)(rng, images / 127.5 - 1, keypoints)
    optimizer = optax.sgd(1e-3)

    def step(variables, images, keypoints, recipe):
        def loss(params):
            embeddings, new = model.apply(
                {**variables, "params": params},
                *augment(rng, images, keypoints, recipe),
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.square(embeddings).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        updates, _ = optimizer.update(grads, optimizer.init(grads))
        return optax.apply_updates(variables["params"], updates), new

    programs = {
        name: jax.jit(step, static_argnames="recipe")
        .lower(variables, images, keypoints, recipe)
        .compile()
        for name, recipe in PRESETS.items()
    }
    calls = {
        name: lambda program=program: program(variables, images, keypoints)
        for name, program in programs.items()
    }
    settings = dict(preset=preset, batch_size=batch_size, rounds=rounds)
    return _measure("augmentation_step", calls, programs, batch_size, settings)


def _batch(rng: jax.Array, count: int, size: int) -> tuple[jax.Array, jax.Array]:
    shape = (count, size, size, 3)
    images = jax.random.randint(rng, shape, 0, 256).astype(jnp.uint8)
    return images, jax.random.uniform(rng, (count, 5, 2))


def _measure(
    name: str,
    calls: dict[str, Callable[[], Any]],
    programs: dict[str, jax.stages.Compiled],
    items: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    clock = harness.device_clock()
    seconds = harness.time_variants(calls, rounds=settings["rounds"], clock=clock)
    summary = harness.summarize(seconds, baseline=BASELINE, items=items)
    for variant, program in programs.items():
        summary[variant] |= harness.program_size(program)
    kind = "processor" if clock is time.process_time else "wall"
    harness.record(name, {**settings, "clock": kind}, summary)
    return summary


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--batch-size", type=int, default=32, help="images a call, augmented alone"
    )
    parser.add_argument(
        "--preset", type=str, default="small", help="size of the ViT that is trained"
    )
    parser.add_argument(
        "--step-batch", type=int, default=8, help="images of a training step"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="timed calls of each variant"
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    alone = measure(options.batch_size, rounds=options.rounds)
    step = run_step(options.preset, options.step_batch, rounds=options.rounds)
    for title, results in (("alone", alone), (f"ViT {options.preset}", step)):
        for name, result in results.items():
            sys.stdout.write(
                f"{title:10} {name:8} {result['items_per_s']:9.1f} images/s  "
                f"time x {result['time_ratio']:.3f}\n"
            )
