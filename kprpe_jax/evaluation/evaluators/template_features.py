"""Embeddings of the images of templates, and their pooling: what protocols share."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.template_sets import TemplateSet, open_template_set
from kprpe_jax.evaluation.embedding import MIRRORS, embed_mirrored, map_rows, place
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.protocols import gallery_search
from kprpe_jax.evaluation.templates import WEIGHTS, Templates, pool_templates
from kprpe_jax.fusion.landmark_score import landmark_score
from kprpe_jax.geometry.template import face_template

# What weighs an image beside its norm ("equal": unit vectors).
POOLINGS = (*WEIGHTS, "norm_detection_score", "detection_score", "landmark_score")
_LEAST_SCORE = 1e-6  # as `score_weighted`: bad images only still have a direction


class ScoredEmbeddings(NamedTuple):
    """Embedded images of faces.

    Attributes:
      embeddings: float32 [N, D], not normalized.
      scores: float32 [N], how well their keypoints fit the template (Eq. 17).
    """

    embeddings: np.ndarray
    scores: np.ndarray


class TemplateOptions(NamedTuple):
    """Fields that the evaluators of protocols share.

    Attributes:
      data: of the run.
      align: bring photos of any size to the template first.
      mirror: of `embed`.
      pooling: of a template's images: `norm` or `equal` (`pool_templates`), each also
        with the detector's score F as `norm_detection_score` and `detection_score`, or
        `landmark_score`, d F of KP-RPE, Eq. 17 and 18. F is 1 where an import has none.
    """

    data: FaceData
    align: bool
    mirror: str
    pooling: str = "norm"

    def open(self, name: str) -> TemplateSet:
        """Open a data set of templates.

        Raises: ValueError: an unknown mirror or pooling; as `open_template_set`.
        """
        for what, value, known in (
            ("mirror", self.mirror, MIRRORS),
            ("pooling", self.pooling, POOLINGS),
        ):
            if value not in known:
                raise ValueError(f"{what} must be one of {known}; got {value!r}.")
        # Without keypoints Eq. 17 gives every image the same weight.
        scored = self.pooling == "landmark_score"
        return open_template_set(
            self.data.dir,
            name,
            image_size=self.data.image_size,
            align=self.align,
            needs_keypoints=self.data.needs_keypoints or scored,
        )

    def embed(self, recognizer: Recognizer, mesh: Mesh, faces: FaceRows) -> Any:
        """ScoredEmbeddings of faces, in every process."""
        recognizer = place(recognizer, mesh)
        run = partial(_embed_scored, mirror=self.mirror)
        return map_rows(
            lambda batch, _: run(recognizer, batch["image"], batch["keypoints"]),
            faces,
            batch_size=self.data.batch_size,
            mesh=mesh,
        )

    def pool(self, templates: TemplateSet, images: ScoredEmbeddings) -> Templates:
        """Pool the images of each template."""
        quality = None
        if self.pooling == "landmark_score":
            quality = images.scores * templates.detection_score
            quality = np.maximum(quality, _LEAST_SCORE)
        elif self.pooling not in WEIGHTS:
            quality = templates.detection_score
        return pool_templates(
            images.embeddings,
            templates.template,
            media=templates.media,
            weights="norm" if self.pooling.startswith("norm") else "equal",
            quality=quality,
        )


@partial(jax.jit, static_argnames="mirror")
def _embed_scored(
    recognizer: Recognizer, images: Array, keypoints: Array, *, mirror: str
) -> ScoredEmbeddings:
    height, width = images.shape[1:3]
    canonical = face_template((height, width)) / np.float32([width, height])
    return ScoredEmbeddings(
        embed_mirrored(recognizer, to_unit_range(images), keypoints, mirror=mirror),
        landmark_score(keypoints, canonical),
    )


def search_galleries(
    probes: np.ndarray,
    subjects: np.ndarray,
    galleries: list[tuple[np.ndarray, np.ndarray]],
    *,
    ranks: Sequence[int],
    mesh: Mesh,
    fpirs: Sequence[float] = (0.01, 0.1),
) -> dict[str, float]:
    """Rank-k, and TPIR where every gallery lacks somebody."""
    if any(np.isin(subjects, ids).all() for _, ids in galleries):
        fpirs = ()
    found = gallery_search(
        probes, subjects, galleries, ranks=ranks, fpirs=fpirs, mesh=mesh
    )
    results = {f"rank_{k}": value for k, value in zip(ranks, found.rank, strict=True)}
    pairs = zip(fpirs, found.tpir, strict=True)
    return results | {rate_name("tpir_at_fpir", f): value for f, value in pairs}


def rate_name(name: str, rate: float) -> str:
    """NAME_1e-2 for a rate of 0.01."""
    return f"{name}_{rate:.0e}".replace("e-0", "e-")


def floats(results: dict[str, Any]) -> dict[str, float]:
    """Metrics as plain numbers."""
    return {name: float(value) for name, value in results.items()}


def check_different(names: Sequence[str]) -> None:
    """Raise ValueError where a data set is searched in itself."""
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(
            "the data sets must be named and differ, as who is searched among the same "
            f"images is always found; got {', '.join(names)}."
        )
