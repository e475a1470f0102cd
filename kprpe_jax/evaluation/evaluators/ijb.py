"""Type `ijb`: 1:1 and 1:N of IJB-B or IJB-C, by the data set's own lists."""

from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.evaluators.template_features import (
    TemplateOptions,
    floats,
    rate_name,
    search_galleries,
)
from kprpe_jax.evaluation.protocols import template_verification
from kprpe_jax.evaluation.roc import FARS, resolved_rates
from kprpe_jax.evaluation.templates import template_rows


def build(
    data: FaceData,
    *,
    dataset: str,
    fusion: str = "norm",
    align: bool = False,
    mirror: str = "sum",
) -> Evaluator:
    """Build the evaluator.

    Args:
      data: of the run.
      dataset: imported with --kind ijb.
      fusion, align, mirror: of `TemplateOptions`.
    Returns: function (recognizer, mesh) -> TAR at FAR over the pairs; rank-1, -5 and
      -10 and TPIR of each probe list in all galleries; the number of templates.
    Raises: ValueError: a data set without lists; as `TemplateOptions`.
    """
    options = TemplateOptions(data, align, mirror, fusion)
    fuse = options.make_fuse()
    templates = options.open(dataset)
    lists = templates.lists
    if not len(lists.first) and not (lists.galleries and lists.probes):
        raise ValueError(
            f"{dataset} must hold lists of templates; got a data set without; import "
            "it with --kind ijb"
        )

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        fused = fuse(recognizer, mesh, templates)
        results: dict[str, float] = {}
        if len(lists.first):
            fars = resolved_rates(FARS, (~lists.same).sum())
            found = template_verification(
                fused, lists.first, lists.second, lists.same, fars=fars
            )
            pairs = zip(fars, found.tar, strict=True)
            results = {rate_name("tar_at_far", far): tar for far, tar in pairs}
        unit = fused.unit_embeddings
        galleries = [
            (unit[template_rows(fused.ids, ids)], subjects)
            for ids, subjects in lists.galleries.values()
        ]
        for name, (ids, subjects) in lists.probes.items() if galleries else ():
            probes = unit[template_rows(fused.ids, ids)]
            found = search_galleries(
                probes, subjects, galleries, ranks=(1, 5, 10), mesh=mesh
            )
            results |= {f"{name}_{metric}": value for metric, value in found.items()}
        return {**floats(results), "templates": len(fused.ids)}

    return evaluate
