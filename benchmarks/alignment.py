"""What alignment costs: the warp beside the network it is in, the aligner beside ViT.

Source: Balanced Alignment, Table 1 (56 x 56 x 64 maps enter stage 2 of a ResNet-34);
KP-RPE, Supp. 3 and Table 3 (aligner: 0.14 GFLOP, 0.49 M parameters).

    python -m benchmarks alignment --parts warp --batch-size 8
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness
from kprpe_jax.alignment import warps
from kprpe_jax.backbones.iresnet import PRESETS as IRESNETS
from kprpe_jax.backbones.iresnet import IResNet, Unit
from kprpe_jax.backbones.vit import PRESETS as VITS
from kprpe_jax.backbones.vit import ViT
from kprpe_jax.commands.options import words
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner

Program = tuple[Callable[[], Any], jax.stages.Compiled]


def run_warp(batch_size: int, *, rounds: int) -> dict[str, Any]:
    """Time grid and sampling of 56 x 56 x 64 maps, and what surrounds them.

    Args:
      batch_size: images a call.
      rounds: timed calls.
    Returns: name -> `harness.summarize` and `harness.program_size`; ratios are to the
      whole forward pass of iResNet-34 at 112 x 112.
    """
    rng = jax.random.key(0)
    maps = jax.random.normal(rng, (batch_size, 56, 56, 64))
    images = jax.random.uniform(rng, (batch_size, 112, 112, 3), minval=-1)
    outputs = 0.02 * jax.random.normal(rng, (batch_size, 128))
    network = IResNet(**IRESNETS["ir34"])
    variables = jax.jit(network.init)(rng, images[:1])
    units = [
        Unit(128, 1 if n else 2, "subsample", False, jnp.float32) for n in range(4)
    ]
    stage_variables, x = [], maps[:1]
    for unit in units:
        stage_variables.append(jax.jit(unit.init, static_argnums=2)(rng, x, False))
        x = jnp.zeros((1, 28, 28, 128))

    def stage(variables: list, maps: jax.Array) -> jax.Array:
        for unit, own in zip(units, variables, strict=True):
            maps = unit.apply(own, maps, False)
        return maps

    def warp(maps: jax.Array, outputs: jax.Array) -> jax.Array:
        return warps.warp_map(warps.learned_warp(outputs, "tps", (8, 8)), maps)

    def grid(outputs: jax.Array) -> jax.Array:
        return warps.learned_warp(outputs, "tps", (8, 8)).grid((56, 56))

    programs = {
        "forward": _compile(network.apply, variables, images),
        "stage2": _compile(stage, stage_variables, maps),
        "tps_grid": _compile(grid, outputs),
        "tps_grid_and_sampling": _compile(warp, maps, outputs),
    }
    return _measure("alignment_warp", programs, "forward", batch_size, rounds)


def run_aligner(batch_size: int, *, rounds: int) -> dict[str, Any]:
    """Time the differentiable aligner on photos of 160 x 160, and ViT-B at 112 x 112.

    Args:
      batch_size: images a call.
      rounds: timed calls.
    Returns: as `run_warp`, ratios to ViT-B with KP-RPE.
    """
    rng = jax.random.key(0)
    photos = jax.random.uniform(rng, (batch_size, 160, 160, 3), minval=-1)
    faces = photos[:, :112, :112]
    keypoints = jax.random.uniform(rng, (batch_size, 5, 2))
    aligner = DifferentiableAligner()
    own = jax.jit(aligner.init)(rng, photos[:1])
    vit = ViT(**VITS["base"])
    variables = jax.jit(vit.init)(rng, faces[:1], keypoints[:1])
    programs = {
        "vit_base": _compile(vit.apply, variables, faces, keypoints),
        "aligner": _compile(aligner.apply, own, photos),
    }
    return _measure("aligner", programs, "vit_base", batch_size, rounds)


def _compile(function: Callable, *args: Any) -> Program:
    # Variables are arguments: as constants of the program XLA would fold them.
    program = jax.jit(function).lower(*args).compile()
    return lambda: program(*args), program


def _measure(
    name: str, programs: dict[str, Program], baseline: str, batch_size: int, rounds: int
) -> dict[str, Any]:
    calls = {key: call for key, (call, _) in programs.items()}
    seconds = harness.time_variants(calls, rounds=rounds)
    results = harness.summarize(seconds, baseline=baseline, items=batch_size)
    for key, (_, program) in programs.items():
        results[key] |= harness.program_size(program)
    harness.record(name, dict(batch_size=batch_size, rounds=rounds), results)
    return results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--parts", type=words, default=["warp", "aligner"], help="warp and aligner."
    )
    parser.add_argument("--batch-size", type=int, default=256, help="images a call")
    parser.add_argument(
        "--rounds", type=int, default=3, help="timed calls of each variant"
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    parts = {"warp": run_warp, "aligner": run_aligner}
    for part in options.parts:
        results = parts[part](options.batch_size, rounds=options.rounds)
        sys.stdout.write(f"\n{part}, batch {options.batch_size}\n")
        for name, r in results.items():
            sys.stdout.write(
                f"  {name:22} {r['items_per_s']:9.2f} images/s  time x "
                f"{r['time_ratio']:.4f}  {r['gflop'] / options.batch_size:8.3f} GFLOP "
                "an image\n"
            )
