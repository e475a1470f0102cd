"""Type `tinyface`: rank-k of probes among their mates and all distractors."""

from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.evaluators.template_features import TemplateOptions, floats
from kprpe_jax.evaluation.protocols import distractor_search

_RANKS = (1, 5, 20)


def build(
    data: FaceData, *, dataset: str, align: bool = False, mirror: str = "sum"
) -> Evaluator:
    """Build the evaluator.

    Args:
      data: of the run.
      dataset: imported with --kind tinyface.
      align, mirror: of `TemplateOptions`.
    Returns: function (recognizer, mesh) -> rank-1, -5 and -20; numbers of probes and
      of gallery images.
    Raises: ValueError: no probes or no mates; as `TemplateOptions.open`.
    """
    options = TemplateOptions(data, align, mirror)
    images = options.open(dataset)
    of = {part: images.part == part for part in ("probe", "match", "distractor")}
    if not (of["probe"].any() and of["match"].any()):
        raise ValueError(
            f"{dataset} must hold probes and matches; got {of['probe'].sum()} and "
            f"{of['match'].sum()} images; import it with --kind tinyface"
        )

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        x = options.embed(recognizer, mesh, images.faces)
        found = distractor_search(
            x[of["probe"]],
            images.template[of["probe"]],
            x[of["match"]],
            images.template[of["match"]],
            x[of["distractor"]],
            ranks=_RANKS,
            mesh=mesh,
        )
        results = {f"rank_{k}": value for k, value in zip(_RANKS, found, strict=True)}
        counts = {
            "probes": int(of["probe"].sum()),
            "gallery": int((of["match"] | of["distractor"]).sum()),
        }
        return {**floats(results), **counts}

    return evaluate
