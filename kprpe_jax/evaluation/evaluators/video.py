"""Type `video`: IJB-S, templates of videos searched in every gallery."""

import numpy as np
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.evaluators.template_features import (
    TemplateOptions,
    check_different,
    floats,
    search_galleries,
)


def build(
    data: FaceData,
    *,
    probes: str,
    galleries: tuple = (),
    fusion: str = "norm",
    align: bool = False,
    mirror: str = "sum",
) -> Evaluator:
    """Build the evaluator.

    Surveillance-to-Single, -Booking and -Surveillance differ in what the galleries
    are: stills (a person's images are a template) or templates of other videos. People
    are the same where their identities are, as text.

    Args:
      data: of the run.
      probes: data set of the videos.
      galleries: data sets that they are searched in, at least one.
      fusion, align, mirror: of `TemplateOptions`.
    Returns: function (recognizer, mesh) -> rank-1, rank-5 and TPIR at FPIR 1 % and
      10 %, the mean over the galleries, and the number of probe templates.
    Raises: ValueError: no gallery, a data set twice; as `TemplateOptions`.
    """
    if not galleries:
        raise ValueError("galleries must name at least one data set; got none.")
    check_different([probes, *galleries])
    options = TemplateOptions(data, align, mirror, fusion)
    fuse = options.make_fuse()
    sets = [options.open(name) for name in (probes, *galleries)]

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        fused = [fuse(recognizer, mesh, templates) for templates in sets]
        people = [s.identity[np.unique(s.template, return_index=True)[1]] for s in sets]
        _, number = np.unique(np.concatenate(people), return_inverse=True)
        subjects = np.split(number, np.cumsum([len(p) for p in people])[:-1])
        searched = [
            (t.unit_embeddings, s) for t, s in zip(fused, subjects, strict=True)
        ]
        found = search_galleries(*searched[0], searched[1:], ranks=(1, 5), mesh=mesh)
        return {**floats(found), "templates": len(people[0])}

    return evaluate
