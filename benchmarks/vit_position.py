"""What a position encoding costs: images/s, FLOPs and memory of the same ViT.

The paper's Table 3: KP-RPE costs 9 % of training throughput at ViT-S and 16 % at ViT-B.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import harness
from kprpe_jax.backbones.vit import PRESETS, ViT

BASELINE = "plain"
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: dict(position="absolute"),
    "irpe": dict(position="irpe", position_options=dict(per_head=False)),
    "kprpe_direct": dict(position_options=dict(factorized=False)),
    "kprpe_factorized": dict(),
}


def run(
    preset: str, batch_size: int, *, dtype: str = "float32", rounds: int = 7
) -> dict[str, dict[str, Any]]:
    """Benchmark every variant of VARIANTS and append to results; see `measure`."""
    results = measure(
        preset, batch_size, VARIANTS, baseline=BASELINE, dtype=dtype, rounds=rounds
    )
    settings = dict(preset=preset, batch_size=batch_size, dtype=dtype, rounds=rounds)
    harness.record("vit_position", settings, results)
    return results


def measure(
    preset: str,
    batch_size: int,
    variants: dict[str, dict[str, Any]],
    *,
    baseline: str,
    dtype: str,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """Time training steps and inference.

    Args:
      preset: of PRESETS.
      batch_size: images a call.
      variants: name -> fields of the ViT that differ from the preset's.
      baseline: of variants.
      dtype: compute type.
      rounds: timed calls of each variant.
    Returns: {"train": ..., "infer": ...}, each variant -> `harness.summarize` and
      `harness.program_size`.
    """
    compiled = {
        name: _compile(preset, batch_size, dtype, options)
        for name, options in variants.items()
    }
    results: dict[str, dict[str, Any]] = {}
    for mode in ("train", "infer"):
        calls = {name: programs[mode][0] for name, programs in compiled.items()}
        seconds = harness.time_variants(calls, rounds=rounds)
        summary = harness.summarize(seconds, baseline=baseline, items=batch_size)
        for name, programs in compiled.items():
            summary[name] |= harness.program_size(programs[mode][1])
        results[mode] = summary
    return results


def _compile(
    preset: str, batch_size: int, dtype: str, options: dict[str, Any]
) -> dict[str, tuple]:
    """Compile both modes: name -> (call without arguments, compiled program)."""
    fields = PRESETS[preset] | dict(drop_path_rate=0.0, scan=False) | options
    model = ViT(**fields, dtype=jnp.dtype(dtype))
    rng = jax.random.key(0)
    images = jax.random.uniform(rng, (batch_size, *model.image_size, 3), minval=-1)
    keypoints = jax.random.uniform(rng, (batch_size, 5, 2))
    variables = jax.jit(model.init)(rng, images, keypoints)
    params, stats = variables["params"], variables["batch_stats"]
    # Zero tables would let XLA skip nothing, but random ones are what training has.
    params = jax.tree.map(
        lambda p: p + 0.01 * jax.random.normal(rng, p.shape, p.dtype), params
    )
    optimizer = optax.sgd(1e-3)

    def loss(params, stats, images, keypoints):
        embeddings, new = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            keypoints,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.square(embeddings).mean(), new["batch_stats"]

    def train(params, stats, opt_state, images, keypoints):
        grads, stats = jax.grad(loss, has_aux=True)(params, stats, images, keypoints)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), stats, opt_state

    def infer(params, stats, images, keypoints):
        variables = {"params": params, "batch_stats": stats}
        return model.apply(variables, images, keypoints)

    train_args = (params, stats, optimizer.init(params), images, keypoints)
    infer_args = (params, stats, images, keypoints)
    train_program = jax.jit(train).lower(*train_args).compile()
    infer_program = jax.jit(infer).lower(*infer_args).compile()
    return {
        "train": (lambda: train_program(*train_args), train_program),
        "infer": (lambda: infer_program(*infer_args), infer_program),
    }
