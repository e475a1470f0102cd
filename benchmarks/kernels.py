"""The Pallas kernels beside XLA's paths, on a GPU or TPU.

    python -m benchmarks.kernels [--presets small,base --batch_size 128 --pairs 1000]

Attention: training steps and inference of the same ViT with KP-RPE, images/s. Sinkhorn:
flows of 64 x 64 patches in 100 iterations, pairs/s. Appends to results/kernels.jsonl.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import harness, vit_position
from kprpe_jax.matching.sinkhorn import Plan, transport
from kprpe_jax.matching.two_stage import FAST

ATTENTION = {name: dict(attention=name) for name in ("xla", "pallas")}
DOMAINS = ("kernel", "pallas")

_PRESETS = flags.DEFINE_list("presets", ["small", "base"], "Sizes of the ViT; or none.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a call.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Compute types.")
_PAIRS = flags.DEFINE_integer("pairs", 1000, "Problems a call; or 0.")
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Timed calls of each variant.")


def run_sinkhorn(pairs: int, *, patches: int = 64, rounds: int) -> dict[str, Any]:
    """Flows in both domains, which must agree; `harness.summarise` of each."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 1, (2, pairs, patches)).astype(np.float32)
    cost = rng.uniform(0, 1.5, (pairs, patches, patches)).astype(np.float32)
    problem = jax.device_put((cost, *weights / weights.sum(-1, keepdims=True)))
    solve: Callable[..., Plan] = jax.jit(transport, static_argnums=3)
    calls = {
        domain: partial(solve, *problem, FAST._replace(domain=domain))
        for domain in DOMAINS
    }
    want, got = (np.asarray(calls[domain]().flow) for domain in DOMAINS)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * want.max())
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    return harness.summarise(seconds, baseline="kernel", items=pairs)


def main(_: list[str]) -> None:
    """Run, print and record."""
    if jax.default_backend() == "cpu":
        sys.exit(
            "benchmarks.kernels: on CPUs Pallas kernels are interpreted, which says "
            "nothing of their speed; run this where JAX finds a GPU or TPU."
        )
    results: dict[str, dict[str, Any]] = {}
    for preset in _PRESETS.value:
        for dtype in _DTYPES.value:
            both = vit_position.measure(
                preset, _BATCH_SIZE.value, ATTENTION, baseline="xla",
                dtype=dtype, rounds=_ROUNDS.value,
            )  # fmt: skip
            results |= {f"{preset} {dtype} {mode}": x for mode, x in both.items()}
    if _PAIRS.value:
        results["sinkhorn"] = run_sinkhorn(_PAIRS.value, rounds=_ROUNDS.value)
    for title, variants in results.items():
        for name, r in variants.items():
            sys.stdout.write(
                f"{title:24} {name:8} {r['items_per_s']:12.1f} a second  "
                f"time x {r['time_ratio']:.3f}\n"
            )
    settings = dict(
        batch_size=_BATCH_SIZE.value, pairs=_PAIRS.value, rounds=_ROUNDS.value
    )
    harness.record("kernels", settings, results)


if __name__ == "__main__":
    app.run(main)
