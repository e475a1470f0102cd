"""Why two faces match: a page that shows which patch went where, in one HTML file.

Source: DeepFace-EMD, Sec. 3.2 and Eq. 3.9 (flow visualization), Fig. 5.2 (rankings
before and after).
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.report.page import data_uri, write_page


class Candidate(NamedTuple):
    """One answer.

    Attributes:
      person, photo: who, and which photo of theirs.
      image: uint8 [H, W, 3], or None where it is missing.
      scores: name -> number, in the order of the columns, larger = more alike.
      first_rank: place by the first stage alone, from 1; None = there was only one.
      flow: float [N, M] >= 0, weight that goes from query patch n to patch m; None
        without a second stage.
      weights: float [M] >= 0, of its patches; None = not shown.
      query_weights: float [N] >= 0, of the query's patches beside this face; None = not
        shown.
    """

    person: str
    photo: str
    image: np.ndarray | None
    scores: Mapping[str, float]
    first_rank: int | None = None
    flow: np.ndarray | None = None
    weights: np.ndarray | None = None
    query_weights: np.ndarray | None = None


class Query(NamedTuple):
    """A queried face and its matches.

    Attributes:
      name: of the photo.
      image: uint8 [H, W, 3].
      grid: (rows, columns) of its patches, N in all, row-major.
      candidates: best first; may be empty.
      candidate_grid: (rows, columns) of the candidates' patches; None = the same.
      weights: float [N] >= 0, of its patches; None = not shown.
      note: a remark, such as why there is no match.
    """

    name: str
    image: np.ndarray
    grid: tuple[int, int]
    candidates: Sequence[Candidate]
    candidate_grid: tuple[int, int] | None = None
    weights: np.ndarray | None = None
    note: str = ""


def write_match_page(
    queries: Sequence[Query],
    path: str | os.PathLike,
    *,
    title: str = "Who is it, and why",
) -> None:
    """Write the page.

    Args:
      queries: in the order of the page.
      path: of the file.
      title: of the page.
    Raises: ValueError: flows or weights that do not fit the grids or are not finite and
      >= 0, images that are not uint8 [H, W, 3].
    """
    data = [_query(query) for query in queries]
    write_page(path, "match_page", title, data)


def _query(query: Query) -> dict[str, Any]:
    where = f"write_match_page: query {query.name!r}"
    grid = query.candidate_grid or query.grid
    return {
        "name": query.name,
        "note": query.note,
        "image": data_uri(query.image, where),
        "size": query.image.shape[:2],
        "grid": query.grid,
        "candidateGrid": grid,
        "weights": _levels(query.weights, (query.grid[0] * query.grid[1],), where),
        "candidates": [
            _candidate(c, query.grid[0] * query.grid[1], grid, f"{where}, {c.photo!r}")
            for c in query.candidates
        ],
    }


def _candidate(
    candidate: Candidate, patches: int, grid: tuple[int, int], where: str
) -> dict[str, Any]:
    own = grid[0] * grid[1]
    image = candidate.image
    return {
        "person": candidate.person,
        "photo": candidate.photo,
        "image": None if image is None else data_uri(image, where),
        "size": None if image is None else image.shape[:2],
        "scores": [[name, float(s)] for name, s in candidate.scores.items()],
        "firstRank": candidate.first_rank,
        "flow": _levels(candidate.flow, (patches, own), where),
        "weights": _levels(candidate.weights, (own,), where),
        "queryWeights": _levels(candidate.query_weights, (patches,), where),
    }


def _levels(
    values: np.ndarray | None, shape: tuple[int, ...], where: str
) -> list[int] | None:
    """Non-negative numbers as 0 .. 255 of their largest, row-major."""
    if values is None:
        return None
    values = np.asarray(values, np.float64)
    if values.shape != shape or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"{where}: flows and weights must be finite, >= 0 and of shape {shape}, as "
            f"the grids say; got {values.shape}; correct the grids or the numbers."
        )
    return (
        np.round(255 * values / max(values.max(), 1e-30)).astype(int).ravel().tolist()
    )
