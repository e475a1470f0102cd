"""Approximate nearest neighbors by FAISS, behind the interface of the exact ones."""

import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import check_option, finite
from kprpe_jax.matching.nearest import Ranking, check_search

KINDS = ("hnsw", "ivf")


class FaissIndex:
    """A graph or inverted lists; `recall` says what they miss.

    Needs the extra `search`: pip install '.[search]'.
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        *,
        kind: str = "hnsw",
        effort: int = 128,
        neighbors: int = 32,
    ):
        """Build the index in memory.

        Args:
          embeddings: float [G, D], not normalized.
          kind: `hnsw`, a graph that is walked; `ivf`, sqrt(G) lists of which some are
            searched.
          effort: of a search: breadth of the walk, or number of lists; more finds more.
          neighbors: of a node of the graph.
        Raises: ValueError: FAISS is not installed, an unknown kind, embeddings that are
          none or not finite.
        """
        try:
            import faiss
        except ImportError as e:
            raise ValueError(
                "FaissIndex: FAISS is not installed; run pip install "
                "'.[search]', or use ExactIndex."
            ) from e
        check_option("FaissIndex", "kind", kind, KINDS)
        if not len(embeddings):
            raise ValueError("FaissIndex: there must be embeddings; got none.")
        self._rows = _unit(finite("FaissIndex", embeddings))
        count, width = self._rows.shape
        product = faiss.METRIC_INNER_PRODUCT
        if kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(width, neighbors, product)
            self._index.hnsw.efSearch = effort
        else:
            lists = max(1, round(count**0.5))
            flat = faiss.IndexFlatIP(width)
            self._index = faiss.IndexIVFFlat(flat, width, lists, product)
            self._index.own_fields, self._quantizer = False, flat
            self._index.train(self._rows)
            self._index.nprobe = min(effort, lists)
        self._index.add(self._rows)

    def __len__(self) -> int:
        """Rows of the gallery."""
        return len(self._rows)

    def search(self, queries: ArrayLike, k: int) -> Ranking:
        """The k rows that were found nearest; -1 where fewer were found.

        Args:
          queries: float [Q, D], not normalized.
          k: 1 <= k <= size of the gallery.
        Raises: ValueError: k out of range, another width, queries not finite.
        """
        check_search("FaissIndex", queries, self._rows, k)
        scores, rows = self._index.search(_unit(finite("FaissIndex", queries)), k)
        scores = np.where(rows < 0, -np.inf, scores)
        return Ranking(rows.astype(np.int32), scores.astype(np.float32))


def recall(found: Ranking, exact: Ranking) -> float:
    """Share of the exact neighbors that were found, in any order.

    Args:
      found, exact: of the same queries, [Q, k].
    """
    hits = (found.rows[:, :, None] == exact.rows[:, None]).any(1)
    return float(hits[exact.rows >= 0].mean())


def _unit(x: ArrayLike) -> np.ndarray:
    x = np.asarray(x, np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.ascontiguousarray(x / np.where(length > 0, length, 1))
