"""One process of a search over several: `python -m tests.matching.run_search OUT`.

Arguments after OUT: the coordinator's address, the number of processes and which one
this is. Every process writes the whole ranking that it came to.
"""

import sys

import jax
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.nearest import search
from kprpe_jax.matching.two_stage import two_stage


def faces(rng: np.random.Generator, count: int) -> Features:
    """Random faces with six patches."""
    shapes = (count, 5), (count, 6, 4)
    return Features(*(rng.normal(size=s).astype(np.float32) for s in shapes))


def main(out: str, coordinator: str = "", count: str = "1", number: str = "0") -> None:
    """Search a random gallery on all devices of all processes."""
    if coordinator:
        jax.distributed.initialize(coordinator, int(count), int(number))
    rng = np.random.default_rng(0)
    queries, gallery = faces(rng, 7), faces(rng, 50)
    mesh = make_mesh({"data": -1, "fsdp": 1, "class": 1})
    matcher = EarthMoversMatcher(chunk=4, mesh=mesh)
    found = two_stage(queries, gallery, k=8, ranks=12, matcher=matcher, mesh=mesh)
    people = queries.embeddings, np.arange(7), gallery.embeddings, np.arange(50) % 9
    streamed = search(*people, k=5, block=16, mesh=mesh)
    np.savez(
        out,
        rows=found.rows,
        scores=found.scores,
        streamed_rows=streamed.rows,
        streamed_mates=streamed.mate_score,
        devices=mesh.size,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
