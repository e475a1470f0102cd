"""Pair matching: transformers that compare two faces, and their one-image rivals.

Source: Face-ViT, Sec. 4.2 to 4.4.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.checks import check_field
from kprpe_jax.core.unit import unit
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators
from kprpe_jax.evaluation.roc import (
    area_under_curve,
    resolved_rates,
    roc_curve,
    tar_at_far,
)
from kprpe_jax.evaluation.verification import fold_accuracy
from kprpe_jax.losses.class_centers import margin_softmax
from kprpe_jax.losses.margin import make_margin
from kprpe_jax.matching.patch_encoder import PairEncoder, PatchWindows
from kprpe_jax.matching.two_image import (
    OneImage,
    SameOrNot,
    TwoLinear,
    same_or_not_loss,
    score_pairs,
)
from kprpe_jax.tasks import networks, pair_data
from kprpe_jax.tasks.pair_data import OpenRows, PairData
from kprpe_jax.tasks.recognition import SHARDING_RULES, num_centers
from kprpe_jax.tasks.task import Task
from kprpe_jax.weights import face_vit

VARIANTS = ("one_image", "same_or_not", "two_linear")  # V and H1, H2, H2L


def build(config: ConfigDict, mesh: Mesh, open_rows: OpenRows | None = None) -> Task:
    """Build the task; see `Task`. A row of a batch is a pair.

    Args:
      config: of the run.
      mesh: holds the class centers.
      open_rows: where rows come from; None: the data sets that the config names.
    Raises: ValueError: an unknown variant, input or backbone; patches that do not fit
      the number of tokens; pairs that cannot be sampled; no such data set or weights.
    """
    model = make_model(config.model)
    data = pair_data.open_data(config, mesh, open_rows)
    return Task(
        init=partial(init, config, mesh, model, data.backbone),
        loss=make_loss(config, mesh, model, data),
        open_training=data.open_training,
        check_batch=data.check_batch,
        evaluators=build_evaluators(
            config.evals, "pairs", MatchedPairs(config, model, data, open_rows)
        ),
        sharding_rules=SHARDING_RULES,
        import_weights=partial(import_weights, config, model),
        origin=data.origin,
        places={
            "pair matcher": partial(networks.place, params="transformer"),
            "recognizer": partial(networks.place_backbone, config.train_backbone),
        },
    )


def import_weights(config: ConfigDict, model: nn.Module, path: str) -> dict[str, Any]:
    """Read an official Face-ViT checkpoint, the CNN below it included.

    Args:
      config: reads train_backbone: whether the CNN is a parameter.
      model: with the official options (`weights.face_vit.import_checkpoint`).
      path: as `load_state_dict` takes it.
    Raises: ValueError: other options; lists what does not fit.
    """
    weights = face_vit.import_checkpoint(model, path)
    variables = dict(weights.variables)
    params = {"transformer": variables.pop("params")}
    if weights.cnn is not None:
        trained, cnn = networks.split_backbone(
            weights.cnn, trained=config.train_backbone
        )
        params, variables = {**params, **trained}, {**variables, **cnn}
    return {**variables, "params": params}


def init(
    config: ConfigDict,
    mesh: Mesh,
    model: nn.Module,
    backbone: Recognizer | None,
    rng: Array,
) -> dict[str, Any]:
    """Variables of the transformer, the class centers and the network below.

    Args:
      config: reads data.num_classes, train_backbone and what `example_input` does.
      mesh: of `num_centers`.
      model: from `make_model`.
      backbone: None where there is none.
      rng: key.
    """
    model_rng, backbone_rng, centers_rng = jax.random.split(rng, 3)
    example = pair_data.example_input(config)
    sides = (example,) * (1 if isinstance(model, OneImage) else 2)
    variables = dict(model.init(model_rng, *sides))
    params = {"transformer": variables.pop("params")}
    if not isinstance(model, SameOrNot):
        shape = num_centers(config, mesh), _embed_dim(model)
        params["class_centers"] = 0.01 * jax.random.normal(centers_rng, shape)
    if backbone is not None:
        own, collections = pair_data.init_backbone(config, backbone, backbone_rng)
        params, variables = {**params, **own}, {**variables, **collections}
    return {**variables, "params": params}


def make_model(options: ConfigDict) -> OneImage | SameOrNot | TwoLinear:
    """Build the transformer that the config's section `model` states.

    Args:
      options: variant, of VARIANTS; window_size, window_stride, window_padding (pixels
        of learned patches; window_size 0: patches are given) and, where they are there,
        window_scale and window_shift of pixels in [-1, 1]; output_dim, head_norm and
        shared_head of `TwoLinear`; the fields of `PairEncoder`.
    Raises: ValueError: unknown variant.
    """
    fields = networks.model_fields(options)
    size, stride, padding = (
        fields.pop(f"window_{name}") for name in ("size", "stride", "padding")
    )
    head = {k: fields.pop(k) for k in ("output_dim", "head_norm", "shared_head")}
    variant = fields.pop("variant")
    check_field("config.model.variant", variant, VARIANTS)
    pixels = fields.pop("window_scale", 1.0), fields.pop("window_shift", 0.0)
    windows = PatchWindows(size, stride, padding, *pixels) if size else None
    encoder = PairEncoder(
        **{**fields, "dtype": jnp.dtype(fields["dtype"])}, windows=windows
    )
    if variant == "one_image":
        return OneImage(encoder)
    return (
        SameOrNot(encoder) if variant == "same_or_not" else TwoLinear(encoder, **head)
    )


def model_section(model: OneImage | SameOrNot | TwoLinear) -> dict[str, Any]:
    """Fields of a config's section `model` that make this transformer."""
    encoder, variants = model.encoder, {OneImage: "one_image", SameOrNot: "same_or_not"}
    windows = encoder.windows or PatchWindows(0, 0)
    fields = {"variant": variants.get(type(model), "two_linear")}
    for name in ("size", "stride", "padding", "scale", "shift"):
        fields[f"window_{name}"] = getattr(windows, name)
    for name in ("depth", "num_heads", "mlp_dim", "width", "num_patches", "head_dim"):
        fields[name] = getattr(encoder, name)
    fields |= {"attention": encoder.attention, "logit_scale": encoder.logit_scale}
    if isinstance(model, TwoLinear):
        for name in ("output_dim", "head_norm", "shared_head"):
            fields[name] = getattr(model, name)
    return fields


def make_loss(
    config: ConfigDict, mesh: Mesh, model: nn.Module, data: PairData
) -> Callable[..., Any]:
    """Build the `Task.loss`: Eq. 4.7, or for H2 the binary cross entropy.

    Args:
      config: reads data.num_classes and loss: margin, scale, angle of `make_margin`.
      mesh: holds the class centers.
      model: from `make_model`.
      data: reads its pairs.
    """
    margin = make_margin("arcface", **config.loss.to_dict())

    def loss(params, collections, batch, rng, *, train):
        read_rng, dropout_rng = jax.random.split(rng)
        sides, changed = data.read(params, collections, batch, read_rng, train=train)
        own = networks.own_collections(collections)
        inputs = (sides[:, 0], sides[:, 1])
        labels = batch["label"].T.reshape(-1)  # all first images, then all second ones
        if isinstance(model, OneImage):
            inputs = (jnp.concatenate(inputs),)
        output, own = model.apply(
            {"params": params["transformer"], **own},
            *inputs,
            train=train,
            mutable=list(own),
            rngs={"dropout": dropout_rng},
        )
        collections = {**collections, **own, **changed}
        if isinstance(model, SameOrNot):
            same = batch["label"][:, 0] == batch["label"][:, 1]
            right = (output.argmax(-1) == same).mean(dtype=jnp.float32)
            return same_or_not_loss(output, same), (collections, {"accuracy": right})
        result = margin_softmax(
            output if isinstance(model, OneImage) else output.trained,
            params["class_centers"],
            labels,
            margin=margin,
            num_classes=config.data.num_classes,
            mesh=mesh,
        )
        return result.loss, (collections, {"accuracy": result.accuracy})

    return loss


class MatchedPairs(NamedTuple):
    """What a run says of its data and its network to every evaluator of pairs.

    Attributes:
      config: of the run.
      model, data: of the run.
      open_rows: of `build`.
    """

    config: ConfigDict
    model: nn.Module
    data: PairData
    open_rows: OpenRows | None = None


def build_evaluator(
    run: MatchedPairs,
    *,
    dataset: str = "",
    split: str = "clean",
    identities: tuple = (),
    count: int = 1000,
) -> Evaluator:
    """Build the evaluator `matched_pairs`, of held-out identities.

    Args:
      run: its data and its network.
      dataset: "" = that of training.
      split: of the data set.
      identities: (first, last); () = all.
      count: of the sampled pairs.
    Returns: function (state, mesh) -> `verification`; where the rows have embeddings,
      also their `cosine_accuracy` on the same pairs.
    Raises: ValueError: as `pair_data.open_pairs`.
    """
    config, model, data, open_rows = run
    fields = dict(dataset=dataset, split=split, identities=identities, count=count)
    tested, genuine = pair_data.open_pairs(config, data.origin, open_rows, **fields)

    @jax.jit
    def score(params, collections, batch):
        sides, _ = data.read(params, collections, batch, jax.random.key(0), train=False)
        variables = networks.own_variables(params, collections, "transformer")
        scores = {"score": score_pairs(model, variables, sides[:, 0], sides[:, 1])}
        if "embedding" in batch:
            first, second = (unit(batch["embedding"][:, side]) for side in (0, 1))
            scores["cosine"] = (first * second).sum(-1)
        return scores

    def evaluate(state: Any, mesh: Mesh) -> dict[str, float]:
        scores = map_rows(
            lambda batch, _: score(state.params, state.collections, batch),
            tested,
            batch_size=config.evals.batch_size,
            mesh=mesh,
        )
        results = verification(scores["score"], genuine)
        if "cosine" in scores:
            cosine = verification(scores["cosine"], genuine)
            results["cosine_accuracy"] = cosine["accuracy"]
        return results

    return evaluate


def verification(scores: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """Verification by scores of any scale.

    Args:
      scores: float32 [P], in [-1, 1].
      same: bool [P].
    Returns: accuracy over 10 folds with exact thresholds, its deviation over the folds,
      TAR at FAR 1e-2 where there are 100 impostor pairs, the area under the curve, and
      the number of pairs.
    """
    folds = fold_accuracy(2 - 2 * scores, same, thresholds="exact")
    roc = roc_curve(scores, same)
    numbers = {"accuracy": folds.mean, "std": folds.std}
    if fars := resolved_rates([1e-2], (~same).sum()):
        numbers["tar_at_far_1e-2"] = float(tar_at_far(roc, fars).tar[0])
    return {**numbers, "auc": area_under_curve(roc), "pairs": len(same)}


def _embed_dim(model: OneImage | TwoLinear) -> int:
    return model.encoder.width if isinstance(model, OneImage) else model.output_dim
