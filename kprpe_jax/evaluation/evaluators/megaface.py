"""Type `megaface`: challenge 1, rank-1 of one mate at a time among distractors."""

import numpy as np
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.evaluators.template_features import (
    TemplateOptions,
    check_different,
)
from kprpe_jax.evaluation.protocols import million_distractors

_BLOCK_ROWS = 1 << 16  # of distractors in memory


def build(
    data: FaceData,
    *,
    probes: str,
    distractors: str,
    align: bool = False,
    mirror: str = "sum",
) -> Evaluator:
    """Build the evaluator.

    Args:
      data: of the run.
      probes: data set of people with several images.
      distractors: data set of strangers; their images stay on disk.
      align, mirror: of `TemplateOptions`.
    Returns: function (recognizer, mesh) -> rank-1, and the number of distractors.
    Raises: ValueError: one data set for both; as `TemplateOptions.open`.
    """
    check_different([probes, distractors])
    options = TemplateOptions(data, align, mirror)
    people, strangers = options.open(probes), options.open(distractors)

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        def run(faces):
            return options.embed(recognizer, mesh, faces)

        count = len(strangers.faces)
        blocks = (
            run(
                strangers.faces.select(
                    np.arange(start, min(start + _BLOCK_ROWS, count))
                )
            )
            for start in range(0, count, _BLOCK_ROWS)
        )
        embeddings = run(people.faces)
        rank_1 = million_distractors(embeddings, people.template, blocks, mesh=mesh)
        return {"rank_1": rank_1, "distractors": count}

    return evaluate
