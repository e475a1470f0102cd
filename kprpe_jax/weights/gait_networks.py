"""Rules of GaitSet and GaitBase, as OpenGait names their parts."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.gaitbase import GaitBase
from kprpe_jax.backbones.gaitset import GaitSet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def gaitset_layout(model: GaitSet, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of a GaitSet."""
    shapes = table.variable_shapes(model, jnp.zeros((1, 1, *model.image_size)))
    blocks = {f"set_block{n}": f"set_block{n}.forward_block" for n in (1, 2, 3)}
    blocks |= {name: name for name in ("gl_block2", "gl_block3")}
    rules = [Rule("Head.fc_bin", "params/heads/kernel")]
    for ours, theirs in blocks.items():
        for number, place in ((1, 0), (2, 2)):  # an activation stands between
            rules += table.conv(
                f"{theirs}.{place}.conv", f"{ours}/conv{number}", bias=False
            )
    return WeightLayout(rules, shapes, arrays)


def gaitbase_layout(model: GaitBase, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of a GaitBase."""
    shapes = table.variable_shapes(model, jnp.zeros((1, 1, *model.image_size)))
    frame = "Backbone.forward_block"
    rules = [
        *table.conv(f"{frame}.conv1.conv", "stem/conv", bias=False),
        *table.batch_norm(f"{frame}.bn1", "stem/norm"),
        Rule("FCs.fc_bin", "params/heads/kernel"),
        Rule("BNNecks.fc_bin", "params/heads/classes"),
        *table.batch_norm("BNNecks.bn1d", "heads/norm"),
    ]
    for stage, depth in enumerate(model.depths):
        for index in range(depth):
            theirs = f"{frame}.layer{stage + 1}.{index}"
            ours = f"stem/blocks_{stage}_{index}"
            for n in (1, 2):
                rules += table.conv(f"{theirs}.conv{n}", f"{ours}/conv{n}", bias=False)
                rules += table.batch_norm(f"{theirs}.bn{n}", f"{ours}/norm{n}")
            if f"params/{ours}/shortcut_conv/kernel" in shapes:
                rules += table.conv(
                    f"{theirs}.downsample.0", f"{ours}/shortcut_conv", bias=False
                )
                rules += table.batch_norm(
                    f"{theirs}.downsample.1", f"{ours}/shortcut_norm"
                )
    return WeightLayout(rules, shapes, arrays)
