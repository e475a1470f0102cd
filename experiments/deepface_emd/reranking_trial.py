"""Queries, their rankings, and what is counted: tables behind `reranking`."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.deepface_emd.reranking_scores import WEIGHTINGS
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.two_stage import rank_again

ALPHAS = (0.0, 0.3, 0.5, 0.7, 1.0)
K = 100


class Trial(NamedTuple):
    """Queries and what was found for them.

    Attributes:
      rows: int [Q], gallery rows of the photos that the queries were made from.
      labels: int [Q].
      gallery_labels: int [G].
      first: cosine ranking; the own photo is among the rows.
      scores: float32 [Q, k + 1, W], earth mover's similarities of its first ranks.
    """

    rows: np.ndarray
    labels: np.ndarray
    gallery_labels: np.ndarray
    first: Ranking
    scores: np.ndarray

    def without_own(self) -> "Trial":
        """The same, had the own photo not been in the gallery."""
        own = self.first.rows == self.rows[:, None]
        order = np.argsort(own, axis=1, kind="stable")[:, :-1]
        short = np.argsort(own[:, : self.scores.shape[1]], axis=1, kind="stable")
        first = jax.tree.map(lambda x: np.take_along_axis(x, order, 1), self.first)
        scores = np.take_along_axis(self.scores, short[:, :-1, None], 1)
        return self._replace(first=first, scores=scores)

    def some(self, count: int) -> "Trial":
        """The first queries."""
        first = jax.tree.map(lambda x: x[:count], self.first)
        cut = (x[:count] for x in (self.rows, self.labels))
        return Trial(*cut, self.gallery_labels, first, self.scores[:count])

    def figures(
        self, scores: np.ndarray, alpha: float, relevant: np.ndarray
    ) -> dict[str, float]:
        """P@1, R-precision and MAP@R in percent, of scores [Q, k] mixed in."""
        ranking = rank_again(self.first, scores, alpha)
        found = self.gallery_labels[ranking.rows]
        means = (100 * x.mean() for x in retrieval(found, self.labels, relevant))
        return dict(zip(("p_at_1", "rp", "map_at_r"), means, strict=True))


def count_all(trial: Trial, *, own: str) -> dict[str, dict]:
    """Table 5.2 and Fig. 5.1 of one kind of queries.

    Args:
      trial: its scores have K + 1 ranks.
      own: `kept`: the own photo may be found; `removed`: it is not in the gallery;
        `counted`: it is never found, but R counts it, as in the thesis' LFW.
    """
    without = own != "kept"
    relevant = count_relevant(
        trial.labels, trial.gallery_labels, without_own=own == "removed"
    )
    trial = trial.without_own() if without else trial
    scores = trial.scores[:, :K]
    hits = trial.gallery_labels[trial.first.rows[:, :K]] == trial.labels[:, None]
    return {
        "stage1": trial.figures(scores[:, :, 0], 0.0, relevant),
        "perfect": trial.figures(hits.astype(np.float32), 1.0, relevant),
        **{
            name: {
                f"{alpha:g}": trial.figures(scores[:, :, i], alpha, relevant)
                for alpha in ALPHAS
            }
            for i, name in enumerate(WEIGHTINGS)
        },
    }
