"""Re-rankings and exact searches a second.

    python -m benchmarks matching [--parts rerank,search,approximate] [--rows 1000000]

Seconds are of the processor, all threads together, so that a busy machine does not
change them much; on an accelerator they are of the clock. Where PyTorch can be imported
a batched Sinkhorn of the same iterations takes its turns in the same run.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from kprpe_jax.commands.options import words
from kprpe_jax.core.features import Features
from kprpe_jax.matching.approximate import FaissIndex, recall
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.nearest import ExactIndex, Ranking
from kprpe_jax.matching.sinkhorn import FAST

K, PATCHES, CHANNELS = 100, 64, 512
EPSILON, ITERATIONS = FAST.epsilon, FAST.iterations


def run_reranking(*, queries: int = 8, rounds: int = 5) -> dict[str, Any]:
    """Second stage of some queries: gathering, weights (APC), cosines and flows."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> Features:
        embeddings = rng.normal(size=(count, CHANNELS)).astype(np.float32)
        patches = rng.normal(size=(count, PATCHES, CHANNELS)).astype(np.float32)
        return Features(embeddings, patches)

    query, gallery = draw(queries), draw(4 * K)
    rows = np.stack([rng.permutation(4 * K)[:K] for _ in range(queries)])
    calls = {
        name: partial(EarthMoversMatcher(weighting).score, query, gallery, rows)
        for name, weighting in (("ours", "apc"), ("ours_uniform", "uniform"))
    }
    try:
        import torch
    except ImportError:
        sys.stdout.write("PyTorch cannot be imported: ours alone\n")
    else:
        torch.set_num_threads(jax.device_count())
        tensors = [torch.from_numpy(x.patches) for x in (query, gallery)]
        index = torch.from_numpy(rows)
        for name, sinkhorn in (
            ("torch_matmul", _torch_matmul),
            ("torch_broadcast", _torch_broadcast),
            ("torch_log", _torch_log),
        ):
            calls[name] = lambda sinkhorn=sinkhorn: [
                _torch_scores(torch, sinkhorn, q, tensors[1][r])
                for q, r in zip(tensors[0], index, strict=True)
            ]
        want = calls["ours"]()
        for name in ("torch_matmul", "torch_broadcast", "torch_log"):
            got = np.stack([x.numpy() for x in calls[name]()])
            np.testing.assert_allclose(got, want, atol=1e-3)
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    summary = harness.summarize(seconds, baseline="ours", items=queries)
    settings = dict(
        k=K, patches=PATCHES, channels=CHANNELS, iterations=ITERATIONS,
        queries=queries, rounds=rounds, clock="processor",
    )  # fmt: skip
    harness.record("reranking", settings, summary)
    return summary


def _torch_scores(torch: Any, sinkhorn: Callable, query: Any, gallery: Any) -> Any:
    """Similarities [k] of one query [N, C] with its candidates [k, N, C], APC."""
    with torch.no_grad():
        normal = torch.nn.functional.normalize
        cosine = normal(gallery, dim=-1) @ normal(query, dim=-1).T
        center = normal(gallery.mean(1), dim=-1)
        u = torch.relu(gallery @ normal(query.mean(0), dim=0))
        v = torch.relu(torch.einsum("nc,kc->kn", query, center))
        u, v = (x / (x.sum(-1, keepdim=True) + 1e-7) for x in (u, v))
        flow = sinkhorn(torch, (cosine - 1) / EPSILON, u, v)
        return (flow * cosine).sum((1, 2))


def _torch_matmul(torch: Any, exponent: Any, u: Any, v: Any) -> Any:
    kernel = torch.exp(exponent)
    r, c = torch.ones_like(u), torch.ones_like(v)
    for _ in range(ITERATIONS):
        r = u / torch.bmm(kernel, c[..., None])[..., 0]
        c = v / torch.bmm(kernel.transpose(1, 2), r[..., None])[..., 0]
    return r[..., None] * kernel * c[:, None]


def _torch_broadcast(torch: Any, exponent: Any, u: Any, v: Any) -> Any:
    kernel = torch.exp(exponent)
    r, c = torch.ones_like(u), torch.ones_like(v)
    for _ in range(ITERATIONS):
        r = u / (kernel * c[:, None]).sum(2)
        c = v / (kernel * r[..., None]).sum(1)
    return r[..., None] * kernel * c[:, None]


def _torch_log(torch: Any, exponent: Any, u: Any, v: Any) -> Any:
    log_u, log_v = (torch.log(x.clamp_min(1e-30)) for x in (u, v))
    f, g = torch.zeros_like(u), torch.zeros_like(v)
    for _ in range(ITERATIONS):
        f = log_u - torch.logsumexp(exponent + g[:, None], 2)
        g = log_v - torch.logsumexp(exponent + f[..., None], 1)
    return torch.exp(exponent + f[..., None] + g[:, None])


def run_search(rows: int, *, width: int = 512, rounds: int = 3) -> dict[str, Any]:
    """Exact top 100 of a resident gallery, and how fast it can be read at all."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((rows, width), np.float32)
    index = ExactIndex(gallery)
    queries = {n: rng.standard_normal((n, width), np.float32) for n in (1, 8, 64)}
    # Each row is read and multiplied once: what any exact search must do at least.
    placed = [jnp.asarray(part) for part in index._placed]
    del gallery
    weights = jnp.ones(width)
    read = jax.jit(lambda part: (part @ weights).max())
    calls = {"read_once": lambda: [read(part).block_until_ready() for part in placed]}
    for count, batch in queries.items():
        calls[f"queries_{count}"] = lambda batch=batch: index.search(batch, 100)
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    summary = harness.summarize(seconds, baseline="read_once", items=1)
    size = rows * width * 4
    summary["read_once"]["gb_per_s"] = size / 1e9 / summary["read_once"]["median_s"]
    for count in queries:
        row = summary[f"queries_{count}"]
        row["items_per_s"] = count / row["median_s"]
        row["gflop_per_s"] = 2e-9 * count * rows * width / row["median_s"]
    settings = dict(rows=rows, width=width, k=100, rounds=rounds, clock="processor")
    harness.record("search", settings, summary)
    return summary


def run_approximate(
    rows: int = 50_000, *, width: int = 128, rounds: int = 3
) -> dict[str, Any]:
    """Recall of the 100 nearest and speed by FAISS, of people with five photos each."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((rows // 5, width), np.float32)

    def photos(of: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((len(of), width), np.float32)
        return centers[of] + 0.7 * noise

    gallery = photos(np.repeat(np.arange(len(centers)), 5))
    queries = photos(rng.permutation(len(centers))[:64])
    exact = ExactIndex(gallery)
    want = exact.search(queries, 100)
    calls = {"exact": lambda: exact.search(queries, 100)}
    found = {}
    for kind, efforts in (("hnsw", (100, 400)), ("ivf", (8, 32))):
        for effort in efforts:
            index = FaissIndex(gallery, kind=kind, effort=effort)
            name = f"{kind}_{effort}"
            calls[name] = lambda index=index: index.search(queries, 100)
            found[name] = calls[name]()
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    summary = harness.summarize(seconds, baseline="exact", items=len(queries))
    for name, ranking in found.items():
        summary[name]["recall"] = recall(ranking, want)
        summary[name]["recall_at_5"] = recall(
            *(Ranking(x.rows[:, :5], None) for x in (ranking, want))
        )
    settings = dict(rows=rows, width=width, k=100, rounds=rounds, clock="processor")
    harness.record("approximate_search", settings, summary)
    return summary


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--parts",
        type=words,
        default=["rerank", "search"],
        help="of rerank,search,approximate (rerank,search)",
    )
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="of the gallery (1000000)"
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    runs = {"rerank": run_reranking, "search": lambda: run_search(options.rows)}
    runs["approximate"] = run_approximate
    for part in options.parts:
        for name, row in runs[part]().items():
            more = "".join(
                f"  {row[key]:.3g} {key}"
                for key in ("gb_per_s", "gflop_per_s", "recall", "recall_at_5")
                if key in row
            )  # fmt: skip
            sys.stdout.write(
                f"{name:16} {row['median_s'] * 1e3:9.1f} ms  "
                f"{row['items_per_s']:8.2f} queries/s  "
                f"time x {row['time_ratio']:.2f}{more}\n"
            )
