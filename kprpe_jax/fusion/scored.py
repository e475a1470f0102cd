"""Weighted means whose weights are scores of detection and landmarks."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.core.unit import unit
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.landmark_score import landmark_score, score_weighted
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.geometry.template import face_template

SCORED_METHODS = ("detection_score", "norm_detection_score", "landmark_score")


class ScoredFusion(WeightedFusion):
    """Mean of embeddings scaled by the scores of their images; nothing is learned.

    Divided by the number of images, not by the sum of the scores, so that means of
    several media keep the weight of their scores.

    Source: KP-RPE, Eqs. 17 and 18 (`landmark_score`); the official IJB evaluation: the
    detector's score F times the unit embedding (`detection_score`), or times the
    embedding (`norm_detection_score`).

    Attributes:
      embed_dim: D.
      method: of SCORED_METHODS.
      image_size: (height, width) of the network's images, which says where the
        keypoints of an aligned face belong.
    """

    method: str = "landmark_score"
    image_size: tuple[int, int] = (112, 112)

    def setup(self) -> None:
        """Check the method."""
        if self.method not in SCORED_METHODS:
            raise ValueError(
                f"ScoredFusion: unknown method {self.method!r}; use one of "
                f"{SCORED_METHODS}."
            )

    def weigh(self, sets: ImageSets, *, train: bool = False) -> tuple[Array, Array]:
        """Scaled embeddings float32 [B, N, D], and equal log weights [B, N, 1].

        Raises: ValueError: embeddings of another width than embed_dim; no keypoints
          where they are scored.
        """
        embeddings, equal = self.check_embeddings(sets)
        scores = jnp.ones(sets.mask.shape) if sets.scores is None else sets.scores
        scores = jnp.where(sets.mask, scores, 0).astype(jnp.float32)
        if self.method == "norm_detection_score":
            return embeddings * scores[..., None], equal
        if self.method == "detection_score":
            return unit(embeddings) * scores[..., None], equal
        keypoints = sets.features.keypoints
        if keypoints is None:
            raise ValueError(
                "ScoredFusion: landmark_score weighs images by their keypoints; got "
                "features without; compute them with keypoints, or take another method."
            )
        keypoints = jnp.where(sets.mask[..., None, None], keypoints[..., :5, :], 0)
        size = np.float32(self.image_size[::-1])
        canonical = jnp.asarray(face_template(self.image_size) / size)
        fit = landmark_score(keypoints, canonical)
        return score_weighted(embeddings, fit, scores), equal
