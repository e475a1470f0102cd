"""Time a query of each re-ranker on the same candidates: Face-ViT's Table 5.14.

    python -m benchmarks pair_matching [--queries 2 --rounds 3]

100 candidates of random patches, 8 x 8 of 512 as in the thesis. Earth mover's distance
by our second stage; H2L and H2 of the thesis' size and of configs/pair_matching.py; of
one-image networks the gallery's embeddings lie ready and a query costs its own.
Processor seconds where the device is one.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import unit
from kprpe_jax.matching.matchers import EarthMoversMatcher, PairMatcher
from kprpe_jax.matching.patch_encoder import PairEncoder
from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear

K, PATCHES, CHANNELS = 100, 64, 512
SIZES = {  # heads, hidden width, output
    "thesis": (2, 2048, 512),
    "small": (2, 256, 256),
}


def measure(*, queries: int, rounds: int) -> dict[str, Any]:
    """Re-rank some queries by everything in turn.

    Args:
      queries: of a call.
      rounds: calls of each.
    Returns: name -> its times and their ratio to `emd_uniform`.
    """
    rng = np.random.default_rng(0)

    def draw(count: int) -> Features:
        embeddings = rng.normal(size=(count, CHANNELS)).astype(np.float32)
        patches = rng.normal(size=(count, PATCHES, CHANNELS)).astype(np.float32)
        return Features(embeddings, patches)

    query, gallery = draw(queries), draw(2 * K)
    rows = np.stack([rng.permutation(2 * K)[:K] for _ in range(queries)])
    calls: dict[str, Callable[[], Any]] = {
        f"emd_{name}": partial(EarthMoversMatcher(name).score, query, gallery, rows)
        for name in ("uniform", "apc")
    }
    for size, (heads, hidden, output) in SIZES.items():
        encoder = PairEncoder(
            1, heads, hidden, attention="norm_residual", dropout_rate=0.0
        )
        for name, model in (
            ("h2l", TwoLinear(encoder, output)),
            ("h2", SameOrNot(encoder)),
        ):
            matcher = _matcher(model)
            calls[f"{name}_{size}"] = partial(matcher.score, query, gallery, rows)
        calls[f"h1_{size}"] = _one_image(OneImage(encoder), query, gallery, rows)
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    summary = harness.summarize(seconds, baseline="emd_uniform", items=queries)
    settings = dict(
        k=K, patches=PATCHES, channels=CHANNELS, depth=1, sizes=SIZES,
        queries=queries, rounds=rounds,
        clock="processor" if jax.devices()[0].platform == "cpu" else "wall",
    )  # fmt: skip
    harness.record("pair_matching", settings, summary)
    return summary


def _matcher(model: TwoLinear | SameOrNot) -> PairMatcher:
    one = np.zeros((1, PATCHES, CHANNELS), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), one, one)
    return PairMatcher(model, variables, chunk=1)


def _one_image(
    model: OneImage, query: Features, gallery: Features, rows: np.ndarray
) -> Callable[[], np.ndarray]:
    variables = jax.jit(model.init)(jax.random.key(0), gallery.patches[:1])
    embed = jax.jit(lambda patches: unit(model.apply(variables, patches)))
    known = np.asarray(embed(gallery.patches))

    def rank() -> np.ndarray:
        mine = [np.asarray(embed(patches[None]))[0] for patches in query.patches]
        return np.einsum("qkd,qd->qk", known[rows], np.stack(mine))

    return rank


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--queries", type=int, default=2, help="of a call (2)")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls (3)")


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    summary = measure(queries=options.queries, rounds=options.rounds)
    for name, row in summary.items():
        sys.stdout.write(
            f"{name:12} {1e3 / row['items_per_s']:9.1f} ms a query  "
            f"time x {row['time_ratio']:.2f}\n"
        )
