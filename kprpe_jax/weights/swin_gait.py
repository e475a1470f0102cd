"""Rules of SwinGait.

OpenGait publishes the 3D network only; the names of the 2D one are those of official
parts put together.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.swin_gait import SwinGait
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout
from kprpe_jax.weights.swin import block_rules, without_buffers

_HEADS = ("FCs.fc_bin", "BNNecks.fc_bin", "BNNecks.bn1d.")


def swin_gait_layout(model: SwinGait, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of a SwinGait with position `table` and mask_padding False.

    Official heads have one part more than there are strips. It copies the last strip,
    reaches neither embeddings nor logits, and is left out.

    Raises: ValueError: options that no official weights are made for.
    """
    if model.mask_padding or model.uses_keypoints:
        raise ValueError(
            "official weights attend to padding and have a bias by "
            f"offset; got mask_padding={model.mask_padding}, position "
            f"{model.position!r}; set mask_padding=False and position='table'."
        )
    silhouettes = jnp.zeros((1, 1, *model.image_size))
    shapes = table.variable_shapes(model, silhouettes)
    return WeightLayout(_rules(model), shapes, _without_spare(arrays, sum(model.bins)))


def _without_spare(
    arrays: Mapping[str, np.ndarray], parts: int
) -> dict[str, np.ndarray]:
    """Arrays without buffers and without the spare part of the heads."""
    arrays = without_buffers(arrays)
    spare = arrays.get("FCs.fc_bin")
    if spare is None or len(spare) != parts + 1:
        return arrays  # the check of names and shapes says what is wrong
    for name, array in arrays.items():
        if name.startswith(_HEADS) and array.ndim == 1:  # channel slow, part fast
            arrays[name] = array.reshape(-1, parts + 1)[:, :parts].reshape(-1)
        elif name.startswith(_HEADS) and array.ndim == 3:
            arrays[name] = array[:parts]
    return arrays


def _rules(model: SwinGait) -> list[Rule]:
    """Rules of SwinGait; the model decides how many blocks there are and how large."""
    patch, transformer = "transformer.patch_embed", "transformer.layers"
    rules = [
        *table.conv("layer0.forward_block.0", "stem/conv", bias=False),
        *table.batch_norm("layer0.forward_block.1", "stem/norm"),
        Rule(  # a 1 x 2 x 2 convolution
            f"{patch}.proj.weight",
            "params/patch_embed/kernel",
            (3, 4, 1, 0, 2),
            shape=(model.width, model.channels[1], 1, 2, 2),
        ),
        Rule(f"{patch}.proj.bias", "params/patch_embed/bias"),
        *table.norm(f"{patch}.norm", "patch_norm"),
        *table.norm(f"{transformer}.0.downsample.0", "widen_norm"),
        *table.linear(f"{transformer}.0.downsample.1", "widen", bias=False),
        *table.norm("transformer.norm", "norm"),
        Rule("FCs.fc_bin", "params/heads/kernel"),
        Rule("BNNecks.fc_bin", "params/heads/classes"),
        *table.batch_norm("BNNecks.bn1d", "heads/norm"),
    ]
    for stage, depth in enumerate(model.stem_depths):
        for index in range(depth):
            rules += _residual_rules(
                model, stage, index, f"stem/blocks_{stage}_{index}"
            )
    number = 0
    for stage, depth in enumerate(model.depths):
        for index in range(depth):
            theirs = f"{transformer}.{stage}.blocks.{index}"
            ours = f"blocks_{number}"
            width = model.width << stage
            rules += block_rules(theirs, ours, ("fc1", "fc2"), width)
            rules.append(
                Rule(
                    f"{theirs}.attn.relative_position_bias_table",
                    f"params/{ours}/attention/offset_bias/table",
                )
            )
            number += 1
    return rules


def _residual_rules(model: SwinGait, stage: int, index: int, ours: str) -> list[Rule]:
    """One block of the stem: two naming schemes, frames alone and with time."""
    temporal = model.spans_time and stage == 1
    infix, convs, norms = ".forward_block", "conv{}", "bn{}"
    if temporal:
        infix, convs, norms = "", "conv{}.forward_block.0", "conv{}.forward_block.1"
    theirs, rules = f"layer{stage + 1}{infix}.{index}", []
    for n in (1, 2):
        rules += table.conv(
            f"{theirs}.{convs.format(n)}", f"{ours}/conv{n}", bias=False
        )
        rules += table.batch_norm(f"{theirs}.{norms.format(n)}", f"{ours}/norm{n}")
    width, inputs = model.channels[1], model.channels[0]
    if temporal:
        source, shape = f"{theirs}.shortcut3d.weight", (width, width, 3, 1, 1)
        target = f"params/{ours}/conv_time/kernel"
        rules.append(Rule(source, target, (2, 3, 4, 1, 0), shape=shape))
        rules += table.batch_norm(f"{theirs}.sbn", f"{ours}/norm_time")
    if stage == 1 and index == 0:
        shape = (width, inputs, *(3 if temporal else 2) * (1,))
        source, target = f"{theirs}.downsample", f"{ours}/shortcut_conv"
        kernel = f"params/{target}/kernel"
        axes = (*range(2, len(shape)), 1, 0)
        rules.append(Rule(f"{source}.0.weight", kernel, axes, shape=shape))
        rules += table.batch_norm(f"{source}.1", f"{ours}/shortcut_norm")
    return rules
