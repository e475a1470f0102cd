"""Rules of sphere-20 and FaceNet, two of the networks that DeepFace-EMD compares."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones import inception_resnet
from kprpe_jax.backbones.inception_resnet import InceptionResNet
from kprpe_jax.backbones.sphereface import SphereFace
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def sphereface_layout(
    model: SphereFace, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of sphere-20, trained with CosFace."""
    rules = table.linear("fc", "head")
    for stage, size in enumerate(model.stage_sizes):
        theirs = f"layer{stage + 1}"
        rules += table.conv(f"{theirs}.0", f"reductions_{stage}")
        rules.append(Rule(f"{theirs}.1.weight", f"params/acts_{stage}/slope"))
        for index in range(size):
            ours, unit = f"stages_{stage}_{index}", f"{theirs}.{index + 2}"
            for part in ("1", "2"):
                convs = f"{unit}.conv{part}", f"{ours}/conv{part}"
                rules += table.conv(*convs, bias=False)
                target = f"params/{ours}/act{part}/slope"
                rules.append(Rule(f"{unit}.prelu{part}.weight", target))
    return WeightLayout(rules, table.image_shapes(model), arrays)


def inception_layout(
    model: InceptionResNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of FaceNet; its classifier (`logits.`) is left out."""
    arrays = {k: v for k, v in arrays.items() if not k.startswith("logits.")}
    rules = [
        *table.linear("last_linear", "head", bias=False),
        *table.batch_norm("last_bn", "head_norm"),
        *_branch_rules("mixed_6a", "reduce_a", inception_resnet.REDUCE_A),
        *_branch_rules("mixed_7a", "reduce_b", inception_resnet.REDUCE_B),
        *_branch_rules("block8", "last_block", inception_resnet.BLOCK8),
        *table.conv("block8.conv2d", "last_block/merge"),
    ]
    for index, name in enumerate(("1a", "2a", "2b", "3b", "4a", "4b")):
        rules += _conv_norm(f"conv2d_{name}", f"stem_{index}")
    kinds = (
        ("block35", inception_resnet.BLOCK35),
        ("block17", inception_resnet.BLOCK17),
        ("block8", inception_resnet.BLOCK8),
    )
    for number, (kind, branches) in enumerate(kinds):
        for index in range(model.repeats[number]):
            ours, theirs = f"{kind}_{index}", f"repeat_{number + 1}.{index}"
            rules += _branch_rules(theirs, ours, branches)
            rules += table.conv(f"{theirs}.conv2d", f"{ours}/merge")
    return WeightLayout(rules, table.image_shapes(model), arrays)


def _branch_rules(
    theirs: str, ours: str, branches: inception_resnet.Branches
) -> list[Rule]:
    """A branch of one convolution has no number behind its name."""
    return [
        rule
        for number, branch in enumerate(branches)
        for index in range(len(branch))
        for rule in _conv_norm(
            f"{theirs}.branch{number}" + (f".{index}" if len(branch) > 1 else ""),
            f"{ours}/branch{number}_{index}",
        )
    ]


def _conv_norm(theirs: str, ours: str) -> list[Rule]:
    return table.conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours)
