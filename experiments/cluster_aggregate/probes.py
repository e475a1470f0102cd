"""Probes and gallery behind `set_fusion`: the same for every method."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.data.features import StoredFeatures, read_features
from kprpe_jax.evaluation.probe_sizes import ProbeResult, probe_results, sample_probes
from kprpe_jax.tasks.growing_probes import enroll

FARS = (1e-4, 1e-3)


class Trial:
    """The people to recognize: the same probes and gallery for every method.

    Args:
      config: of the runs; reads data.dir and evals.
      gallery: features data set whose clean rows of other people join the gallery; "" =
        none.
      sizes: images of a probe.
    """

    def __init__(self, config: ConfigDict, gallery: str, sizes: Sequence[int]):
        evals = config.evals.probes
        self.asked = {"gallery": gallery, "sizes": list(sizes)}
        read = partial(
            read_features,
            config.data.dir,
            evals.features,
            identities=tuple(evals.identities) or None,
        )
        enrolled, self.images = enroll(read("clean"), read("degraded"), size=max(sizes))
        rows, labels = enrolled.features.embeddings, enrolled.labels
        if gallery:
            more = read_features(config.data.dir, gallery, "clean")
            more = _first_of_each(more, without=labels)
            rows = np.concatenate([rows, more.features.embeddings])
            labels = np.concatenate([labels, more.labels])
        self.gallery, self.labels, self.sizes = rows, labels, sizes
        self.probes = sample_probes(
            self.images.labels, size=max(sizes), repeats=evals.repeats, seed=0
        )

    def run(
        self, model: nn.Module, variables: Any, **options
    ) -> dict[int, ProbeResult]:
        """Search with all probes; options of `probe_results`."""
        return probe_results(
            model,
            variables,
            self.images.features,
            self.probes,
            self.gallery,
            self.labels,
            **{"sizes": self.sizes, "fars": FARS, **options},
        )

    def describe(self) -> str:
        """One sentence about people and probes."""
        return (
            f"{len(self.probes.rows)} probes of {len(np.unique(self.probes.labels))} "
            f"people, searched among {len(self.labels)} people."
        )


def _first_of_each(rows: StoredFeatures, *, without: np.ndarray) -> StoredFeatures:
    _, first = np.unique(rows.labels, return_index=True)
    first = rows.select(first)
    return first.select(~np.isin(first.labels, without))


def by_metric(results: dict[int, ProbeResult]) -> dict[str, dict[str, float]]:
    """Results as JSON: metric -> size -> share."""
    return {
        "rank1": {str(n): r.rank1 for n, r in results.items()},
        **{
            name: {str(n): float(r.tar[index]) for n, r in results.items()}
            for index, name in enumerate(("tar_1e-4", "tar_1e-3"))
        },
    }
