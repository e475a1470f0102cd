"""Type `landmark_errors`: of the mixer of anchors (Eq. 15), or of the best anchor.

Source: KP-RPE, Supp. 3.1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.landmarks import (
    box_size,
    normalized_errors,
    summarize_errors,
)

PREDICTORS = ("mixer", "nms")


class LandmarkData:
    """What a run says of its data and its network to every evaluator of landmarks.

    Args:
      predict: compiled; (params, collections, batch, *, min_score) -> {predictor:
        (keypoints [B, 5, 2], found [B])}, labels [B, 5, 2], boxes [B, 4].
      open_split: name -> rows.
      batch_size: rows of the global batch.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        open_split: Callable[[str], Sequence],
        *,
        batch_size: int,
    ):
        self.predict, self.open_split = predict, open_split
        self.batch_size = batch_size


def build(
    data: LandmarkData,
    *,
    predictor: str = "mixer",
    split: str = "test",
    min_score: float = 0.02,
    failure: float = 0.1,
) -> Evaluator:
    """Build the evaluator.

    Crops are by the labeled box, without jitter; errors are divided by its size.

    Args:
      data: of the run.
      predictor: `mixer`, or `nms`, of the best anchor.
      split: of the data set.
      min_score: of a face that is found; the official test of RetinaFace has 0.02.
      failure: error above which a face counts as failed.
    Returns: function (state, mesh) -> as `summarize_errors`.
    Raises: ValueError: an unknown predictor; as `open_split`.
    """
    if predictor not in PREDICTORS:
        raise ValueError(
            f"predictor must be one of {', '.join(PREDICTORS)}; got {predictor!r}."
        )
    rows = data.open_split(split)

    def evaluate(state: Any, mesh: Mesh) -> dict[str, float]:
        def run(batch: dict[str, jax.Array], _: jax.Array) -> Any:
            found, points, boxes = data.predict(
                state.params, state.collections, batch, min_score=min_score
            )
            return *found[predictor], points, boxes

        predicted, found, points, boxes = map_rows(
            run, rows, batch_size=data.batch_size, mesh=mesh
        )
        errors = normalized_errors(predicted, points, box_size(boxes), found=found)
        return summarize_errors(errors, failure=failure)

    return evaluate
