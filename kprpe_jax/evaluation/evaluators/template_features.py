"""Templates of a data set's images by set fusion: what protocols share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.template_sets import TemplateSet, open_template_set
from kprpe_jax.evaluation.embedding import MIRRORS, embed, stream_features
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.fused_templates import sum_media
from kprpe_jax.evaluation.protocols import gallery_search
from kprpe_jax.evaluation.templates import Templates
from kprpe_jax.fusion.files import FusionFile, check_fusion
from kprpe_jax.fusion.stream import ImageRows, fuse_rows
from kprpe_jax.weights.fusions import MEANS, make_mean

_FIELDS = ("embeddings", "keypoints")
# (recognizer, mesh, images) -> their templates
Fuse = Callable[[Recognizer, Mesh, TemplateSet], Templates]


class TemplateOptions(NamedTuple):
    """Fields that the evaluators of protocols share.

    Attributes:
      data: of the run.
      align: bring photos of any size to the template first.
      mirror: of `embed`.
      fusion: of a template's images, as `load_fusion` takes it: `norm` (Eq. 16 of
        KP-RPE), `average`, either multiplied by the detector's score F as
        `norm_detection_score` and `detection_score`, `landmark_score`, d F of Eqs. 17
        and 18 (F is 1 where an import has none), or a learned model. The means take
        the mean of each medium first, as the protocols of IJB do; a learned model
        fuses all images of a template in a stream.
    """

    data: FaceData
    align: bool
    mirror: str
    fusion: str = "norm"

    def open(self, name: str) -> TemplateSet:
        """Open a data set of templates.

        Raises: ValueError: an unknown mirror; as `open_template_set`.
        """
        if self.mirror not in MIRRORS:
            raise ValueError(f"mirror must be one of {MIRRORS}; got {self.mirror!r}.")
        # Without keypoints Eq. 17 gives every image the same weight.
        scored = self.fusion == "landmark_score"
        return open_template_set(
            self.data.dir,
            name,
            image_size=self.data.image_size,
            align=self.align,
            needs_keypoints=self.data.needs_keypoints or scored,
        )

    def embed(self, recognizer: Recognizer, mesh: Mesh, faces: FaceRows) -> np.ndarray:
        """Embeddings float32 [N, D] of faces, not normalized, in every process."""
        return embed(
            recognizer,
            faces,
            batch_size=self.data.batch_size,
            mesh=mesh,
            mirror=self.mirror,
        ).embeddings

    def make_fuse(self) -> Fuse:
        """A function that fuses templates; images are read and fused in a stream.

        Raises: ValueError: as `load_fusion`; the function: as `check_fusion`, and an
          image whose features are not finite.
        """
        learned = None
        if self.fusion not in MEANS:
            learned = registry.resolve(registry.LOAD_FUSION)(self.fusion)

        def fuse(
            recognizer: Recognizer, mesh: Mesh, templates: TemplateSet
        ) -> Templates:
            file, media = learned, np.zeros_like(templates.media)
            if file is None:
                file, media = self._make_mean(recognizer), templates.media
            else:
                check_fusion(file, recognizer)
            pairs, sets = np.unique(
                np.stack([templates.template, media], -1), axis=0, return_inverse=True
            )
            order = np.argsort(sets.ravel(), kind="stable")
            features = stream_features(
                recognizer,
                templates.faces.select(order),
                batch_size=self.data.batch_size,
                mesh=mesh,
                mirror=self.mirror,
                fields=_FIELDS if learned is None else (*_FIELDS, "style"),
            )
            rows = _rows(features, order, sets.ravel(), templates.detection_score)
            fused = fuse_rows(file.model, file.variables, rows)
            return sum_media(fused, np.arange(len(pairs)), pairs[:, 0])

        return fuse

    def _make_mean(self, recognizer: Recognizer) -> FusionFile:
        width = recognizer.shapes().embeddings.shape[-1]
        width *= 2 if self.mirror == "concatenate" else 1
        return make_mean(self.fusion, width, recognizer.image_size)


def _rows(
    features: Iterator[Features],
    order: np.ndarray,
    sets: np.ndarray,
    scores: np.ndarray,
) -> Iterator[ImageRows]:
    """Features with the sets and scores of their images, which `order` names."""
    start = 0
    for part in features:
        rows = order[start : start + len(part.embeddings)]
        start += len(rows)
        bad = ~np.isfinite(part.embeddings).all(1)
        if bad.any():
            raise ValueError(
                "fuse: embeddings must be finite; got one with NaN or infinity, the "
                f"first is row {rows[bad.argmax()]}; find out which image made it."
            )
        yield ImageRows(sets[rows], part, scores[rows])


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
