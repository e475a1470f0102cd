"""Published protocols of templates and searches, from a data set to their numbers.

A protocol is written "kind:data set,data set,...":

    ijb:ijbc                    1:1 and 1:N of IJB-B or IJB-C, by the set's own lists
    tinyface:tinyface           rank-k among distractors
    video:probes,gallery,...    IJB-S: templates of videos, searched in every gallery
    megaface:people,distractors rank-1 with one mate at a time among the distractors

The formulas are those of `protocols`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.template_sets import TemplateSet
from kprpe_jax.evaluation.conditions import Evaluator, merge_evaluators
from kprpe_jax.evaluation.embedding import Embed, map_rows, with_mirror
from kprpe_jax.evaluation.protocols import (
    distractor_search,
    gallery_search,
    million_distractors,
    template_verification,
)
from kprpe_jax.evaluation.roc import FARS, resolved_rates
from kprpe_jax.evaluation.templates import (
    WEIGHTS,
    Templates,
    pool_templates,
    template_rows,
)
from kprpe_jax.fusion.landmark_score import landmark_score
from kprpe_jax.geometry.template import face_template

# What weighs an image beside its norm ("equal": unit vectors).
POOLINGS = (*WEIGHTS, "norm_detection_score", "detection_score", "landmark_score")
_LEAST_SCORE = 1e-6  # as `score_weighted`: bad images only still have a direction
_BLOCK_ROWS = 1 << 16  # of distractors in memory


class Images(NamedTuple):
    """What is known of embedded images.

    Attributes:
      embeddings: float32 [N, D], not normalized.
      scores: float32 [N], how well their keypoints fit the template (Eq. 17).
    """

    embeddings: np.ndarray
    scores: np.ndarray


# (state, mesh, faces) -> Images
EmbedFaces = Callable[[Any, Mesh, FaceRows], Images]


def protocol_evaluators(
    embed: Embed,
    protocols: Sequence[str],
    open_set: Callable[[str], TemplateSet],
    *,
    batch_size: int,
    mirror: str = "sum",
    pooling: str = "norm",
) -> dict[str, Evaluator]:
    """Build an evaluator per protocol.

    Args:
      embed: the network.
      protocols: as the module says.
      open_set: name of a data set -> its templates (`open_template_set`).
      batch_size: images of the global batch.
      mirror: of `with_mirror`.
      pooling: of a template's images: `norm` or `equal` (`pool_templates`), each also
        with the detector's score F as `norm_detection_score` and `detection_score`, or
        `landmark_score`, d F of KP-RPE, Eq. 17 and 18. F is 1 where an import has none.
    Returns: "kind_data_set_..." -> function (state, mesh) -> {metric: share in [0, 1]}.
    Raises: ValueError: an unknown kind or pooling, a wrong number of data sets, two
      protocols of one name; as `open_set`.
    """
    if pooling not in POOLINGS:
        raise ValueError(
            f"config.evals.pooling must be one of {POOLINGS}; got {pooling!r}."
        )
    embed_faces = _embed_faces(embed, batch_size, mirror)
    pool = partial(_pool, pooling=pooling)
    built = []
    for protocol in protocols:
        kind, names = parse_protocol(protocol)
        sets = [open_set(name) for name in names]
        name = "_".join([kind, *names])
        built.append((name, partial(KINDS[kind], embed_faces, pool, names, sets)))
    return merge_evaluators(built)


def parse_protocol(text: str) -> tuple[str, list[str]]:
    """Split "kind:data set,data set".

    Raises: ValueError: an unknown kind; too few or too many data sets, or one twice:
      who is searched among the same images is always found.
    """
    kind, _, names = text.partition(":")
    sets = [name for name in names.split(",") if name]
    least, most = _NUM_SETS.get(kind, (0, -1))
    if not least <= len(sets) <= most or len(set(sets)) < len(sets):
        raise ValueError(
            "config.evals.protocols must be written kind:data set, such as "
            f"{', '.join(_EXAMPLES)}, and name no set twice; got {text!r}."
        )
    return kind, sets


def ijb(
    embed_faces: EmbedFaces,
    pool: Callable[[TemplateSet, Images], Templates],
    names: list[str],
    sets: list[TemplateSet],
    state: Any,
    mesh: Mesh,
) -> dict[str, float]:
    """IJB-B and IJB-C: TAR at FAR over the pairs, each probe list in all galleries."""
    (templates,), lists = sets, sets[0].lists
    if not len(lists.first) and not (lists.galleries and lists.probes):
        raise ValueError(
            f"ijb: {names[0]} must hold lists of templates; got a data set without; "
            "import it with --kind ijb"
        )
    pooled = pool(templates, embed_faces(state, mesh, templates.faces))
    results: dict[str, float] = {}
    if len(lists.first):
        fars = resolved_rates(FARS, (~lists.same).sum())
        found = template_verification(
            pooled, lists.first, lists.second, lists.same, fars=fars
        )
        results = {
            _rate("tar_at_far", f): t for f, t in zip(fars, found.tar, strict=True)
        }
    unit = pooled.unit_embeddings
    galleries = [
        (unit[template_rows(pooled.ids, ids)], subjects)
        for ids, subjects in lists.galleries.values()
    ]
    for name, (ids, subjects) in lists.probes.items() if galleries else ():
        probes = unit[template_rows(pooled.ids, ids)]
        found = _search(probes, subjects, galleries, ranks=(1, 5, 10), mesh=mesh)
        results |= {f"{name}_{metric}": value for metric, value in found.items()}
    return {**_floats(results), "templates": len(pooled.ids)}


def video(
    embed_faces: EmbedFaces,
    pool: Callable[[TemplateSet, Images], Templates],
    names: list[str],
    sets: list[TemplateSet],
    state: Any,
    mesh: Mesh,
) -> dict[str, float]:
    """IJB-S: rank-1, rank-5 and TPIR at FPIR 1 %, the mean over the galleries.

    Surveillance-to-Single, -Booking and -Surveillance differ in what the galleries
    are: stills (a person's images are a template) or templates of other videos.
    People are the same where their identities are, as text.
    """
    del names
    pooled = [pool(s, embed_faces(state, mesh, s.faces)) for s in sets]
    people = [s.identity[np.unique(s.template, return_index=True)[1]] for s in sets]
    _, number = np.unique(np.concatenate(people), return_inverse=True)
    subjects = np.split(number, np.cumsum([len(p) for p in people])[:-1])
    searched = list(zip([p.unit_embeddings for p in pooled], subjects, strict=True))
    found = _search(*searched[0], searched[1:], ranks=(1, 5), mesh=mesh)
    return {**_floats(found), "templates": len(people[0])}


def tinyface(
    embed_faces: EmbedFaces,
    pool: Callable[[TemplateSet, Images], Templates],
    names: list[str],
    sets: list[TemplateSet],
    state: Any,
    mesh: Mesh,
) -> dict[str, float]:
    """TinyFace: rank-1, -5 and -20 of all probes in the matches and all distractors."""
    del pool
    (images,) = sets
    x = embed_faces(state, mesh, images.faces).embeddings
    of = {part: images.part == part for part in ("probe", "match", "distractor")}
    if not (of["probe"].any() and of["match"].any()):
        raise ValueError(
            f"tinyface: {names[0]} must hold probes and matches; got "
            f"{of['probe'].sum()} and {of['match'].sum()} images; import it with "
            "--kind tinyface"
        )
    ranks = (1, 5, 20)
    found = distractor_search(
        x[of["probe"]],
        images.template[of["probe"]],
        x[of["match"]],
        images.template[of["match"]],
        x[of["distractor"]],
        ranks=ranks,
        mesh=mesh,
    )
    results = {f"rank_{k}": value for k, value in zip(ranks, found, strict=True)}
    counts = {
        "probes": int(of["probe"].sum()),
        "gallery": int((of["match"] | of["distractor"]).sum()),
    }
    return {**_floats(results), **counts}


def megaface(
    embed_faces: EmbedFaces,
    pool: Callable[[TemplateSet, Images], Templates],
    names: list[str],
    sets: list[TemplateSet],
    state: Any,
    mesh: Mesh,
) -> dict[str, float]:
    """MegaFace, challenge 1: rank-1 among the distractors, which stay on disk."""
    del pool, names
    people, distractors = sets
    x = embed_faces(state, mesh, people.faces).embeddings
    count = len(distractors.faces)
    blocks = (
        embed_faces(
            state,
            mesh,
            distractors.faces.select(np.arange(start, min(start + _BLOCK_ROWS, count))),
        ).embeddings
        for start in range(0, count, _BLOCK_ROWS)
    )
    rank_1 = million_distractors(x, people.template, blocks, mesh=mesh)
    return {"rank_1": rank_1, "distractors": count}


KINDS = {"ijb": ijb, "tinyface": tinyface, "video": video, "megaface": megaface}
_NUM_SETS = {"ijb": (1, 1), "tinyface": (1, 1), "video": (2, 99), "megaface": (2, 2)}
_EXAMPLES = ("ijb:NAME", "tinyface:NAME", "video:PROBES,GALLERY", "megaface:NAME,NAME")


def _embed_faces(embed: Embed, batch_size: int, mirror: str) -> EmbedFaces:
    both = with_mirror(embed, mirror)

    @jax.jit
    def embed_batch(params, collections, batch):
        images = batch["image"].astype(np.float32) / 127.5 - 1
        height, width = images.shape[1:3]
        canonical = face_template((height, width)) / np.float32([width, height])
        return Images(
            both(params, collections, images, batch["keypoints"]),
            landmark_score(batch["keypoints"], canonical),
        )

    def embed_faces(state: Any, mesh: Mesh, faces: FaceRows) -> Images:
        return map_rows(
            lambda batch, _: embed_batch(state.params, state.collections, batch),
            faces,
            batch_size=batch_size,
            mesh=mesh,
        )

    return embed_faces


def _pool(templates: TemplateSet, images: Images, *, pooling: str) -> Templates:
    quality = None
    if pooling == "landmark_score":
        quality = np.maximum(images.scores * templates.detection_score, _LEAST_SCORE)
    elif pooling not in WEIGHTS:
        quality = templates.detection_score
    return pool_templates(
        images.embeddings,
        templates.template,
        media=templates.media,
        weights="norm" if pooling.startswith("norm") else "equal",
        quality=quality,
    )


def _search(
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
    return results | {_rate("tpir_at_fpir", f): value for f, value in pairs}


def _rate(name: str, rate: float) -> str:
    return f"{name}_{rate:.0e}".replace("e-0", "e-")


def _floats(results: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in results.items()}
