"""What fusion costs beside the backbone, and a stream of a million features.

    python -m benchmarks set_fusion [--backbone mobilefacenet] [--images 1000000]

The paper's Table 5: relative speed of fusion for N = 16 ... 512, of a network of the
official size behind an IResNet-101. Weights are random; speed does not depend on them.
Appends lines to benchmarks/results/.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from kprpe_jax import registry
from kprpe_jax.commands.options import words
from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.weights.caface import STYLE_CHANNELS

SIZES = (16, 32, 64, 256, 512)
METHODS = ("cluster_aggregate", "pfe", "cfan", "rsa")
EMBED_DIM = 512
BACKBONES = (
    "mobilefacenet",
    *(name for name in registry.NETWORKS if name.startswith("iresnet")),
)


def make_model(method: str) -> nn.Module:
    """A fusion network of the official size."""
    if method == "cluster_aggregate":
        return registry.network("caface_g4_conf512").make()
    return WeightedFusion(EMBED_DIM, method)


def draw_sets(images: int) -> ImageSets:
    """One set of random features."""
    rng = np.random.default_rng(0)
    features = Features(
        rng.normal(size=(1, images, EMBED_DIM)).astype(np.float32),
        style=rng.normal(size=(1, images, STYLE_CHANNELS, 2)).astype(np.float32),
    )
    return ImageSets(features, np.ones((1, images), bool))


def compare(
    options: argparse.Namespace,
    backbone: str,
    methods: Sequence[str],
    *,
    batch_size: int,
    rounds: int,
) -> dict[str, Any]:
    """Images/s of fusion of one set, and over those of the backbone.

    Returns: method -> N -> images_per_s and relative, the paper's FPS(F) / FPS(E).
    """
    calls = {"backbone": _backbone_call(backbone, batch_size)}
    counts = {"backbone": batch_size}
    for method in methods:
        model = make_model(method)
        variables = jax.jit(model.init)(jax.random.key(0), draw_sets(2))
        fuse = jax.jit(partial(_fused, model))
        for size in SIZES:
            name = f"{method} {size}"
            arguments = jax.device_put((variables, draw_sets(size)))
            calls[name] = partial(fuse, *arguments)
            counts[name] = size
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    speed = {name: counts[name] / medians[name] for name in medians}
    results: dict[str, Any] = {"backbone_images_per_s": speed.pop("backbone")}
    for name, images_per_s in speed.items():
        method, size = name.split()
        results.setdefault(method, {})[size] = {
            "images_per_s": images_per_s,
            "relative": images_per_s / results["backbone_images_per_s"],
        }
    settings = dict(
        backbone=backbone,
        batch_size=batch_size,
        rounds=rounds,
        limit_mib=options.limit_mib,
    )
    for method in methods:
        results[method]["largest"] = largest(method, limit=options.limit_mib)
    harness.record("set_fusion", settings, results)
    return results


def _fused(model: nn.Module, variables: Any, sets: ImageSets) -> jax.Array:
    return model.apply(variables, sets).embeddings


def _backbone_call(backbone: str, batch_size: int):
    model = registry.network(backbone, "recognizer").make()
    images = jnp.zeros((batch_size, *model.image_size, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return partial(jax.jit(model.apply), variables, images)


def largest(method: str, *, limit: int) -> dict[str, int]:
    """How many images are fused at once in so much memory, as XLA states it.

    Args:
      method: of METHODS.
      limit: MiB that the program's arguments and temporary arrays may take.
    Returns: N, the largest power of two, and what it takes in MiB.
    """
    model = make_model(method)
    variables = jax.eval_shape(model.init, jax.random.key(0), draw_sets(2))
    fuse, best = jax.jit(partial(_fused, model)), {}
    for power in range(9, 21):
        size = 1 << power
        shapes = jax.tree.map(
            lambda x, n=size: jax.ShapeDtypeStruct((1, n, *x.shape[2:]), x.dtype),
            draw_sets(2),
        )
        memory = fuse.lower(variables, shapes).compile().memory_analysis()
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        if used > limit << 20:
            break
        best = {"images": size, "mib": used >> 20}
    return best


def stream(images: int, *, batch: int) -> dict[str, Any]:
    """Fuse a stream of random features, made as they are needed.

    Returns: seconds, images_per_s, and the peak memory of the process after each tenth
      of the stream, in MiB.
    """
    model = make_model("cluster_aggregate")
    variables = jax.jit(model.init)(jax.random.key(0), draw_sets(2))
    update = jax.jit(
        lambda state, sets: model.apply(variables, state, sets, method="update"),
        donate_argnums=0,
    )
    batches, state = -(-images // batch), model.init_state(1)
    mask = np.ones((1, batch), bool)
    pool = np.random.default_rng(0).normal(size=(batch + 101, 2 * STYLE_CHANNELS))
    pool = pool.astype(np.float32)

    def sets(number: int) -> ImageSets:
        rows = pool[number % 101 :][:batch]  # other features in every batch
        features = Features(
            rows[None, :, :EMBED_DIM].copy(),
            style=rows.reshape(1, batch, STYLE_CHANNELS, 2).copy(),
        )
        return ImageSets(features, mask)

    jax.block_until_ready(update(state, sets(0)))  # compiles
    state, peaks = model.init_state(1), []
    start = time.perf_counter()
    for number in range(batches):
        state = update(state, sets(number))
        if (number + 1) % max(batches // 10, 1) == 0:
            jax.block_until_ready(state)
            usage = resource.getrusage(resource.RUSAGE_SELF)
            peaks.append(round(usage.ru_maxrss / 1024, 1))
    fused = model.apply(variables, state, method="finalize")
    seconds = time.perf_counter() - start
    if not np.isfinite(fused.embeddings).all():
        raise RuntimeError("set_fusion: the fused embedding is not finite")
    mass = float(state.mass.sum())  # the number of images but for round-off
    results = {
        "images": batches * batch,
        "counted": mass,
        "seconds": seconds,
        "images_per_s": batches * batch / seconds,
        "peak_mib": peaks,
    }
    harness.record("set_fusion_stream", dict(images=images, batch=batch), results)
    return results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--backbone",
        choices=list(BACKBONES),
        default="mobilefacenet",
        help="to compare with",
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, help="images of the backbone at once"
    )
    parser.add_argument(
        "--methods", type=words, default=list(METHODS), help="to compare"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed calls of each variant"
    )
    parser.add_argument(
        "--limit-mib", type=int, default=8192, help="memory of the largest set"
    )
    parser.add_argument(
        "--images", type=int, default=1000000, help="of the stream; 0 = no stream"
    )
    parser.add_argument(
        "--stream-batch", type=int, default=256, help="n' of the stream"
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    results = compare(
        options,
        options.backbone,
        options.methods,
        batch_size=options.batch_size,
        rounds=options.rounds,
    )
    speed = results.pop("backbone_images_per_s")
    sys.stdout.write(f"{options.backbone}: {speed:.1f} images/s\n")
    for method, sizes in results.items():
        most = sizes.pop("largest")
        cells = "  ".join(f"{n}: {r['relative']:.1f}x" for n, r in sizes.items())
        sys.stdout.write(
            f"{method:18} {cells}  at once in {options.limit_mib} MiB: "
            f"{most['images']}\n"
        )
    if options.images:
        found = stream(options.images, batch=options.stream_batch)
        sys.stdout.write(
            f"stream of {found['images']}: {found['seconds']:.1f} s, "
            f"{found['images_per_s']:.0f} images/s, peak MiB {found['peak_mib']}\n"
        )
